"""FID and FVD of a class by feature nets that the user named, and what chance makes of them.

Held-out real sequences are put in the place of generated ones, as `real`: what they score is what a perfect model
could. A covariance of D features takes more than D samples; with fewer the distance comes out too large, and says so.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.table import Table
from rich.text import Text

from models.evaluate.distances import gaussian_frechet

Doubles = NDArray[np.float64]

LEAST = 2
"""Samples that a covariance takes."""


class TooFewSamples(ValueError):
    """There is nothing to fit a Gaussian to."""

    def __init__(self, name: str, found: int) -> None:
        super().__init__(
            f"{name}: {found} sample of features, at least {LEAST} are needed; measure more or longer sequences"
        )


@dataclass(frozen=True)
class FrechetFigure:
    """One distance of one class."""

    name: str
    value: float
    real: float
    dimension: int
    samples: dict[str, int]
    """Generated, reference, held out."""

    @property
    def caution(self) -> str:
        """What is wrong with it; empty where nothing is."""
        least = min(self.samples.values())
        if least > self.dimension:
            return ""
        return f"too few samples: {least} for {self.dimension} features; only good beside figures of equally many"

    def to_json(self) -> dict[str, Any]:
        return asdict(self) | {"caution": self.caution}


def compare(
    generated: Mapping[str, Doubles], reference: Mapping[str, Doubles], held_out: Mapping[str, Doubles]
) -> tuple[FrechetFigure, ...]:
    """Distances of features (n, D) by the name of their net."""
    return tuple(_figure(name, generated[name], reference[name], held_out[name]) for name in generated)


def frechet_table(figures: Mapping[str, tuple[FrechetFigure, ...]]) -> Table:
    """Of every class, one row each."""
    table = Table("class", "distance", "generated", "real", "samples", "features", "", title="Frechet distances")
    for name, each in figures.items():
        for one in each:
            samples = " / ".join(str(count) for count in one.samples.values())
            caution = Text(one.caution, style="yellow")
            table.add_row(name, one.name, f"{one.value:.2f}", f"{one.real:.2f}", samples, str(one.dimension), caution)
    return table


def _figure(name: str, generated: Doubles, reference: Doubles, held_out: Doubles) -> FrechetFigure:
    samples = {"generated": len(generated), "reference": len(reference), "held out": len(held_out)}
    if min(samples.values()) < LEAST:
        raise TooFewSamples(name, min(samples.values()))
    value, real = (gaussian_frechet(reference, one) for one in (generated, held_out))
    return FrechetFigure(name, value, real, reference.shape[1], samples)
