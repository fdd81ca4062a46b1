"""The measurements on a bundle: draw with seeds that no net was trained on, look at what is real, and compare.

Each is a generator that yields once a sequence and returns what it found, so that whoever drives it can show how far it
is. The gate's figures are only comparable between runs of one size, which is why the sizes are constants here.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from models import drawing
from models.drawing import NotServed
from models.evaluate import seams
from models.evaluate.curves import ClassCurves, Measured, View, view_of
from models.evaluate.featurenet import FeatureNet
from models.evaluate.features import Doubles
from models.evaluate.frechet import FrechetFigure, compare
from models.evaluate.gate import Geometry, Rules, judge
from models.evaluate.limits import read_limits
from models.evaluate.material import Clips, Drawn, Material, Refinement, Tally
from models.evaluate.reference import UNCONDITIONAL, Part, Reference
from models.evaluate.report import ClassReport, GateReport
from models.evaluate.sheet import Sheets
from models.evaluate.traces import TraceTally
from models.evaluator import Nets
from models.media import to_uint8, to_unit
from models.plan import Request
from models.spec import BundleSpec, Mode, Stage
from models.units.refining import enlarge

REAL = {Part.REFERENCE: 200, Part.HELD_OUT: 32}
"""Real sequences of a class that the gate looks at, at most."""
CURVE_REFERENCE = 3
"""Real sequences that curves are held against, for each one that is drawn."""
_SMALLEST = 4
"""Side in pixels of the smallest frames that can be measured."""


@dataclass(frozen=True)
class Sample:
    """What is drawn of each class; whatever is not wished for is the bundle's default."""

    sequences: int = 32
    frames: int = 64
    mode: Mode = Mode.SOUND
    wishes: Mapping[str, int | float | str | None] = field(default_factory=dict)

    def request(self, spec: BundleSpec, name: str, *, seed: int) -> Request:
        """One sequence of a class; `NotServed` names what the bundle does not do."""
        label = None if name == UNCONDITIONAL and not spec.classes else name
        wishes = {"num_frames": self.frames, **self.wishes}
        return drawing.request(spec, seed=seed, class_name=label, wishes=wishes, mode=self.mode)


@dataclass(frozen=True)
class Subject:
    """A bundle that is measured, and by what."""

    spec: BundleSpec
    nets: Nets
    reference: Reference
    sample: Sample
    feature_nets: Mapping[str, FeatureNet] = field(default_factory=dict)

    def check(self, names: Sequence[str]) -> None:
        """Refuse what cannot be drawn or measured, before anything is."""
        for name in names:
            self.sample.request(self.spec, name, seed=0)
        if self.spec.coarse_size < _SMALLEST:
            raise NotServed("coarse_size", self.spec.coarse_size, f"a bundle with frames of {_SMALLEST} pixels or more")
        if self.spec.channels not in (1, 3):
            raise NotServed("channels", self.spec.channels, "a bundle with 1 or 3")


@dataclass(frozen=True)
class Outcome:
    """What the gate found of one class."""

    report: ClassReport
    sheets: Sheets
    frechet: tuple[FrechetFigure, ...]


def sequences(subject: Subject, name: str) -> Iterator[Drawn]:
    """The sample of one class, one sequence at a time."""
    for seed in range(subject.sample.sequences):
        request = subject.sample.request(subject.spec, name, seed=seed)
        yield drawing.sequence(subject.spec, request, nets=subject.nets)


@dataclass(frozen=True)
class Real:
    """Real sequences of one class: what the gate looks at, and the features that the feature nets make of them."""

    clips: Mapping[Part, Clips]
    features: Mapping[Part, dict[str, Doubles]]


def gate(
    subject: Subject, name: str, *, real: Mapping[Part, int] = REAL, rules: Rules | None = None
) -> Generator[None, None, Outcome]:
    """Hold what is drawn of a class against up to `real` sequences of each part."""
    looked_at = yield from gather_real(subject, name, real=real)
    return (yield from hold_against(looked_at, subject, name, rules=rules))


def gather_real(subject: Subject, name: str, *, real: Mapping[Part, int] = REAL) -> Generator[None, None, Real]:
    """The first half of `gate`: the same for all nets of a bundle."""
    frames = _frames_drawn(subject, name)
    clips: dict[Part, Clips] = {}
    features: dict[Part, dict[str, Doubles]] = {}
    for part in Part:
        looked_at = subject.reference.sequences(name, part, frames=frames, most=real[part])
        clips[part], features[part] = yield from _gather(subject, looked_at)
    return Real(clips, features)


