"""Laws of units, seen from the seat of the driver: what each asks of the nets and what it makes of the answers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from models.grid import unpack
from models.noise import NoiseSource, philox
from models.plan import REFERENCE, Request, Unit, UnitKind, plan
from models.spec import BundleSpec, KnownRows, Prediction
from models.units import Evaluate, pictures, start
from tests.tiny import tiny_spec

NULL = 2
Net = Callable[[Evaluate], Tensor]


def request(
    *, num_frames: int = 20, label: int | None = 1, guidance: float = 1.5, seed: int = 0, **changes: object
) -> Request:
    return replace(Request(num_frames, seed, label, 3, 2, "euler", guidance), **changes)  # type: ignore[arg-type]


def half(evaluation: Evaluate) -> Tensor:
    """A net whose answer depends on input and label."""
    scale = torch.tensor([0.5 + 0.1 * label for label in evaluation.labels])[:, None, None, None]
    return (evaluation.x[:, :3] * scale).clamp(-0.9, 0.9)


def run(
    unit: Unit,
    spec: BundleSpec,
    wanted: Request,
    results: dict[str, Tensor],
    net: Net = half,
    noise: NoiseSource | None = None,
) -> tuple[Tensor, list[Evaluate]]:
    """The unit's result and every evaluation it asked for."""
    source = noise or philox(wanted.seed)
    generator = start(unit, spec=spec, request=wanted, results=results, noise=source)
    asked = [next(generator)]
    while True:
        try:
            asked.append(generator.send(net(asked[-1])))
        except StopIteration as end:
            return end.value, asked


def run_all(
    spec: BundleSpec, wanted: Request, *, reference: Tensor | None = None
) -> tuple[dict[str, Tensor], dict[str, list[Evaluate]]]:
    results: dict[str, Tensor] = {} if reference is None else {REFERENCE: reference}
    asked: dict[str, list[Evaluate]] = {}
    for unit in plan(spec, wanted):
        results[unit.key], asked[unit.key] = run(unit, spec, wanted, results)
    return results, asked


@pytest.mark.parametrize("mode", list(KnownRows))
@pytest.mark.parametrize("num_frames", [1, 5, 16, 17, 64, 200])
def test_exactly_n_frames_of_both_stages(num_frames: int, mode: KnownRows) -> None:
    spec, wanted = tiny_spec(known_rows=mode), request(num_frames=num_frames)
    results, _ = run_all(spec, wanted)
    made = {UnitKind.COARSE: 0, UnitKind.REFINE: 0}
    for unit in plan(spec, wanted):
        result = results[unit.key]
        frames = pictures(unit, result, spec=spec)
        side = spec.coarse_size if unit.kind is UnitKind.COARSE else spec.refined_size
        assert frames.shape == (len(unit.frames), 3, side, side)
        made[unit.kind] += len(frames)
    assert made == {UnitKind.COARSE: num_frames, UnitKind.REFINE: num_frames}


@pytest.mark.parametrize("mode", list(KnownRows))
@pytest.mark.parametrize("overlap", [1, 2, 3])
def test_a_grid_begins_with_the_end_of_the_one_before(overlap: int, mode: KnownRows) -> None:
    spec = tiny_spec(overlap_rows=overlap, known_rows=mode)
    results, _ = run_all(spec, request(num_frames=40))
    known = overlap * spec.coarse_size
    assert torch.equal(results["coarse/1"][:, :known], results["coarse/0"][:, -known:])
    assert not torch.equal(results["coarse/1"][:, known:], results["coarse/0"][:, known:])


def test_a_clean_prefix_is_clean_at_every_step() -> None:
    spec = tiny_spec(overlap_rows=2)
    results, asked = run_all(spec, request(num_frames=24))
    known = 2 * spec.coarse_size
    for evaluation in asked["coarse/1"]:
        for row in evaluation.x:
            assert torch.equal(row[:, :known], results["coarse/0"][:, -known:])


def test_replaced_rows_stand_at_the_level_of_the_step() -> None:
    spec = tiny_spec(overlap_rows=2, known_rows=KnownRows.REPLACEMENT)
    results, asked = run_all(spec, request(num_frames=24))
    known = 2 * spec.coarse_size
    clean = results["coarse/0"][:, -known:]
    noises = []
    for evaluation in asked["coarse/1"]:
        t = evaluation.times[0]
        noises.append((evaluation.x[0, :, :known] - (1 - t) * clean) / t)
    assert torch.allclose(noises[0], noises[1], atol=1e-5), "one fixed noise per known row"
    again, asked_again = run_all(spec, request(num_frames=24, label=0))
    assert not torch.equal(again["coarse/0"], results["coarse/0"])
    one = asked_again["coarse/1"][1]
    t, other = one.times[0], again["coarse/0"][:, -known:]
    assert torch.allclose((one.x[0, :, :known] - (1 - t) * other) / t, noises[1], atol=1e-5), "whatever the rows show"
    assert 0.7 < float(noises[0].std()) < 1.3


