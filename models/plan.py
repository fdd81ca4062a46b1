"""A job as a pure plan: units of work, what each needs, and which frames it makes.

The plan follows from the request and the bundle's spec alone, so a job that is resumed has the plan it had before and
does only the units whose results are not kept. `models.units` turns a unit into a generator.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

from models import grid
from models.spec import BundleSpec, Mode, Spacing, Stage

REFINE_ROWS = 16
"""Most frames that are refined in lockstep by one unit."""
REFERENCE = "reference"
"""Key under which the user's own first frames are given, as if a unit had made them: (n, C, h, w) in [-1, 1]."""


class UnitKind(StrEnum):
    """What a unit does."""

    COARSE = "coarse"
    """Draw one grid, from nothing or on from the one before."""
    INTERPOLATE = "interpolate"
    """Draw the frames of one grid that lie between known ones."""
    DECODE = "decode"
    """Turn the latents of one grid into pixels."""
    REFINE = "refine"
    """Super-resolve a range of frames."""


@dataclass(frozen=True, slots=True)
class Request:
    """What is to be drawn, with every default filled in."""

    num_frames: int
    seed: int
    label: int | None
    """Index of the class; None: the null label."""
    coarse_steps: int
    refine_steps: int
    sampler: str
    guidance_scale: float
    last: Stage = Stage.REFINE
    """The last stage to run."""
    mode: Mode = Mode.SOUND
    spacing: Spacing = Spacing.LINEAR
    slow_motion: int = 1
    """m: the motion is drawn at full speed, then m - 1 frames between each two of its frames."""
    cache: int = 1
    """n: deep features of the nets are computed at every n-th step and reused in between."""
    reference_frames: int = 0
    """How many of the first frames are the user's own; they come as the result `REFERENCE`."""


@dataclass(frozen=True, slots=True)
class Unit:
    """One resumable piece of work; its result is the only checkpoint."""

    key: str
    """"coarse/3" (grid 3), "decode/coarse-3" (its pixels), "refine/16-32" (frames 16..31)."""
    kind: UnitKind
    index: int
    """The grid it draws or reads."""
    frames: range
    """Frames of the sequence whose pictures this unit is the first to make at its stage; empty where it makes none."""
    cells: range
    """Where these frames lie in the grid that it draws or reads."""
    requires: tuple[str, ...]
    """Keys of the results it reads."""

    @property
    def stage(self) -> Stage:
        """The stage its pictures are of."""
        return Stage.REFINE if self.kind is UnitKind.REFINE else Stage.COARSE


@dataclass(frozen=True, slots=True)
class _Grid:
    """One grid of a layout, whatever it takes to get its pixels."""

    kind: UnitKind
    index: int
    frames: range
    cells: range
    requires: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        return f"{self.kind}/{self.index}"


def plan(spec: BundleSpec, request: Request) -> tuple[Unit, ...]:
    """Every unit, in an order that one worker alone can follow: each grid, then its frames."""
    return tuple(unit for drawn in _layout(spec, request) for unit in _units(spec, request, drawn))


def frames_made(request: Request) -> int:
    """Length of the sequence: what is asked, but for the official mode, whose rounds are of eight frames."""
    if request.mode is Mode.SOUND:
        return request.num_frames
    return 16 + 8 * _rounds(request.num_frames)


def first_needed(every: Sequence[Unit]) -> dict[str, int]:
    """By unit: the first frame whose picture it makes or is read for; `every` is a plan, in its order."""
    first: dict[str, int] = {}
    for unit in reversed(every):
        starts = [*unit.frames[:1], *([first[unit.key]] if unit.key in first else [])]
        first[unit.key] = min(starts, default=0)
        for key in unit.requires:
            first[key] = min(first[unit.key], first.get(key, first[unit.key]))
    return first


def _layout(spec: BundleSpec, request: Request) -> Iterator[_Grid]:
    if request.mode is Mode.OFFICIAL:
        return _official(spec, request.num_frames)
    if request.slow_motion > 1:
        return _slow(spec, request)
    return _outpainted(spec, request)


