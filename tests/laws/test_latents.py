"""Laws of units that work on latents, with an autoencoder that averages and repeats: its answers are known."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from models.noise import philox
from models.plan import REFERENCE, Request, UnitKind, plan
from models.spec import AutoencoderSpec, BundleSpec, Codec, KnownRows, Mode, Prediction, ScheduleName, Stage
from models.units import Evaluate, pictures, start
from tests.laws.test_units import request
from tests.tiny import tiny_spec

SCALE = 0.5
LOG_VARIANCE = -2.0


def latent_spec(**changes: object) -> BundleSpec:
    """Latents of 3 channels, half the size of the pixels: the tiny nets fit them."""
    vae = AutoencoderSpec(file="vae.safetensors", sha256="0" * 64, latent_channels=3, downsample=2, scale=SCALE)
    sizes = {"coarse_size": 8, "refined_size": 16, "autoencoder": vae}
    return BundleSpec.model_validate(tiny_spec(**changes).model_dump() | sizes)  # type: ignore[arg-type]


def released_spec() -> BundleSpec:
    """The same with nets of the released kind."""
    spec = latent_spec(known_rows=KnownRows.REPLACEMENT)
    kind = {
        "prediction": Prediction.EPSILON,
        "schedule": ScheduleName.LINEAR,
        "learned_variance": True,
        "out_channels": 6,
        "classes": 0,
    }
    nets = {stage: net.model_copy(update=kind) for stage, net in spec.nets.items()}
    return BundleSpec.model_validate(spec.model_dump() | {"nets": {s: n.model_dump() for s, n in nets.items()}})


def answer(evaluation: Evaluate) -> Tensor:
    """Encoder: the mean of 2 x 2 pixels; decoder: each latent four times; the nets: half of what they see."""
    x = evaluation.x
    if evaluation.net is Codec.ENCODER:
        mean = F.avg_pool2d(x, 2)
        return torch.cat([mean, torch.full_like(mean, LOG_VARIANCE)], dim=1)
    if evaluation.net is Codec.DECODER:
        return x.repeat_interleave(2, -1).repeat_interleave(2, -2)
    return torch.cat([x[:, :3] * 0.5, torch.zeros_like(x[:, :3])], dim=1)


def run(
    spec: BundleSpec, wanted: Request, reference: Tensor | None = None
) -> tuple[dict[str, Tensor], dict[str, list[Evaluate]]]:
    """Every unit's result, and what it asked."""
    results: dict[str, Tensor] = {} if reference is None else {REFERENCE: reference}
    asked: dict[str, list[Evaluate]] = {}
    for unit in plan(spec, wanted):
        generator = start(unit, spec=spec, request=wanted, results=results, noise=philox(wanted.seed))
        asked[unit.key] = [next(generator)]
        while unit.key not in results:
            try:
                asked[unit.key].append(generator.send(answer(asked[unit.key][-1])))
            except StopIteration as end:
                results[unit.key] = end.value
    return results, asked


@pytest.mark.parametrize("num_frames", [1, 5, 17, 40])
def test_exactly_n_frames_in_pixels(num_frames: int) -> None:
    spec, wanted = latent_spec(), request(num_frames=num_frames)
    results, _ = run(spec, wanted)
    made = {Stage.COARSE: 0, Stage.REFINE: 0}
    for unit in plan(spec, wanted):
        shown = pictures(unit, results[unit.key], spec=spec) if unit.frames else torch.empty(0)
        if unit.frames:
            side = spec.coarse_size if unit.stage is Stage.COARSE else spec.refined_size
            assert shown.shape == (len(unit.frames), 3, side, side)
            assert shown.abs().max() <= 1
        made[unit.stage] += len(shown)
    assert made == {Stage.COARSE: num_frames, Stage.REFINE: num_frames}


def test_latents_go_from_grid_to_grid_as_they_are() -> None:
    results, asked = run(latent_spec(overlap_rows=2), request(num_frames=24))
    assert torch.equal(results["coarse/1"][:, :8], results["coarse/0"][:, 8:])
    assert all(one.net is Stage.COARSE for one in asked["coarse/1"]), "nothing is encoded again"


def test_a_grid_is_decoded_as_one_image_at_the_autoencoders_own_scale() -> None:
    results, asked = run(latent_spec(), request(num_frames=16))
    (decode,) = asked["decode/coarse-0"]
    assert decode.net is Codec.DECODER
    assert torch.equal(decode.x[0] * SCALE, results["coarse/0"])
    assert results["decode/coarse-0"].shape == (3, 32, 32)


def test_frames_of_the_user_are_encoded_and_come_back() -> None:
    flat = torch.tensor([-0.5, 0.25, 0.75])[:, None, None, None].expand(-1, 3, 8, 8)
    spec, wanted = latent_spec(), request(num_frames=20, reference_frames=3)
    results, asked = run(spec, wanted, flat)
    assert asked["coarse/0"][0].net is Codec.ENCODER
    decode = next(unit for unit in plan(spec, wanted) if unit.kind is UnitKind.DECODE)
    assert torch.allclose(pictures(decode, results[decode.key], spec=spec)[:3], flat, atol=1e-6)


def test_refinement_sees_the_encoded_frame_and_shows_pixels() -> None:
    spec, wanted = latent_spec(), request(num_frames=16)
    _, asked = run(spec, wanted)
    first, second, *_, last = asked["refine/0-16"]
    assert (first.net, last.net) == (Codec.ENCODER, Codec.DECODER)
    assert torch.allclose(second.x[:, 3:], F.avg_pool2d(first.x, 2) * SCALE, atol=1e-6), "the posterior's mean"


def test_the_released_loop_conditions_on_pictures_encoded_by_sampling() -> None:
    spec, wanted = released_spec(), request(num_frames=20, label=None, mode=Mode.OFFICIAL)
    results, asked = run(spec, wanted)
    seen = asked["coarse/1"][0]
    assert seen.net is Codec.ENCODER
    steps = (seen.x + 1) * 127.5
    assert torch.allclose(steps, steps.round(), atol=1e-3), "eight bits"
    assert torch.allclose(seen.x[0], results["decode/coarse-0"], atol=0.5 / 127.5 + 1e-6)
    encodes = [one for one in asked["interpolate/2"] if one.net is Codec.ENCODER]
    assert len(encodes) == 2
    mean = F.avg_pool2d(asked["refine/0-16"][0].x, 2) * SCALE
    sampled = asked["refine/0-16"][1].x[:, 3:]
    spread = float((sampled - mean).std()) / SCALE
    assert spread == pytest.approx(torch.tensor(LOG_VARIANCE / 2).exp().item(), rel=0.1)
    assert torch.allclose(sampled[0] - mean[0], sampled[1] - mean[1], atol=1e-5), "one noise for all frames"


def test_the_released_loop_makes_56_frames_for_64() -> None:
    spec, wanted = released_spec(), request(num_frames=64, label=None, mode=Mode.OFFICIAL)
    results, _ = run(spec, wanted)
    for stage in Stage:
        units = [unit for unit in plan(spec, wanted) if unit.stage is stage and unit.frames]
        assert sum(len(pictures(unit, results[unit.key], spec=spec)) for unit in units) == 56
