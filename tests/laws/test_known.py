"""Laws of known cells: whatever is given is in the result, untouched, and the net sees it as it was taught to."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from models import grid
from models.plan import REFERENCE, Unit, UnitKind, plan
from models.spec import BundleSpec, KnownRows
from models.units import Evaluate, pictures
from tests.laws.test_units import request, run, run_all
from tests.tiny import deep_spec, tiny_spec

MODES = pytest.mark.parametrize("mode", list(KnownRows))


def shown(spec: BundleSpec, units: tuple[Unit, ...], results: dict[str, Tensor]) -> Tensor:
    """The coarse sequence (n, C, h, w)."""
    coarse = [unit for unit in units if unit.kind is not UnitKind.REFINE and unit.frames]
    parts = {unit.frames.start: pictures(unit, results[unit.key], spec=spec) for unit in coarse}
    return torch.cat([part for _, part in sorted(parts.items())])


def frames(count: int) -> Tensor:
    return torch.rand(count, 3, 4, 4, generator=torch.Generator().manual_seed(3)) * 2 - 1


@MODES
@pytest.mark.parametrize("given", [1, 3, 4, 7, 16])
def test_a_sequence_begins_with_the_frames_of_the_user(given: int, mode: KnownRows) -> None:
    spec, wanted, reference = tiny_spec(known_rows=mode), request(num_frames=30, reference_frames=given), frames(given)
    results, _ = run_all(spec, wanted, reference=reference)
    sequence = shown(spec, plan(spec, wanted), results)
    assert len(sequence) == 30
    assert torch.equal(sequence[:given], reference)


def test_what_follows_depends_on_the_frames_of_the_user() -> None:
    spec, wanted = tiny_spec(known_rows=KnownRows.REPLACEMENT), request(num_frames=16, reference_frames=1)
    dark, light = (run_all(spec, wanted, reference=torch.full((1, 3, 4, 4), value))[1] for value in (-1.0, 1.0))
    seen = [asked["coarse/0"][1].x[0, :, :4, :4].mean() for asked in (dark, light)]
    assert seen[0] < seen[1]


def test_colour_becomes_grey_where_the_bundle_is_grey() -> None:
    spec, wanted = deep_spec(), request(num_frames=16, reference_frames=2, label=None)
    colour = torch.tensor([1.0, -1.0, -1.0])[None, :, None, None].expand(2, -1, 4, 4)
    results: dict[str, Tensor] = {REFERENCE: colour}
    unit = plan(spec, wanted)[0]
    drawn, _ = run(unit, spec, wanted, results, lambda one: one.x[:, :1] * 0.5)
    assert torch.allclose(grid.unpack(drawn[None], k=4)[0, :2], torch.tensor(2 * 0.299 - 1), atol=1e-6)


def test_known_cells_enter_clean_at_every_step_where_the_net_takes_them_so() -> None:
    spec, wanted, reference = tiny_spec(), request(num_frames=16, reference_frames=7), frames(7)
    _, asked = run_all(spec, wanted, reference=reference)
    for evaluation in asked["coarse/0"]:
        for row in evaluation.x:
            assert torch.equal(grid.unpack(row[None], k=4)[0, :7], reference)


def test_else_they_enter_at_the_level_of_the_step() -> None:
    spec = tiny_spec(known_rows=KnownRows.REPLACEMENT)
    wanted, reference = request(num_frames=16, reference_frames=7), frames(7)
    _, asked = run_all(spec, wanted, reference=reference)
    for evaluation in asked["coarse/0"]:
        level, cells = evaluation.times[0], grid.unpack(evaluation.x[:1], k=4)[0, :7]
        assert 0.6 < float(((cells - (1 - level) * reference) / level).std()) < 1.4


@MODES
@pytest.mark.parametrize(("factor", "num_frames"), [(2, 33), (3, 20), (4, 49), (15, 31), (2, 1)])
def test_slow_motion_keeps_every_mth_frame_of_the_motion(mode: KnownRows, factor: int, num_frames: int) -> None:
    spec = tiny_spec(known_rows=mode, overlap_rows=2)
    slow = request(num_frames=num_frames, slow_motion=factor)
    full = request(num_frames=-(-(num_frames - 1) // factor) + 1)
    slowed = shown(spec, plan(spec, slow), run_all(spec, slow)[0])
    motion = shown(spec, plan(spec, full), run_all(spec, full)[0])
    assert len(slowed) == num_frames
    assert torch.equal(slowed[::factor], motion[: len(slowed[::factor])])


def test_slow_grids_wait_for_no_other_slow_grid() -> None:
    spec = tiny_spec()
    for unit in plan(spec, request(num_frames=60, slow_motion=2)):
        if unit.kind is UnitKind.INTERPOLATE:
            assert all(key.startswith("coarse/") for key in unit.requires)


@pytest.mark.parametrize(("sampler", "fresh"), [("euler", False), ("heun", False), ("ddpm", True)])
def test_known_rows_get_fresh_noise_where_the_sampler_draws_it(sampler: str, fresh: bool) -> None:
    spec = tiny_spec(known_rows=KnownRows.REPLACEMENT, overlap_rows=2)
    results, asked = run_all(spec, request(num_frames=24, sampler=sampler, label=None))
    clean = results["coarse/0"][:, 8:]

    def noise(evaluation: Evaluate) -> Tensor:
        level = evaluation.times[0]
        return (evaluation.x[0, :, :8] - (1 - level) * clean) / level

    first, second = (noise(evaluation) for evaluation in asked["coarse/1"][:2])
    assert torch.allclose(first, second, atol=1e-4) is not fresh


@MODES
def test_out_painting_draws_its_own_noise(mode: KnownRows) -> None:
    """No cell starts from the noise of another, known or new, in its grid or the one before."""
    spec = tiny_spec(known_rows=mode, overlap_rows=2)
    _, asked = run_all(spec, request(num_frames=24))
    starts = torch.cat([grid.unpack(asked[key][0].x[:1], k=4)[0] for key in ("coarse/0", "coarse/1")]).flatten(1)
    starts = starts[[*range(16), *range(24, 32)]]  # the known cells are no noise
    likeness = torch.corrcoef(starts).fill_diagonal_(0).abs().max()
    assert likeness < 0.75, "48 numbers a cell: chance stays below"