@pytest.mark.parametrize(("label", "guidance", "rows"), [(1, 1.5, 2), (1, 1.0, 1), (None, 1.5, 1)])
def test_guidance_costs_a_second_row_only_where_it_does_something(
    label: int | None, guidance: float, rows: int
) -> None:
    spec, wanted = tiny_spec(), request(label=label, guidance=guidance)
    _, asked = run(plan(spec, wanted)[0], spec, wanted, {})
    assert len(asked) == 3
    for evaluation in asked:
        assert evaluation.labels == ((label, NULL) if rows == 2 else (NULL if label is None else label,))
        assert len(evaluation.x) == len(evaluation.times) == rows


def test_guidance_moves_away_from_the_null_label() -> None:
    spec = tiny_spec()

    def constant(evaluation: Evaluate) -> Tensor:
        values = torch.tensor([0.1 if label == NULL else 0.3 for label in evaluation.labels])
        return values[:, None, None, None].expand(-1, 3, 16, 16)

    wanted = request(guidance=2.0)
    result, _ = run(plan(spec, wanted)[0], spec, wanted, {}, constant)
    assert torch.allclose(result, torch.full_like(result, 0.1 + 2.0 * 0.2))


def test_all_frames_of_a_job_are_refined_from_one_noise() -> None:
    """Equal coarse frames give equal refined frames, in whichever unit they are."""
    spec, wanted = tiny_spec(), request(num_frames=24)
    still = torch.full((3, 16, 16), 0.25)
    refines = [unit for unit in plan(spec, wanted) if unit.kind is UnitKind.REFINE]
    frames = torch.cat([run(unit, spec, wanted, {unit.requires[0]: still})[0] for unit in refines])
    assert len(frames) == 24
    assert all(torch.equal(frame, frames[0]) for frame in frames)


def test_a_residual_is_added_to_the_enlarged_frame() -> None:
    spec, wanted = tiny_spec(refine=Prediction.RESIDUAL), request(num_frames=16)
    flat = torch.full((3, 16, 16), 0.25)
    unit = next(unit for unit in plan(spec, wanted) if unit.kind is UnitKind.REFINE)
    result, _ = run(unit, spec, wanted, {"coarse/0": flat}, lambda one: torch.full_like(one.x[:, :3], 0.5))
    assert torch.allclose(result, torch.full_like(result, 0.75), atol=1e-6)


def test_refinement_sees_the_frame_it_refines() -> None:
    spec, wanted = tiny_spec(), request(num_frames=16)
    coarse = torch.linspace(-1, 1, 16).repeat_interleave(16).reshape(16, 1, 4, 4).expand(-1, 3, -1, -1)
    packed = coarse.reshape(4, 4, 3, 4, 4).permute(2, 0, 3, 1, 4).reshape(3, 16, 16)
    assert torch.equal(unpack(packed[None], k=4)[0], coarse)
    unit = next(unit for unit in plan(spec, wanted) if unit.kind is UnitKind.REFINE)
    _, asked = run(unit, spec, wanted, {"coarse/0": packed})
    low = asked[0].x[:, 3:]
    assert torch.allclose(low.mean((1, 2, 3)), torch.linspace(-1, 1, 16), atol=1e-5)


@pytest.mark.parametrize("mode", list(KnownRows))
def test_a_unit_stays_on_its_device(mode: KnownRows) -> None:
    """On the meta device, where reading a value back or mixing devices is an error."""
    spec, wanted, device = tiny_spec(known_rows=mode), request(num_frames=20), torch.device("meta")
    results: dict[str, Tensor] = {}
    for unit in plan(spec, wanted):
        noise = philox(0, device=device)
        results[unit.key], asked = run(unit, spec, wanted, results, lambda one: one.x[:, :3], noise)
        assert results[unit.key].is_meta
        assert all(evaluation.x.is_meta for evaluation in asked)


def test_the_seed_decides() -> None:
    spec = tiny_spec()
    first, again, other = (run_all(spec, request(seed=seed))[0]["coarse/1"] for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
