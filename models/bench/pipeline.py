"""`gridit bench pipeline`: whole jobs our way, the released way, and the direct way without factorization.

Steps are measured in interleaved rounds and multiplied by how often a job takes them; whole jobs, as long as they may
take, are run as well and set beside the sum. How much faster is told as three factors and their product.
"""

from __future__ import annotations

import time
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from models import alone
from models.bench import components, driving, known, opening, ways
from models.bench.components import Hall, Key
from models.bench.engines import Doing, described
from models.bench.opening import Place
from models.bench.released import ReleasedNet
from models.bench.report import Check, Component, Factor, NotRun, Origin, PipelineReport
from models.bench.report import Way as Reported
from models.bench.ways import Kind, Way
from models.bundle import Bundle
from models.engine import ALONE, BUCKETS, Precision
from models.evaluator import Nets
from models.noise import philox
from models.plan import frames_made
from models.spec import OFFICIAL_STEPS, BundleSpec, Stage

EXACT_WANTED, ENGINE_WANTED, DIRECT_WANTED = 3.0, 4.5, 2.0
CHECK_STEPS = (250, 100, 50, 20, 10, 5, 2)
"""Steps that whole jobs are tried with: the most that the time allows."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What is to be measured."""

    device: torch.device
    frames: tuple[int, ...] = (64, 256)
    steps: int = OFFICIAL_STEPS
    """Of the released loop."""
    engines: tuple[str, ...] = ()
    """Whose plans are made before, if they are missing."""
    precisions: tuple[Precision, ...] = ()
    buckets: tuple[int, ...] = BUCKETS
    rounds: int = 5
    budget: float = 60.0
    """Seconds that the whole jobs may take, all together."""


def run(plan: Plan, bundle: Bundle, *, weights: str, origin: Origin) -> Generator[Doing, None, PipelineReport]:
    """Count, measure, multiply out, check; `weights` says whose they are."""
    spec, missing = bundle.spec, list[NotRun]()
    yield from _plans(plan, bundle, missing)
    counted: list[Way] = []
    for frames in plan.frames:
        yield Doing(f"counting the steps of {frames} frames")
        counted.extend(ways.ways(spec, frames=frames, steps=plan.steps, buckets=plan.buckets))
    hall = Hall.of(bundle, device=plan.device, buckets=plan.buckets)
    keys = components.needed(counted)
    found = yield from components.measure(hall, keys, number=plan.rounds, missing=missing)
    told = [_told(way, found, hall) for way in counted]
    checks, difference = yield from _checks(plan, hall, found)
    hall.close()
    return PipelineReport(
        origin=origin,
        nets=tuple(described(bundle, graph, weights=weights) for graph in hall.graphs.values()),
        components=tuple(found.values()),
        ways=tuple(told),
        factors=tuple(factor for frames in plan.frames for factor in factors(told, frames)),
        checks=tuple(checks),
        qualities=known.QUALITIES,
        gate=dict(spec.gate),
        largest_difference=difference,
        not_run=tuple(missing),
    )


def factors(told: Sequence[Reported], frames: int) -> list[Factor]:
    """The three of the released way and their product; those of other samplers; that of the direct way."""
    chain, named = ways.CHAIN, {way.name: way for way in told if way.frames == frames}
    goals = (EXACT_WANTED, ENGINE_WANTED, None)
    found = [
        _factor(after, named[before], named[after], wanted=wanted)
        for before, after, wanted in zip(chain, chain[1:], goals, strict=False)
    ]
    found.append(_factor("product of the three", named[chain[0]], named[chain[-1]]))
    others = [name for name in named if name.endswith(" steps") and name not in chain]
    found.extend(_factor(f"or {name}", named[ways.ENGINE], named[name]) for name in others)
    if ways.DIRECT in named:
        found.append(_factor("factorized", named[ways.DIRECT], named["factorized"], wanted=DIRECT_WANTED))
    return found


def _factor(name: str, before: Reported, after: Reported, *, wanted: float | None = None) -> Factor:
    return Factor(
        frames=after.frames,
        name=name,
        ratio=before.seconds / after.seconds,
        wanted=wanted,
        before=before.name,
        after=after.name,
        flops=before.flops / after.flops,
    )


