"""What compilers are given of a net: graphs, float32 rows in and float32 rows out, without time, label or job.

A DiT has two: `whole` is the half that follows the modulation and also says what the deep blocks added; `reusing` takes
that from an earlier step and runs the first and the last block only. Half an autoencoder has one for each size of
image it is asked for. `compiling.export` and the engines turn graphs into something else; nothing is compiled here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

import torch
from torch import Tensor, nn

from models.bundle import Bundle
from models.nn.dit import DiT
from models.spec import BundleSpec, Codec, NetSpec, Stage

X, MODULATION, DEEP, OUT = "x", "modulation", "deep", "out"
"""Names of inputs and outputs."""


class Part(StrEnum):
    """What of a net a graph computes."""

    WHOLE = "whole"
    """Of a DiT: x, modulation -> out, deep. Of half an autoencoder: x -> out."""
    REUSING = "reusing"
    """Of a DiT: x, modulation, deep -> out."""


@dataclass(frozen=True, slots=True)
class Port:
    """An input or output of a graph."""

    name: str
    shape: tuple[int, ...]
    """Of one row."""


@dataclass(frozen=True, slots=True)
class Graph:
    """A function of float32 tensors (n, *port.shape) for any n >= 1, whose rows do not depend on one another."""

    net: Stage | Codec
    part: Part
    module: nn.Module
    """float32, evaluation mode, on the CPU: `module(*inputs)` is a tuple of outputs."""
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    attentions: int
    """Attentions in one forward; a compiler must fuse them all."""

    @property
    def name(self) -> str:
        """Unique within a bundle: "coarse-whole", "decoder-whole-32"."""
        side = f"-{self.inputs[0].shape[-1]}" if isinstance(self.net, Codec) else ""
        return f"{self.net}-{self.part}{side}"

    def example(self, rows: int, *, seed: int = 0) -> tuple[Tensor, ...]:
        """Inputs from a normal distribution; modulation and features half as wide."""
        generator = torch.Generator().manual_seed(seed)
        return tuple(
            torch.randn(rows, *port.shape, generator=generator) / (1 if port.name == X else 2) for port in self.inputs
        )

    @torch.inference_mode()
    def answer(self, inputs: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """What the module gives, in float32 on the CPU: the oracle of every engine."""
        outputs: tuple[Tensor, ...] = self.module(*inputs)
        return outputs


def graphs(bundle: Bundle, net: Stage | Codec) -> tuple[Graph, ...]:
    """All graphs of one net of a bundle, on one new copy of its weights."""
    if isinstance(net, Stage):
        return graphs_of(net, bundle.net(net))
    return codec_graphs(net, bundle.codec(net), bundle.spec)


def graphs_of(stage: Stage, dit: DiT) -> tuple[Graph, ...]:
    """Those of a DiT, which is not copied."""
    inputs, out, deep = _ports(dit.spec)
    whole = Graph(stage, Part.WHOLE, _Whole(dit).eval(), inputs, (out, deep), attentions=dit.spec.depth)
    attentions = min(2, dit.spec.depth)
    reusing = Graph(stage, Part.REUSING, _Reusing(dit).eval(), (*inputs, deep), (out,), attentions=attentions)
    return whole, reusing


def codec_graphs(half: Codec, module: nn.Module, spec: BundleSpec) -> tuple[Graph, ...]:
    """Those of half an autoencoder: one for the whole grid, one for a refined frame if its size is another."""
    assert spec.autoencoder is not None, "the bundle works on pixels"
    sides = dict.fromkeys((spec.grid * spec.coarse_size, spec.refined_size))
    return tuple(_codec_graph(half, module, spec, side=side) for side in sides)


def _codec_graph(half: Codec, module: nn.Module, spec: BundleSpec, *, side: int) -> Graph:
    vae = spec.autoencoder
    assert vae is not None
    small, pixels = side // vae.downsample, (spec.channels, side, side)
    moments, latents = (2 * vae.latent_channels, small, small), (vae.latent_channels, small, small)
    taken, given = (pixels, moments) if half is Codec.ENCODER else (latents, pixels)
    attentions = sum(type(part).__name__ == "Attention" for part in module.modules())
    return Graph(half, Part.WHOLE, _Only(module).eval(), (Port(X, taken),), (Port(OUT, given),), attentions=attentions)


def _ports(spec: NetSpec) -> tuple[tuple[Port, Port], Port, Port]:
    side = spec.input_size
    taken = Port(X, (spec.in_channels, side, side)), Port(MODULATION, (6 * spec.depth + 2, spec.width))
    return taken, Port(OUT, (spec.out_channels, side, side)), Port(DEEP, (spec.tokens, spec.width))


class _Whole(nn.Module):
    def __init__(self, dit: DiT) -> None:
        super().__init__()
        self.dit = dit

    def forward(self, x: Tensor, modulation: Tensor) -> tuple[Tensor, Tensor]:
        return self.dit.denoise_keeping(x, modulation)


class _Reusing(nn.Module):
    def __init__(self, dit: DiT) -> None:
        super().__init__()
        self.dit = dit

    def forward(self, x: Tensor, modulation: Tensor, deep: Tensor) -> tuple[Tensor]:
        return (self.dit.denoise_reusing(x, modulation, deep),)


class _Only(nn.Module):
    def __init__(self, half: nn.Module) -> None:
        super().__init__()
        self.inner = half

    def forward(self, x: Tensor) -> tuple[Tensor]:
        return (self.inner(x),)
