"""Samplers driven by hand: whatever estimates clean images, beside noise that is handed out and counted."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from models import samplers
from models.samplers import Estimate, Query, Sampling
from models.schedules import Level

Answer = Callable[[Query], Estimate]


@dataclass
class Drawn:
    """What a sampler returned, and how it got there."""

    result: Tensor
    queries: list[Query] = field(default_factory=list)
    noises: list[int] = field(default_factory=list)
    """The steps whose noise was asked for, in that order."""


def drawn(name: str, x: Tensor, *, levels: Sequence[Level], answer: Answer, noise: Tensor | None = None) -> Drawn:
    """Run the sampler of that name to its end; noise[i] is that of step i, none given means none."""
    record = Drawn(x)

    def fresh(step: int) -> Tensor:
        record.noises.append(step)
        return torch.zeros_like(x) if noise is None else noise[step]

    sampling = samplers.load(name)(x, levels=levels, noise=fresh)
    record.result = _finish(sampling, answer, record.queries)
    return record


def _finish(sampling: Sampling, answer: Answer, queries: list[Query]) -> Tensor:
    query = next(sampling)
    while True:
        queries.append(query)
        try:
            query = sampling.send(answer(query))
        except StopIteration as end:
            result: Tensor = end.value
            return result
