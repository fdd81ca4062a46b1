"""`gridit bench engines`: every engine that can run here, in every precision, on every net, in every bucket.

One process, everything loaded at once, rounds interleaved; the peaks that shares refer to are measured in the same run.
Yields what it is doing, returns the report.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass

import torch

from models import engines, graph
from models.bench import contenders, flops, opening, peak, rounds
from models.bench.contenders import Contender, Wanted
from models.bench.opening import Place
from models.bench.peers import Peer
from models.bench.report import Default, EnginesReport, Figure, Net, NotRun, Origin, Peak
from models.bundle import Bundle
from models.engine import ALONE, EngineUnavailable, NetName, Precision
from models.graph import Graph
from models.spec import Codec, Stage


@dataclass(frozen=True, slots=True)
class Plan:
    """What is to be measured."""

    device: torch.device
    nets: tuple[NetName, ...] = tuple(Stage)
    engines: tuple[str, ...] = ()
    precisions: tuple[Precision, ...] = tuple(Precision)
    peers: tuple[Peer, ...] = tuple(Peer)
    buckets: tuple[int, ...] = (1, 4)
    rounds: int = 7
    peak_side: int = peak.SIDE
    peak_tries: int = peak.TRIES


@dataclass(frozen=True, slots=True)
class Doing:
    """What is being done now."""

    what: str

    def __str__(self) -> str:
        return self.what


def run(plan: Plan, bundles: Sequence[tuple[Bundle, str]], *, origin: Origin) -> Generator[Doing, None, EnginesReport]:
    """Measure everything, peaks first; each bundle comes with whose weights it has."""
    peaks = yield from measured_peaks(plan.device, side=plan.peak_side, tries=plan.peak_tries)
    nets: list[Net] = []
    figures: list[Figure] = []
    defaults: list[Default] = []
    missing: list[NotRun] = []
    for bundle, weights in bundles:
        for each in _graphs(bundle, plan.nets):
            net = described(bundle, each, weights=weights)
            found, lacking, chosen = yield from _one(plan, bundle, each, net, peaks)
            nets.append(net)
            figures.extend(found)
            missing.extend(lacking)
            defaults.extend([chosen] if chosen else [])
    return EnginesReport(
        origin=origin,
        peaks=tuple(peaks),
        nets=tuple(nets),
        figures=tuple(figures),
        defaults=tuple(defaults),
        not_run=tuple(missing),
    )


def measured_peaks(device: torch.device, *, side: int, tries: int) -> Generator[Doing, None, list[Peak]]:
    """All of this device's."""
    found: list[Peak] = []
    for precision in peak.precisions(device):
        yield Doing(f"peak of {precision}")
        found.append(peak.measure(device, precision, side=side, tries=tries))
    return found


def described(bundle: Bundle, each: Graph, *, weights: str) -> Net:
    """A graph's net in a report."""
    name = f"{bundle.spec.name} {each.net}" + ("" if isinstance(each.net, Stage) else f" {each.inputs[0].shape[-1]}")
    if isinstance(each.net, Codec):
        return Net(name=name, weights=weights, flops=flops.of(each))
    spec = bundle.spec.nets[each.net]
    return Net(
        name=name, weights=weights, width=spec.width, depth=spec.depth, tokens=spec.tokens, flops=flops.dit(spec)
    )


def default(bundle: Bundle, net: NetName, *, name: str, device: torch.device) -> Default:
    """What `auto` takes. `EngineUnavailable` where nothing can be had."""
    choice = engines.select(bundle, net, device=device)
    found = Default(net=name, contender=choice.engine.name, precision=choice.engine.precision, reason=choice.reason)
    choice.engine.close()
    return found


def _graphs(bundle: Bundle, nets: Sequence[NetName]) -> list[Graph]:
    """Those that run at every step; a net that the bundle does not have is left out."""
    found: list[Graph] = []
    for net in (net for net in nets if net in opening.nets_of(bundle.spec)):
        every = graph.graphs(bundle, net)
        found.extend(every[:1] if isinstance(net, Stage) else every)
    return found


