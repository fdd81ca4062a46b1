"""Exact floating point operations of nets: a multiplication and an addition are two, as is usual.

Only matrix products, convolutions and attention count, as in torch's own counter: they are 98 % and more of the time,
and what peaks are measured with. Counted from shapes, nothing is run.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import torch

from models.graph import Part
from models.nn.dit import TIME_FEATURES

if TYPE_CHECKING:
    from models.graph import Graph
    from models.spec import NetSpec


def dit(spec: NetSpec, *, part: Part = Part.WHOLE) -> int:
    """One row through the half of a DiT that follows the modulation."""
    tokens, width, area = spec.tokens, spec.width, spec.patch**2
    blocks = spec.depth if part is Part.WHOLE else min(2, spec.depth)
    linear = 2 * tokens * width * (3 * width + width + 4 * width + 4 * width)  # qkv, projection, MLP
    attention = 2 * 2 * tokens * tokens * width  # scores, and their sum of values
    ends = 2 * tokens * width * area * (spec.in_channels + spec.out_channels)
    return blocks * (linear + attention) + ends


def modulation(spec: NetSpec) -> int:
    """One (time, label) through the other half: what is computed once and kept here, and at each step elsewhere."""
    width = spec.width
    return 2 * width * (TIME_FEATURES + width) + 2 * width * width * (6 * spec.depth + 2)


def of(graph: Graph) -> int:
    """One row through any graph, by torch's counter."""
    from torch.utils.flop_counter import FlopCounterMode

    module = copy.deepcopy(graph.module).to("meta")  # on a CPU the counter would not see the fused attention
    inputs = [torch.empty(1, *port.shape, device="meta") for port in graph.inputs]
    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        module(*inputs)
    return int(counter.get_total_flops())


def total(rows: Mapping[str, int], *, each: Mapping[str, int]) -> int:
    """Of a job: rows of each net, times the net's own."""
    return sum(count * each[net] for net, count in rows.items())


def per_second(flops: float, seconds: Sequence[float]) -> float:
    """The best rate of several runs."""
    return flops / min(seconds)