def _outpainted(spec: BundleSpec, request: Request) -> Iterator[_Grid]:
    """Each grid goes on from the last rows of the one before."""
    k, overlap = spec.grid, spec.overlap_rows
    for index in range(grid.count(request.num_frames, k=k, overlap=overlap)):
        frames = grid.new_frames(index, request.num_frames, k=k, overlap=overlap)
        first = frames.start - grid.first_frame(index, k=k, overlap=overlap)
        given = (REFERENCE,) if request.reference_frames else ()
        requires = (f"{UnitKind.COARSE}/{index - 1}",) if index else given
        yield _Grid(UnitKind.COARSE, index, frames, range(first, first + len(frames)), requires)


def _slow(spec: BundleSpec, request: Request) -> Iterator[_Grid]:
    """The motion at full speed, none of it shown; then grids that hold every m-th cell of it, each by itself."""
    k, factor = spec.grid, request.slow_motion
    full_speed = replace(request, num_frames=-(-(request.num_frames - 1) // factor) + 1, slow_motion=1)
    base = [_Grid(one.kind, one.index, range(0), range(0), one.requires) for one in _outpainted(spec, full_speed)]
    yield from base
    known = (k * k - 1) // factor  # steps of the motion from the first known cell to the last
    for index, start in enumerate(range(0, full_speed.num_frames, known)):
        if index and start == full_speed.num_frames - 1:
            return  # its only frame is the last of the grid before
        last = min(start + known, full_speed.num_frames - 1)
        shown = range(start * factor + (1 if index else 0), min(last * factor + 1, request.num_frames))
        cells = range(shown.start - start * factor, shown.stop - start * factor)
        sources = _grids_of(range(start, last + 1), spec=spec)
        yield _Grid(UnitKind.INTERPOLATE, index, shown, cells, tuple(base[source].name for source in sources))


def _grids_of(frames: range, *, spec: BundleSpec) -> range:
    """The grids of an out-painted sequence that first hold these frames."""
    first, last = (grid.holder(frame, k=spec.grid, overlap=spec.overlap_rows) for frame in (frames[0], frames[-1]))
    return range(first, last + 1)


def _official(spec: BundleSpec, num_frames: int) -> Iterator[_Grid]:
    """As released: grids that each add a row, and between the last rows of neighbours one row drawn in between."""
    k = spec.grid
    shown = "decode/coarse-{}" if spec.autoencoder else "coarse/{}"  # what a grid is conditioned on are pictures
    yield _Grid(UnitKind.COARSE, 0, range(k * k), range(k * k))
    for index in range(1, _rounds(num_frames) + 1):
        start, before, here = k * k + 2 * k * (index - 1), shown.format(index - 1), shown.format(index)
        new = range(start + k, start + 2 * k)
        yield _Grid(UnitKind.COARSE, index, new, range(k * (k - 1), k * k), (before,))
        between = range(start, start + k)
        yield _Grid(UnitKind.INTERPOLATE, index, between, range(k * (k - 2), k * (k - 1)), (before, here))


def _rounds(num_frames: int) -> int:
    return max(0, (num_frames - 8) // 12 + 1)


def _units(spec: BundleSpec, request: Request, drawn: _Grid) -> Iterator[Unit]:
    """The grid, its pixels where it is drawn in latents, its refined frames."""
    shown = drawn.name
    if spec.autoencoder:
        yield Unit(drawn.name, drawn.kind, drawn.index, range(0), range(0), drawn.requires)
        if not drawn.frames:
            return
        shown = f"{UnitKind.DECODE}/{drawn.kind}-{drawn.index}"
        yield Unit(shown, UnitKind.DECODE, drawn.index, drawn.frames, drawn.cells, (drawn.name,))
    else:
        yield Unit(drawn.name, drawn.kind, drawn.index, drawn.frames, drawn.cells, drawn.requires)
    if request.last is Stage.REFINE:
        yield from _refinements(drawn, shown)


def _refinements(drawn: _Grid, source: str) -> Iterator[Unit]:
    for start in range(0, len(drawn.frames), REFINE_ROWS):
        part, cells = drawn.frames[start : start + REFINE_ROWS], drawn.cells[start : start + REFINE_ROWS]
        yield Unit(f"refine/{part.start}-{part.stop}", UnitKind.REFINE, drawn.index, part, cells, (source,))
