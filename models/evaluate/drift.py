"""Does a long sequence stay what it was? Its look over the frames, beside that of real sequences.

Real sequences change too: a day ends, a lamp cools. So every course is drawn beside the real one, and the change from
the first quarter of the frames to the last is given in spreads of real frames.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.evaluate.features import FEATURES
from models.evaluate.seams import Interval, mean
from models.evaluate.traces import LEVELS, WINDOW, Traces

Doubles = NDArray[np.float64]

_FLOORS = np.array(list(FEATURES.values()))
_TINY = 1e-6


@dataclass(frozen=True)
class Course:
    """A mean over sequences at some frames, with its 95 % confidence interval."""

    frames: list[float]
    mean: list[float]
    low: list[float]
    high: list[float]


@dataclass(frozen=True)
class Drift:
    """One level over the frames."""

    name: str
    unit: str
    generated: Course
    real: Course
    change: Interval
    """From the first quarter of the frames to the last, in spreads of the frames of real sequences."""
    real_change: Interval

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class FeatureShift:
    """How far the windows' mean features lie from those of real ones: RMS over the features, in real spreads.

    As many real sequences as generated ones, held out, have a shift too, by chance: it is what 0 looks like.
    """

    frames: list[float]
    """The middle of each window."""
    generated: list[float]
    real: list[float]

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def drifts(generated: Traces, held_out: Traces, *, reference: Traces) -> tuple[Drift, ...]:
    """Every level of generated and of real sequences, which may be shorter; the spread is that of the reference."""
    return tuple(
        _drift(name, *(traces.levels[..., index] for traces in (generated, held_out, reference)))
        for index, name in enumerate(LEVELS)
    )


def feature_shift(generated: Traces, held_out: Traces, *, reference: Traces) -> FeatureShift:
    """Against the windows of all of `reference`, wherever they lie."""
    windows = reference.windows.reshape(-1, reference.windows.shape[-1])
    scale = np.maximum(windows.std(axis=0), _FLOORS)
    count = len(generated.windows)
    far, chance = (
        np.sqrt((((traces.windows[:count].mean(axis=0) - windows.mean(axis=0)) / scale) ** 2).mean(axis=-1))
        for traces in (generated, held_out)
    )
    middles = (np.arange(len(far)) + 0.5) * WINDOW
    return FeatureShift(middles.tolist(), far.tolist(), chance.tolist())


def course(values: Doubles) -> Course:
    """Of values (S, F)."""
    middle = values.mean(axis=0)
    margin = 1.96 * values.std(axis=0, ddof=1) / np.sqrt(len(values)) if len(values) > 1 else np.zeros_like(middle)
    frames = [float(frame) for frame in range(len(middle))]
    return Course(frames, middle.tolist(), (middle - margin).tolist(), (middle + margin).tolist())


def _drift(name: str, found: Doubles, expected: Doubles, reference: Doubles) -> Drift:
    spread = max(float(reference.std()), _TINY)
    return Drift(
        name=name,
        unit=LEVELS[name],
        generated=course(found),
        real=course(expected),
        change=mean(_change(found) / spread),
        real_change=mean(_change(expected) / spread),
    )


def _change(values: Doubles) -> Doubles:
    """(S, F) -> (S,): mean of the last quarter less that of the first."""
    quarter = max(1, values.shape[1] // 4)
    return np.asarray(values[:, -quarter:].mean(axis=1) - values[:, :quarter].mean(axis=1))
