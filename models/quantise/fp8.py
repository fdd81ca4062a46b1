"""Float8 (e4m3) for the linear layers of a DiT's blocks: their scales, and what they make of the net, in torch.

Scales are powers of two, one an activation and one an output channel of a weight. A format with an exponent of its own
loses no precision by that, scaled values are exact in float16, and small differences between machines do not change
them. What is not quantised: the first and the last layer, norms, the attention between qkv and proj, modulation.
Graphs for compilers are made in `models.quantise.qdq`.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.engine import Rows
from models.nn.dit import DiT

TYPE = torch.float8_e4m3fn
LARGEST = 448.0
"""Of e4m3: what lies beyond is cut."""
HEADROOM = 4.0
"""How much larger than any seen in calibration an activation may become before it is cut. Measured on the demo's nets:
factors of 1 to 16 make no difference to the output, while cutting the largest 0.1 % makes it a third worse."""

LAYER = re.compile(r"blocks\.\d+\.(attn\.(qkv|proj)|mlp\.(fc1|fc2))")
"""What is quantised, by name within the net."""


@dataclass(frozen=True)
class Scales:
    """Of the activations that go into each quantised layer of one net."""

    of: Mapping[str, float]
    """By the layer's name: "blocks.0.attn.qkv"; powers of two."""

    @property
    def digest(self) -> str:
        """SHA-256; weights' scales follow from the weights."""
        return hashlib.sha256(json.dumps(dict(self.of), sort_keys=True).encode()).hexdigest()


def layers(net: nn.Module) -> Iterator[tuple[str, nn.Linear]]:
    """The layers that are quantised, with their names."""
    for name, module in net.named_modules():
        if isinstance(module, nn.Linear) and LAYER.fullmatch(name):
            yield name, module


def scales(net: DiT, rows: Rows, *, batch: int = 8) -> Scales:
    """From what goes into the layers while the net (float32, CPU) runs these rows."""
    largest: dict[str, float] = {}
    handles = [module.register_forward_pre_hook(_noting(largest, name)) for name, module in layers(net)]
    assert rows.modulation is not None
    try:
        with torch.inference_mode():
            for x, modulation in zip(_split(rows.x, batch), _split(rows.modulation, batch), strict=True):
                net.denoise(x, modulation)
    finally:
        for handle in handles:
            handle.remove()
    return Scales({name: _power(HEADROOM * most) for name, most in largest.items()})


class Linear8(nn.Module):
    """A linear layer as the quantised graph computes it, in float32: only inputs and weights are rounded."""

    def __init__(self, layer: nn.Linear, *, scale: float) -> None:
        """`scale` is that of what goes in."""
        super().__init__()
        self.scale, self.bias = scale, layer.bias
        weight = layer.weight.half().float()  # the graph was float16 before it was quantised
        self.weight = nn.Parameter(rounded(weight, weight_scales(weight)[:, None]), requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        """(..., in) -> (..., out)."""
        return F.linear(rounded(x, self.scale), self.weight, self.bias)


def emulate(net: DiT, scales: Scales) -> DiT:
    """Put `Linear8` in the place of each layer of a float32 net that has a scale; the net is changed and returned."""
    for name, layer in [found for found in layers(net) if found[0] in scales.of]:
        parent, _, child = name.rpartition(".")
        setattr(net.get_submodule(parent), child, Linear8(layer, scale=scales.of[name]))
    return net


def _noting(largest: dict[str, float], name: str) -> Any:
    def note(_: nn.Module, inputs: tuple[Tensor]) -> None:
        largest[name] = max(largest.get(name, 0.0), float(inputs[0].abs().max()))

    return note


def _split(rows: Tensor, batch: int) -> tuple[Tensor, ...]:
    return torch.split(rows, batch)


def _power(largest: float) -> float:
    """The smallest power of two that brings `largest` within the format; float16 must hold it."""
    return 2.0 ** max(-24, math.ceil(math.log2(max(largest, 1e-30) / LARGEST)))


def weight_scales(weight: Tensor) -> Tensor:
    """(out, in) -> (out,), powers of two."""
    return torch.tensor([_power(float(most)) for most in weight.detach().half().float().abs().amax(1)])


def rounded(values: Tensor, scale: Tensor | float) -> Tensor:
    """Values as float8 holds them under a scale, which broadcasts; float32."""
    return (values.float() / scale).clamp(-LARGEST, LARGEST).to(TYPE).float() * scale