def hold_against(
    real: Real, subject: Subject, name: str, *, rules: Rules | None = None
) -> Generator[None, None, Outcome]:
    """The second half: draw a class, and judge it."""
    sheets = Sheets()
    drawn, shown = yield from _gather(subject, sheets.watch(sequences(subject, name)))
    reference, held_out = real.clips[Part.REFERENCE], real.clips[Part.HELD_OUT]
    material = Material(reference, held_out, drawn, _refinement(subject, name))
    return Outcome(
        report=judge(name, material, rules=rules or _rules(subject)),
        sheets=sheets,
        frechet=compare(shown, real.features[Part.REFERENCE], real.features[Part.HELD_OUT]),
    )


def curves(subject: Subject, name: str) -> Generator[None, None, ClassCurves]:
    """Seam and drift curves of a class."""
    request = subject.sample.request(subject.spec, name, seed=0)
    steps = seams.steps_of(subject.spec, request)
    length = subject.reference.longest(name, len(steps) + 1)
    count = {Part.REFERENCE: CURVE_REFERENCE * subject.sample.sequences, Part.HELD_OUT: subject.sample.sequences}
    real = {}
    for part in Part:
        looked_at = subject.reference.sequences(name, part, frames=length, most=count[part])
        real[part] = yield from _trace(looked_at)
    drawn = yield from _trace(sequences(subject, name))
    views: list[View] = []
    for stage in subject.spec.stages:
        measured = Measured(
            drawn[stage].traces(), *(real[part][stage].traces() for part in (Part.HELD_OUT, Part.REFERENCE))
        )
        views.append(view_of(stage, measured, steps=steps))
    return ClassCurves(name, tuple(views))


def gate_length(subject: Subject) -> int:
    """How often `gate` yields, at most."""
    return sum(REAL.values()) + subject.sample.sequences


def curves_length(subject: Subject) -> int:
    """How often `curves` yields, at most."""
    return (CURVE_REFERENCE + 2) * subject.sample.sequences


def summary(report: GateReport, *, sequences: int, frames: int) -> dict[str, object]:
    """The figures as a bundle keeps them: by class and by "view/figure", beside their value on real sequences."""
    classes = {
        one.name: {
            f"{figure.view}/{figure.name}": [round(value, 4) for value in (figure.value, figure.real, figure.threshold)]
            for figure in one.figures
        }
        for one in report.classes
    }
    shape = {"sequences": sequences, "frames": frames, "figures": ["generated", "real", "limit"]}
    return {"passed": report.passed, **shape, "classes": classes}


def _frames_drawn(subject: Subject, name: str) -> int:
    """The official mode draws fewer than it is asked for."""
    return len(seams.steps_of(subject.spec, subject.sample.request(subject.spec, name, seed=0))) + 1


def _gather(subject: Subject, looked_at: Iterable[Drawn]) -> Generator[None, None, tuple[Clips, dict[str, Doubles]]]:
    """Clips of sequences, and what the feature nets make of the frames of their last stage."""
    tally = Tally()
    features: dict[str, list[Doubles]] = {key: [] for key in subject.feature_nets}
    for drawn in looked_at:
        tally.add(drawn)
        for key, net in subject.feature_nets.items():
            features[key].append(net.features(drawn[subject.spec.stages[-1]]))
        yield
    return tally.clips(), {key: np.concatenate(parts) for key, parts in features.items()}


def _trace(looked_at: Iterable[Drawn]) -> Generator[None, None, dict[Stage, TraceTally]]:
    tallies: dict[Stage, TraceTally] = {}
    for drawn in looked_at:
        for stage, frames in drawn.items():
            tallies.setdefault(stage, TraceTally()).add(frames)
        yield
    return tallies


def _rules(subject: Subject) -> Rules:
    spec = subject.spec
    patches = {stage: spec.nets[stage].patch * spec.downsample for stage in spec.stages}
    geometry = Geometry(spec.grid, patches[Stage.COARSE], patches.get(Stage.REFINE, 0))
    return Rules(read_limits(), policy=subject.reference.policy, geometry=geometry)


def _refinement(subject: Subject, name: str) -> Refinement | None:
    """Single real frames and their coarse versions, enlarged and refined; none where nothing is enlarged."""
    spec = subject.spec
    if Stage.REFINE not in spec.stages or spec.refined_size == spec.coarse_size:
        return None
    stills = subject.reference.stills(name)
    low = to_unit(stills[Stage.COARSE])[:, : spec.channels]
    request = subject.sample.request(spec, name, seed=0)
    return Refinement(
        real=stills[Stage.REFINE],
        bicubic=to_uint8(enlarge(low, size=spec.refined_size)),
        refined=drawing.refined(spec, low.to(subject.nets[Stage.REFINE].device), request=request, nets=subject.nets),
        coarse_size=spec.coarse_size,
    )
