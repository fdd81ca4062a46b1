"""The ways to draw one sequence that are compared: requests, and how often each of them runs which net.

released    the loop as published: doubled batches, one frame at a time, everything computed anew.
exact       the same grids, frames and steps by our driver: nothing twice, independent rows together; torch, float32.
engine      the same on the engine that `auto` takes.
fewer steps what the bundle draws when it is told nothing, and other samplers whose errors are known.
factorized  ours at the released number of steps and direct, the same grids at full size by one net: to be compared.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, replace
from enum import StrEnum

from models import drawing
from models.bench import counting, known
from models.bench.counting import Tally
from models.plan import Request, frames_made
from models.spec import OFFICIAL_SAMPLER, OFFICIAL_STEPS, BundleSpec, KnownRows, Mode, NetSpec, Spacing, Stage

RELEASED, EXACT, ENGINE, FEWER = "released", "exact savings and batching", "engine", "fewer steps"
CHAIN = (RELEASED, EXACT, ENGINE, FEWER)
DIRECT = "direct"
"""Also stands for the net of the direct way among the nets."""


class Kind(StrEnum):
    """Whose steps a way is made of."""

    RELEASED = "released"
    TORCH = "torch"
    DEFAULT = "auto"
    DIRECT = "direct"


@dataclass(frozen=True, slots=True)
class Way:
    """One of them, counted."""

    name: str
    kind: Kind
    request: Request
    frames: int
    """That were asked for."""
    grids: int
    tally: Tally


def ways(spec: BundleSpec, *, frames: int, steps: int, buckets: tuple[int, ...]) -> Iterator[Way]:
    """All of them for one length; `steps` are those of the released loop."""
    yield from chain(spec, frames=frames, steps=steps, buckets=buckets)
    for name, request in other_samplers(spec, frames=frames):
        yield _packed(name, Kind.DEFAULT, spec, request, frames, buckets)
    sound = released_steps(spec, frames=frames, steps=steps)
    whole = _packed("factorized", Kind.TORCH, spec, sound, frames, buckets)
    factorized = replace(whole, tally=_stages_alone(whole.tally))
    yield factorized
    if Stage.REFINE in spec.nets:
        yield replace(factorized, name=DIRECT, kind=Kind.DIRECT, tally=_direct_tally(spec, sound))


def chain(
    spec: BundleSpec, *, frames: int, steps: int, buckets: tuple[int, ...], most: int | None = None
) -> Iterator[Way]:
    """From the released way to ours, each different from the one before in one thing; `most` bounds all steps."""
    few = replace(_default(spec), num_frames=frames)
    if most is not None:
        steps, coarse, refine = (min(most, each) for each in (steps, few.coarse_steps, few.refine_steps))
        few = replace(few, coarse_steps=coarse, refine_steps=refine)
    equal = at_equal_steps(spec, frames=frames, steps=steps)
    exact = _packed(EXACT, Kind.TORCH, spec, equal, frames, buckets)
    yield replace(exact, name=RELEASED, kind=Kind.RELEASED, tally=counting.as_released(spec, equal))
    yield exact
    yield replace(exact, name=ENGINE, kind=Kind.DEFAULT)
    yield _packed(FEWER, Kind.DEFAULT, spec, few, frames, buckets)


def _packed(name: str, kind: Kind, spec: BundleSpec, request: Request, frames: int, buckets: tuple[int, ...]) -> Way:
    tally = counting.packed(spec, request, buckets=buckets)
    return Way(name, kind, request, frames, counting.grids(spec, request), tally)


def at_equal_steps(spec: BundleSpec, *, frames: int, steps: int = OFFICIAL_STEPS) -> Request:
    """What the released loop draws, the shortest of at least `frames`.

    Of nets of another kind: our own sequence by its sampler.
    """
    if Mode.OFFICIAL not in spec.modes:
        return released_steps(spec, frames=frames, steps=steps)
    official = drawing.default_request(spec, seed=0, label=None, mode=Mode.OFFICIAL)
    wishes = (
        replace(official, coarse_steps=steps, refine_steps=steps, num_frames=number) for number in itertools.count(1)
    )
    return next(wish for wish in wishes if frames_made(wish) >= frames)


def released_steps(spec: BundleSpec, *, frames: int, steps: int) -> Request:
    """Our own sequence by the released loop's sampler."""
    own = replace(_default(spec), num_frames=frames, coarse_steps=steps, refine_steps=steps)
    return replace(own, sampler=OFFICIAL_SAMPLER, spacing=Spacing.LINEAR)


def other_samplers(spec: BundleSpec, *, frames: int) -> Iterator[tuple[str, Request]]:
    """Each whose error is known on nets of this kind, but for the bundle's own."""
    default = replace(_default(spec), num_frames=frames)
    mode = "sound, clean prefix" if spec.known_rows is KnownRows.CLEAN_PREFIX else "sound"
    for one in known.QUALITIES:
        spacing = Spacing(one.spacing)
        own = (default.sampler, default.spacing, default.coarse_steps) == (one.sampler, spacing, one.steps)
        if one.mode == mode and one.steps < OFFICIAL_STEPS and not own and one.sampler in spec.samplers:
            steps = (one.steps + 1) // 2 if one.sampler == "heun" else one.steps  # two calls a step, but for the last
            request = replace(default, sampler=one.sampler, spacing=spacing, coarse_steps=steps, refine_steps=steps)
            yield f"{one.sampler}, {steps} steps", request


def direct_net(spec: BundleSpec) -> NetSpec:
    """The coarse net's architecture over grids of full-size frames."""
    coarse = spec.nets[Stage.COARSE]
    side = coarse.input_size * spec.refined_size // spec.coarse_size
    return coarse.model_copy(update={"input_size": side})


def _default(spec: BundleSpec) -> Request:
    label = 0 if spec.nets[Stage.COARSE].classes else None
    return drawing.default_request(spec, seed=0, label=label)


def _stages_alone(tally: Tally) -> Tally:
    """Without an autoencoder, of which the direct way needs more."""
    stages = [stage.value for stage in Stage]
    found = Tally(moments={net: moments for net, moments in tally.moments.items() if net in stages})
    found.runs.update({run: count for run, count in tally.runs.items() if run[0] in stages})
    found.rows.update({net: count for net, count in tally.rows.items() if net in stages})
    return found


def _direct_tally(spec: BundleSpec, request: Request) -> Tally:
    """As many runs as the coarse net has, each over a whole grid at full size."""
    coarse = counting.packed(spec, replace(request, last=Stage.COARSE), buckets=(1, 2))
    tally = Tally()
    for (net, bucket), count in coarse.runs.items():
        if net == Stage.COARSE:
            tally.runs[DIRECT, bucket] += count
    tally.rows[DIRECT] = coarse.rows[Stage.COARSE.value]
    tally.moments[DIRECT] = coarse.moments[Stage.COARSE.value]
    return tally
