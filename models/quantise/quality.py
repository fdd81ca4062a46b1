"""May quantised nets serve? The bundle's quality gate, run on the nets as they are and on the quantised ones.

Both draw with the same seeds and are held against the same real sequences, so a difference between their figures is
the quantisation's. What fails already unquantised is not held against it. Nets are judged together, as they serve.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

from models.compiling.engine_cache import Quality
from models.data.decoding import Reading
from models.data.listing import Classes
from models.engine import EngineUnavailable, Precision
from models.evaluate import run
from models.evaluate.folder import open_folder
from models.evaluate.reference import BadReference, Part, Procedural, Reference, class_names
from models.evaluate.report import ClassReport, Figure
from models.evaluator import Nets
from models.spec import BundleSpec

_Result = TypeVar("_Result")

SEQUENCES = 32
"""Drawn of each class, by either nets."""
FRAMES = 64


class QualityRefused(EngineUnavailable):
    """Quantised nets fail a limit of the gate that they keep unquantised."""

    def __init__(self, precision: Precision, verdict: Verdict) -> None:
        worse = "; ".join(
            f"{name} {verdict.quantised[name].value:.3g} (unquantised {verdict.plain[name].value:.3g}, "
            f"{verdict.quantised[name].bound.value.replace('_', ' ')} {verdict.quantised[name].threshold:.3g})"
            for name in verdict.lost
        )
        super().__init__(f"{precision} fails the bundle's quality gate: {worse}; serve it in another precision")
        self.quality = verdict.quality


class NoReference(EngineUnavailable):
    """There is nothing to hold a bundle's pictures against."""


@dataclass(frozen=True)
class Verdict:
    """The gate's figures, by "class/view/figure", of the nets as they are and quantised."""

    plain: Mapping[str, Figure]
    quantised: Mapping[str, Figure]

    @property
    def lost(self) -> tuple[str, ...]:
        """Figures that keep their limit unquantised and fail it quantised."""
        return tuple(name for name, one in self.quantised.items() if self.plain[name].passed and not one.passed)

    @property
    def quality(self) -> Quality:
        """As a record keeps it."""
        return Quality(
            accepted=not self.lost,
            unquantised={name: round(one.value, 5) for name, one in self.plain.items()},
            quantised={name: round(one.value, 5) for name, one in self.quantised.items()},
        )


@dataclass(frozen=True)
class Standard:
    """What quantised nets of a bundle are held against."""

    subject: run.Subject
    """With the nets as they are."""
    real: Mapping[str, run.Real]
    """By class."""
    plain: Mapping[str, Figure]


def standard(
    spec: BundleSpec,
    plain: Nets,
    *,
    work: Path,
    data: Path | None = None,
    sequences: int = SEQUENCES,
    frames: int = FRAMES,
    real: Mapping[Part, int] = run.REAL,
) -> Generator[str, None, Standard]:
    """Look at real sequences, draw with the nets as they are. Yield how far it is.

    `data`: a folder of real sequences, as `gridit evaluate --reference` takes it; without one the classes must be
    procedural domains. `NoReference` if there is neither. `work`: an empty folder to be kept as long as the result.
    """
    reference = yield from _reference(spec, data, cache=work)
    sample = run.Sample(sequences, min(frames, spec.limits.num_frames))
    subject = run.Subject(spec, plain, reference, sample)
    subject.check(class_names(spec))
    seen: dict[str, run.Real] = {}
    for name in class_names(spec):
        seen[name] = yield from _told(run.gather_real(subject, name, real=real), f"look at real sequences of {name}")
    figures = yield from _figures(subject, seen, "unquantised")
    return Standard(subject, seen, figures)


def judge(standard: Standard, nets: Nets) -> Generator[str, None, Verdict]:
    """Draw with quantised nets. Yield how far it is, return the figures."""
    figures = yield from _figures(replace(standard.subject, nets=nets), standard.real, "quantised")
    return Verdict(standard.plain, figures)


def _figures(subject: run.Subject, real: Mapping[str, run.Real], which: str) -> Generator[str, None, dict[str, Figure]]:
    found: dict[str, Figure] = {}
    for name, looked_at in real.items():
        outcome = yield from _told(run.hold_against(looked_at, subject, name), f"judge {name} {which}")
        found.update(_named(outcome.report))
    return found


def refused_without_reference(spec: BundleSpec, data: Path | None) -> None:
    """`NoReference` where `standard` would raise it: before minutes are spent on what cannot be judged."""
    if data is None:
        try:
            Procedural.of(spec, class_names(spec), mapping={})
        except BadReference as error:
            remedy = "name a folder of real sequences with --data, in subfolders by class"
            raise NoReference(
                f"bundle {spec.name} cannot be judged, so it is not quantised: {error}; {remedy}"
            ) from error


def _reference(spec: BundleSpec, data: Path | None, *, cache: Path) -> Generator[str, None, Reference]:
    refused_without_reference(spec, data)
    names = class_names(spec)
    if data is None:
        return Procedural.of(spec, names, mapping={})
    reading = Reading(Classes.FOLDERS if spec.classes else Classes.NONE, channels=spec.channels)
    work = open_folder(spec, data, names=names, mapping={}, reading=reading, cache=cache)
    return (yield from _told(work, "read real sequences"))


def _told(work: Generator[object, None, _Result], what: str) -> Generator[str, None, _Result]:
    """The same work, which says what it is and how far, each time it yields."""
    done = 0
    while True:
        try:
            next(work)
        except StopIteration as end:
            result: _Result = end.value
            return result
        done += 1
        yield f"{what}, {done}"


def _named(report: ClassReport) -> dict[str, Figure]:
    return {f"{report.name}/{figure.view}/{figure.name}": figure for figure in report.figures}
