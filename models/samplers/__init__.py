"""Samplers, one file each: a generator that asks for clean-image estimates and returns the drawn image.

`sample(x, levels=..., noise=...)` yields a `Query`, is sent the `Estimate` made for it, and returns x at the
last level. A sampler knows neither net nor prediction, guidance or known rows: whoever drives it does.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Protocol

from torch import Tensor

from models.schedules import Level


@dataclass(frozen=True, slots=True)
class Query:
    """Which clean image does `x`, at this level, stand for?"""

    x: Tensor
    level: Level


@dataclass(frozen=True, slots=True)
class Estimate:
    """The answer to a query; tensors of the shape of its `x`."""

    clean: Tensor
    variance: Tensor | None = None
    """Of nets that learned it: where the log variance of an ancestral step lies between its bounds, -1..1."""


Sampling = Generator[Query, Estimate, Tensor]
StepNoise = Callable[[int], Tensor]
"""The fresh noise of step i, of the shape of x."""


class Sampler(Protocol):
    """The signature of every sampler's `sample`."""

    def __call__(self, x: Tensor, *, levels: Sequence[Level], noise: StepNoise) -> Sampling:
        """Draw from `x` at levels[0] down to levels[-1]."""


def names() -> tuple[str, ...]:
    """Every sampler there is, by its file."""
    return tuple(sorted(f.stem for f in Path(__file__).parent.glob("*.py") if not f.stem.startswith("_")))


def load(name: str) -> Sampler:
    """The sampler of that name; ValueError names those there are."""
    if name not in names():
        raise ValueError(f"sampler {name!r} is unknown; there are: {', '.join(names())}")
    sampler: Sampler = import_module(f"models.samplers.{name}").sample
    return sampler


def is_stochastic(name: str) -> bool:
    """Whether the sampler draws fresh noise on the way: its file says `STOCHASTIC = True`."""
    return bool(getattr(import_module(f"models.samplers.{name}"), "STOCHASTIC", False))
