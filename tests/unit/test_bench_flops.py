"""Floating point operations, against torch's own counter, against layers counted by hand, and against what is known."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from models.bench import flops, shapes
from models.bench.shapes import NoSuchShape
from models.graph import Graph, Part, codec_graphs, graphs_of
from models.nn import autoencoder
from models.nn.dit import Block, DiT
from models.presets import UnknownPreset
from models.spec import BundleSpec, Codec, NetSpec, Stage
from tests.published import labelled_net
from tests.tiny import released_spec, tiny_net


@pytest.mark.parametrize("spec", [tiny_net(stage=Stage.COARSE), tiny_net(stage=Stage.REFINE), labelled_net().spec])
def test_those_of_a_dit_are_what_torch_counts(spec: NetSpec) -> None:
    for graph in graphs_of(Stage.COARSE, DiT(spec)):
        assert flops.dit(spec, part=graph.part) == flops.of(graph)


@pytest.mark.parametrize("depth", [1, 2])
def test_a_shallow_net_leaves_nothing_out_when_it_reuses(depth: int) -> None:
    spec = tiny_net(stage=Stage.COARSE).model_copy(update={"depth": depth})
    assert flops.dit(spec, part=Part.REUSING) == flops.dit(spec)


def test_those_of_the_modulation_are_what_torch_counts() -> None:
    from torch.utils.flop_counter import FlopCounterMode

    net = labelled_net()
    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        net.modulation(torch.tensor([3.0]), torch.tensor([1]))
    assert flops.modulation(net.spec) == counter.get_total_flops()


def test_those_of_the_published_nets_are_known() -> None:
    """1.0491 TFLOP at 1024 tokens and .2372 at 256, everything of one forward counted."""
    for tokens, known in ((1024, 1.0491e12), (256, 0.2372e12)):
        spec = shapes.spec_of("XL/2", tokens=tokens).nets[Stage.COARSE]
        assert flops.dit(spec) + flops.modulation(spec) == pytest.approx(known, rel=3e-4)


@pytest.mark.parametrize("half", list(Codec))
def test_those_of_half_an_autoencoder_are_its_layers_counted_by_hand(half: Codec) -> None:
    graph = codec(half, shapes.spec_of("S/2", tokens=16), device="cpu")
    assert flops.of(graph) == by_hand(graph)


def test_those_of_the_published_autoencoder_are_known() -> None:
    """Encoding 512 x 512 pixels 1.12 TFLOP, decoding them 2.51."""
    for half, known in ((Codec.ENCODER, 1.12e12), (Codec.DECODER, 2.51e12)):
        graph = codec(half, shapes.spec_of("XL/2", tokens=1024), device="meta")
        assert flops.of(graph) == pytest.approx(known, rel=0.01)


@pytest.mark.parametrize("tokens", [0, 100, 1000, 255])
def test_tokens_that_no_grid_has_are_refused_with_a_number_that_one_has(tokens: int) -> None:
    with pytest.raises(NoSuchShape, match=rf"tokens {tokens} .* such as \d+") as told:
        shapes.spec_of("S/2", tokens=tokens)
    offered = int(str(told.value).split()[-1])
    assert shapes.spec_of("S/2", tokens=offered).nets[Stage.COARSE].tokens == offered


def test_an_unknown_shape_is_refused_with_those_there_are() -> None:
    with pytest.raises(UnknownPreset, match="DiT-XL/2"):
        shapes.spec_of("M/2", tokens=256)


def test_the_same_shape_has_the_same_weights(tmp_path: Path) -> None:
    one, other = (shapes.write(tmp_path / name, released_spec()) for name in ("one", "other"))
    assert one.hash == other.hash


def test_every_block_of_a_random_net_matters() -> None:
    net = shapes.awake(DiT(tiny_net(stage=Stage.COARSE)))
    x, time = torch.randn(1, 3, 16, 16), torch.tensor([500.0])
    before = net(x, time)
    assert before.isfinite().all()
    for block in net.blocks:
        assert isinstance(block, Block)
        kept = block.mlp.fc2.weight.clone()
        block.mlp.fc2.weight.zero_()
        assert float(torch.dist(net(x, time), before) / before.norm()) > 1e-3
        block.mlp.fc2.weight.copy_(kept)


def codec(half: Codec, spec: BundleSpec, *, device: str) -> Graph:
    """Of the shape's autoencoder, whatever its weights."""
    assert spec.autoencoder is not None
    config = spec.autoencoder.config
    state = {key: torch.zeros(shape, device=device) for key, shape in autoencoder.shapes(config).items()}
    (graph,) = codec_graphs(half, autoencoder.load(half, config=config, state=state), spec)
    return graph


def by_hand(graph: Graph) -> int:
    """Convolutions and linear layers as they are run, and attention by its definition."""
    found: list[int] = []

    def count(module: nn.Module, taken: tuple[Any, ...], out: Tensor) -> None:
        match module:
            case nn.Conv2d():
                kernel = math.prod(module.kernel_size) * module.in_channels // module.groups
                found.append(2 * kernel * out.numel())
            case nn.Linear():
                found.append(2 * module.in_features * out.numel())
            case _:
                width, tokens = taken[0].shape[1], math.prod(taken[0].shape[2:])
                found.append(4 * tokens * tokens * width)

    layers = [part for part in graph.module.modules() if isinstance(part, nn.Conv2d | nn.Linear)]
    attentions = [part for part in graph.module.modules() if type(part).__name__ == "Attention"]
    hooks = [part.register_forward_hook(count) for part in (*layers, *attentions)]
    graph.answer(graph.example(1))
    for hook in hooks:
        hook.remove()
    return sum(found)