def _plans(plan: Plan, bundle: Bundle, missing: list[NotRun]) -> Generator[Doing, None, None]:
    """Give engines that need plans theirs, so that `auto` has something to choose from."""
    for name in (name for name in plan.engines if name != opening.TORCH):
        for precision in plan.precisions:
            yield Doing(f"plans of {name} {precision}")
            try:
                for net in opening.nets_of(bundle.spec):
                    buckets = plan.buckets if isinstance(net, Stage) else ALONE
                    place = Place(bundle, net, buckets, plan.device)
                    opening.open_engine(name, place, precision).close()
            except opening.CANNOT as error:
                missing.append(NotRun(what=f"{name} {precision}", why=opening.first_line(error)))


def _told(way: Way, found: Mapping[Key, Component], hall: Hall) -> Reported:
    """Multiplied out."""
    steps = [(components.key_of(way, net, bucket), count) for (net, bucket), count in way.tally.runs.items()]
    return Reported(
        frames=way.frames,
        made=frames_made(way.request),
        name=way.name,
        mode=way.request.mode.value,
        sampler=way.request.sampler,
        spacing=way.request.spacing.value,
        coarse_steps=way.request.coarse_steps,
        refine_steps=way.request.refine_steps,
        grids=way.grids,
        rows=dict(way.tally.rows),
        runs=way.tally.of_net(),
        flops=sum(count * found[key].flops for key, count in steps),
        seconds=sum(count * found[key].seconds for key, count in steps),
    )


def _checks(
    plan: Plan, hall: Hall, found: Mapping[Key, Component]
) -> Generator[Doing, None, tuple[list[Check], float | None]]:
    """Whole jobs of the shortest length, and how far the released way's frames are from ours."""
    steps = _affordable(plan, hall.bundle.spec, found)
    if steps is None:
        return [], None
    frames, checks = min(plan.frames), list[Check]()
    drawn: dict[str, dict[str, Tensor]] = {}
    for way in _cut(plan, hall.bundle.spec, steps):
        name = way.name
        yield Doing(f"a whole job: {name}, {frames} frames, {way.request.coarse_steps} steps")
        nets = _nets(hall, way.kind)
        began = time.perf_counter()
        drawn[name] = _drawn(hall, way, nets)
        measured = time.perf_counter() - began
        told = _told(way, found, hall)
        checks.append(
            Check(
                way=name,
                frames=frames,
                coarse_steps=told.coarse_steps,
                refine_steps=told.refine_steps,
                multiplied=told.seconds,
                measured=measured,
            )
        )
    return checks, _difference(drawn[ways.RELEASED], drawn[ways.EXACT])


def _affordable(plan: Plan, spec: BundleSpec, found: Mapping[Key, Component]) -> int | None:
    """The most steps whose whole jobs stay within the budget by what was measured."""
    for steps in (count for count in CHECK_STEPS if count <= plan.steps):
        cut = _cut(plan, spec, steps)
        keys = [components.key_of(way, *run) for way in cut for run in way.tally.runs.elements()]
        if all(key in found for key in set(keys)) and sum(found[key].seconds for key in keys) <= plan.budget:
            return steps
    return None


def _cut(plan: Plan, spec: BundleSpec, steps: int) -> list[Way]:
    """The chain for the shortest length, with no more than so many steps."""
    frames = min(plan.frames)
    return list(ways.chain(spec, frames=frames, steps=plan.steps, buckets=plan.buckets, most=steps))


def _nets(hall: Hall, kind: Kind) -> Nets:
    if kind is not Kind.RELEASED:
        return hall.answering(kind)
    nets = hall.answering(Kind.TORCH)
    return nets | {stage: ReleasedNet(net, device=hall.device) for stage, net in hall.nets.items()}


def _drawn(hall: Hall, way: Way, nets: Nets) -> dict[str, Tensor]:
    """Every unit's result, by its key, on the CPU; the released way goes through its units one by one."""
    spec, noise = hall.bundle.spec, philox(way.request.seed, device=hall.device)
    drive = alone.run if way.kind is Kind.RELEASED else driving.job
    return {unit.key: result.cpu() for unit, result in drive(spec, way.request, nets=nets, noise=noise)}


def _difference(left: Mapping[str, Tensor], right: Mapping[str, Tensor]) -> float:
    """The largest between refined frames, or between grids where there are none."""
    keys = [key for key in left if key.startswith("refine")] or list(left)
    return max(float((left[key] - right[key]).abs().max()) for key in keys)