def _one(
    plan: Plan, bundle: Bundle, each: Graph, net: Net, peaks: Sequence[Peak]
) -> Generator[Doing, None, tuple[list[Figure], list[NotRun], Default | None]]:
    buckets = plan.buckets if isinstance(each.net, Stage) else ALONE
    wanted = Wanted(
        place=Place(bundle, each.net, buckets, plan.device),
        graph=each,
        engines=plan.engines or engines.names(),
        precisions=plan.precisions,
        peers=plan.peers,
    )
    ready, missing = yield from _told(contenders.gather(wanted), net.name)
    errors = yield from _errors(ready, net.name, missing)
    figures: list[Figure] = []
    for bucket in buckets:
        times = yield from _timed(plan, ready, net, bucket, missing)
        figures.extend(_figures(times, net=net, bucket=bucket, ready=ready, errors=errors, peaks=peaks))
    for contender in ready:
        contender.close()
    return _beside(figures), missing, _default(bundle, each.net, net, plan.device, missing)


def _told(
    making: Generator[str, None, tuple[list[Contender], list[NotRun]]], name: str
) -> Generator[Doing, None, tuple[list[Contender], list[NotRun]]]:
    while True:
        try:
            title = next(making)
        except StopIteration as end:
            ready, missing = end.value
            return ready, [NotRun(what=f"{name}: {one.what}", why=one.why) for one in missing]
        yield Doing(f"{name}: {title}")


def _errors(ready: list[Contender], name: str, missing: list[NotRun]) -> Generator[Doing, None, dict[str, float]]:
    """By contender; whoever fails at its first run, compilers say, is told and taken out of `ready`."""
    found: dict[str, float] = {}
    for contender in tuple(ready):
        title = _title(contender)
        yield Doing(f"{name}: error of {title}")
        try:
            found[title] = contender.error()
        except opening.CANNOT as error:
            missing.append(NotRun(what=f"{name}: {title}", why=opening.first_line(error)))
            ready.remove(contender)
            contender.close()
    return found


def _timed(
    plan: Plan, ready: Sequence[Contender], net: Net, bucket: int, missing: list[NotRun]
) -> Generator[Doing, None, rounds.Times]:
    runs: dict[str, rounds.Run] = {}
    for contender in (one for one in ready if bucket in one.buckets()):
        title = _title(contender)
        yield Doing(f"{net.name}, {bucket} rows: {title}")
        try:
            runs[title] = contender.ready(bucket)
        except opening.CANNOT as error:
            missing.append(NotRun(what=f"{net.name}, {bucket} rows: {title}", why=opening.first_line(error)))
    timing = rounds.interleaved(runs, rounds=plan.rounds, device=plan.device)
    while True:
        try:
            title = next(timing)
        except StopIteration as end:
            times: rounds.Times = end.value
            return times
        yield Doing(f"{net.name}, {bucket} rows: {title}")


def _figures(
    times: rounds.Times,
    *,
    net: Net,
    bucket: int,
    ready: Sequence[Contender],
    errors: Mapping[str, float],
    peaks: Sequence[Peak],
) -> list[Figure]:
    tops = {one.precision: one.flops for one in peaks}
    middle, found = rounds.medians(times), list[Figure]()
    for contender in (one for one in ready if _title(one) in times):
        title, top = _title(contender), tops.get(contender.precision)
        rate = bucket / middle[title]
        figure = Figure(
            net=net.name,
            contender=contender.name,
            precision=contender.precision,
            bucket=bucket,
            seconds=middle[title],
            rounds=times[title],
            rows_per_second=rate,
            of_peak=None if top is None else rate * net.flops / top,
            error=errors[title],
            over_torch=None,
            over_diffusers=None,
        )
        found.append(figure)
    return found


def _beside(figures: Sequence[Figure]) -> list[Figure]:
    """With the ratios to torch and diffusers in float32, at the same bucket."""

    def rate(contender: str, bucket: int) -> float | None:
        same = (one for one in figures if (one.title, one.bucket) == (f"{contender} {Precision.FP32}", bucket))
        return next((one.rows_per_second for one in same), None)

    def over(figure: Figure, contender: str) -> float | None:
        base = rate(contender, figure.bucket)
        return None if base is None else figure.rows_per_second / base

    return [
        figure.model_copy(
            update={"over_torch": over(figure, opening.TORCH), "over_diffusers": over(figure, Peer.DIFFUSERS)}
        )
        for figure in figures
    ]


def _default(bundle: Bundle, which: NetName, net: Net, device: torch.device, missing: list[NotRun]) -> Default | None:
    try:
        return default(bundle, which, name=net.name, device=device)
    except EngineUnavailable as error:
        missing.append(NotRun(what=f"{net.name}: auto", why=str(error)))
        return None


def _title(contender: Contender) -> str:
    return f"{contender.name} {contender.precision}"
