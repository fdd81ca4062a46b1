"""Presets: the published nets' names, shapes and counts, for every size, patch, grid and frame size that fits."""

from __future__ import annotations

import math

import pytest
import torch

from models.nn.dit import DiT
from models.presets import NAMES, SIZES, Misfit, UnknownPreset, net_spec, parse
from models.spec import NetSpec, Prediction, ScheduleName, Stage


def shapes(spec: NetSpec) -> dict[str, tuple[int, ...]]:
    with torch.device("meta"):
        return {key: tuple(tensor.shape) for key, tensor in DiT(spec).state_dict().items()}


def published(*, stage: Stage) -> NetSpec:
    """The released nets: latents of 512-pixel images, unconditional, epsilon with learned variance."""
    frame = 128 if stage is Stage.COARSE else 512
    return net_spec("DiT-XL/2", stage=stage, frame_size=frame, channels=4, downsample=8, learned_variance=True)


def published_shapes(*, channels: int) -> dict[str, tuple[int, ...]]:
    """As the authors' checkpoints have them at 512 pixels."""
    outside: dict[str, tuple[int, ...]] = {
        "pos_embed": (1, 1024, 1152),
        "x_embedder.proj.weight": (1152, channels, 2, 2),
        "x_embedder.proj.bias": (1152,),
        "t_embedder.mlp.0.weight": (1152, 256),
        "t_embedder.mlp.0.bias": (1152,),
        "t_embedder.mlp.2.weight": (1152, 1152),
        "t_embedder.mlp.2.bias": (1152,),
        "final_layer.linear.weight": (32, 1152),
        "final_layer.linear.bias": (32,),
        "final_layer.adaLN_modulation.1.weight": (2304, 1152),
        "final_layer.adaLN_modulation.1.bias": (2304,),
    }
    block = {"attn.qkv": 3456, "attn.proj": 1152, "mlp.fc1": 4608, "mlp.fc2": 1152, "adaLN_modulation.1": 6912}
    inside: dict[str, tuple[int, ...]] = {}
    for i in range(28):
        for layer, width in block.items():
            inside[f"blocks.{i}.{layer}.weight"] = (width, 4608 if layer == "mlp.fc2" else 1152)
            inside[f"blocks.{i}.{layer}.bias"] = (width,)
    return outside | inside


def test_the_published_net_has_the_published_tensors() -> None:
    found = shapes(published(stage=Stage.COARSE))
    assert found == published_shapes(channels=4)
    assert len(found) == 291
    assert round(sum(math.prod(shape) for shape in found.values()) / 1e6, 2) == 674.86


@pytest.mark.parametrize(("stage", "channels"), [(Stage.COARSE, 4), (Stage.REFINE, 8)])
def test_the_published_weights_load_strictly(stage: Stage, channels: int) -> None:
    spec = published(stage=stage)
    assert spec.ancestral
    with torch.device("meta"):
        net = DiT(spec)
        state = {key: torch.empty(shape) for key, shape in published_shapes(channels=channels).items()}
    net.load_state_dict(state, strict=True, assign=True)


@pytest.mark.parametrize("grid", [2, 8])
@pytest.mark.parametrize("name", NAMES)
def test_every_preset_builds(name: str, grid: int) -> None:
    size, patch = parse(name)
    spec = net_spec(name, stage=Stage.COARSE, frame_size=3 * patch, grid=grid, classes=5)
    found = shapes(spec)
    assert found["pos_embed"] == (1, (3 * grid) ** 2, size.width)
    assert found["x_embedder.proj.weight"] == (size.width, 3, patch, patch)
    assert found["y_embedder.embedding_table.weight"] == (6, size.width)
    assert found[f"blocks.{size.depth - 1}.mlp.fc1.bias"] == (4 * size.width,)
    assert len(found) == 12 + 10 * size.depth


def test_heads_are_the_published_ones() -> None:
    assert {name: (size.width, size.heads) for name, size in SIZES.items()} == {
        "S": (384, 6),
        "B": (768, 12),
        "L": (1024, 16),
        "XL": (1152, 16),
    }


def test_what_a_net_draws_and_sees_follows_from_its_stage() -> None:
    coarse = net_spec("DiT-S/2", stage=Stage.COARSE, frame_size=32, grid=8, channels=1)
    refine = net_spec("DiT-S/2", stage=Stage.REFINE, frame_size=32, grid=8, channels=1, learned_variance=True)
    assert (coarse.input_size, coarse.in_channels, coarse.out_channels) == (256, 1, 1)
    assert (refine.input_size, refine.in_channels, refine.out_channels) == (32, 2, 2)


def test_published_nets_see_times_up_to_a_thousand() -> None:
    linear = net_spec("DiT-B/4", stage=Stage.COARSE, frame_size=16)
    flow = net_spec(
        "DiT-B/4", stage=Stage.COARSE, frame_size=16, prediction=Prediction.FLOW, schedule=ScheduleName.FLOW
    )
    assert (linear.time_scale * 999, flow.time_scale * 1) == (999, 1000)


@pytest.mark.parametrize(("frame_size", "downsample", "step"), [(30, 1, 8), (96, 8, 64), (0, 1, 8)])
def test_a_frame_is_whole_patches(frame_size: int, downsample: int, step: int) -> None:
    with pytest.raises(Misfit, match=rf"frame size {frame_size} is not a multiple of {step}, .*: take \d+"):
        net_spec("DiT-L/8", stage=Stage.COARSE, frame_size=frame_size, downsample=downsample)


def test_an_unknown_preset_names_those_there_are() -> None:
    with pytest.raises(UnknownPreset, match=r"preset 'DiT-H/2' is unknown: choose one of DiT-S/2, .*DiT-XL/8"):
        parse("DiT-H/2")
    assert parse("dit-xl/2") == (SIZES["XL"], 2)
