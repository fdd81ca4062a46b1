"""What a benchmark found, as frozen values that go to JSON and come back: figures, and what they are figures of.

Seconds are medians over interleaved rounds, FLOPs are exact (`models.bench.flops`), rates are per second. Whatever
could not be run is listed with its reason.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from models.engine import Precision

FORMAT: Literal[1] = 1

Positive = Annotated[float, Field(gt=0)]


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Machine(_Frozen):
    """Where it was run."""

    system: str
    cpu: str
    capability: str
    """The widest vectors that torch uses."""
    cores: int
    threads: int
    memory_gb: float
    device: str
    """What the nets ran on: the CPU, or a GPU by name."""


class Origin(_Frozen):
    """What it takes to have the figures again."""

    command: str
    began: str
    """UTC."""
    machine: Machine
    versions: dict[str, str]


class Peak(_Frozen):
    """The best matrix product of a precision."""

    precision: Precision
    side: int
    tries: int
    flops: Positive
    """Per second."""


class NotRun(_Frozen):
    """What has no figures, and why."""

    what: str
    why: str


class Net(_Frozen):
    """What was run."""

    name: str
    """Bundle and net."""
    weights: str
    """Whose they are: random ones say nothing about quality."""
    width: int | None = None
    depth: int | None = None
    tokens: int | None = None
    """None of half an autoencoder."""
    flops: Positive
    """One row, without what makes modulation rows."""


class Figure(_Frozen):
    """One contender on one net in one bucket."""

    net: str
    contender: str
    precision: Precision
    bucket: int
    """Rows of a run that are of use."""
    seconds: Positive
    rounds: tuple[float, ...]
    rows_per_second: Positive
    of_peak: float | None
    """Share of the measured peak of its precision; None where that has none."""
    error: float | None
    """|difference| / |torch in float32|, the widest over the buckets tried; None: not comparable."""
    over_torch: float | None
    """Rows a second, of torch's in float32 at this bucket."""
    over_diffusers: float | None
    """Rows a second, of diffusers' in float32 at this bucket."""

    @property
    def title(self) -> str:
        """Contender and precision."""
        return f"{self.contender} {self.precision}"


class Default(_Frozen):
    """What `auto` takes for a net here."""

    net: str
    contender: str
    precision: Precision
    reason: str


class EnginesReport(_Frozen):
    """Of `gridit bench engines`."""

    format: Literal[1] = FORMAT
    kind: Literal["engines"] = "engines"
    origin: Origin
    peaks: tuple[Peak, ...]
    nets: tuple[Net, ...]
    figures: tuple[Figure, ...]
    defaults: tuple[Default, ...]
    not_run: tuple[NotRun, ...]

    def peak(self, precision: Precision) -> float | None:
        """Of one precision, per second."""
        return next((peak.flops for peak in self.peaks if peak.precision is precision), None)


class Component(_Frozen):
    """One kind of step of the pipeline: a run of a net in a bucket, in one of the ways compared."""

    way: str
    """"released", "torch", "default" or "direct"."""
    net: str
    engine: str
    """Name and precision."""
    bucket: int
    seconds: Positive
    rounds: tuple[float, ...]
    flops: Positive
    """Of the whole run, with everything that way computes."""
    note: str = ""


class Way(_Frozen):
    """A whole job done in one way."""

    frames: int
    """Asked for."""
    made: int
    name: str
    mode: str
    sampler: str
    spacing: str
    coarse_steps: int
    refine_steps: int
    grids: int
    rows: dict[str, int]
    """Rows of each net that are of use."""
    runs: dict[str, int]
    """Runs of each net."""
    flops: Positive
    seconds: Positive
    """Multiplied out: runs times the components' medians."""


class Check(_Frozen):
    """A whole job that was really run, everything included, beside the same multiplied out."""

    way: str
    frames: int
    coarse_steps: int
    refine_steps: int
    multiplied: Positive
    measured: Positive


class Factor(_Frozen):
    """How many times as fast one way is as another."""

    frames: int
    name: str
    ratio: Positive
    wanted: float | None = None
    before: str
    after: str
    flops: Positive
    """The same ratio, of FLOPs."""


class Quality(_Frozen):
    """What is known of a way of sampling: errors on a model with a known answer (docs/sampling.md)."""

    sampler: str
    spacing: str
    steps: int
    mode: str
    one_grid: float
    sequence: float
    """Of 56 frames."""


class PipelineReport(_Frozen):
    """Of `gridit bench pipeline`."""

    format: Literal[1] = FORMAT
    kind: Literal["pipeline"] = "pipeline"
    origin: Origin
    nets: tuple[Net, ...]
    components: tuple[Component, ...]
    ways: tuple[Way, ...]
    factors: tuple[Factor, ...]
    checks: tuple[Check, ...]
    qualities: tuple[Quality, ...]
    gate: dict[str, object]
    """The bundle's own figures; empty where its weights are random."""
    largest_difference: float | None
    """Between the frames of the released way and ours at equal steps, both really drawn; pixels in -1..1."""
    not_run: tuple[NotRun, ...]


Report = EnginesReport | PipelineReport


class NoReport(ValueError):
    """A file holds no report."""

    def __init__(self, path: Path, why: str) -> None:
        super().__init__(f"{path} is no report of a benchmark: {why}; write one with --json")


def write(report: Report, path: Path) -> None:
    """As JSON."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(report.model_dump_json(indent=2) + "\n", encoding="utf-8")


def read(path: Path) -> Report:
    """Of either kind. `NoReport` if it is none."""
    text = path.read_text(encoding="utf-8")
    kinds: tuple[type[EnginesReport], type[PipelineReport]] = (EnginesReport, PipelineReport)
    problems: list[str] = []
    for kind in kinds:
        try:
            return kind.model_validate_json(text)
        except ValidationError as error:
            problems.append(f"{kind.__name__}: {error.errors()[0]['msg']}")
    raise NoReport(path, "; ".join(problems))
