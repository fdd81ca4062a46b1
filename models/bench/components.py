"""Every kind of step that the compared ways are made of, measured: one run of one net in one bucket by one engine.

What is measured is a run of the engine itself; that frames are packed and samplers step costs next to nothing beside
it, which whole jobs show.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, field

import torch

from models import engines
from models.bench import flops, peers, rounds, shapes
from models.bench.engines import Doing
from models.bench.opening import nets_of
from models.bench.report import Component, NotRun
from models.bench.ways import DIRECT, Kind, Way, direct_net
from models.bundle import Bundle
from models.engine import ALONE, Engine, NetName, Precision, Rows
from models.evaluator import Answering, CodecEvaluator, Evaluator
from models.graph import Graph, graphs
from models.nn.dit import DiT
from models.spec import Codec, NetSpec, Stage

Key = tuple[Kind, str, int]
"""(whose, net, rows of the bucket)."""
MOST_FOR_ONE = 30.0
"""Seconds: a direct run that would take longer is not made, but reckoned by its FLOPs."""


@dataclass(slots=True)
class Hall:
    """A bundle's nets on the engines that are compared, all of them loaded."""

    bundle: Bundle
    device: torch.device
    buckets: tuple[int, ...]
    engines: dict[tuple[Kind, NetName], Engine] = field(default_factory=dict)
    reasons: dict[NetName, str] = field(default_factory=dict)
    nets: dict[Stage, DiT] = field(default_factory=dict)
    graphs: dict[str, Graph] = field(default_factory=dict)
    """By a net's name in tallies."""

    @classmethod
    def of(cls, bundle: Bundle, *, device: torch.device, buckets: tuple[int, ...]) -> Hall:
        """With torch in float32 and what `auto` takes, prepared."""
        hall = cls(bundle, device, buckets)
        for net in nets_of(bundle.spec):
            hall._open(net)
        return hall

    def answering(self, kind: Kind) -> dict[NetName, Answering]:
        """What drives whole jobs."""
        found: dict[NetName, Answering] = {}
        for (whose, net), engine in self.engines.items():
            if whose is kind:
                codec = isinstance(net, Codec)
                found[net] = CodecEvaluator(engine) if codec else Evaluator(self.bundle.net(Stage(net)), engine)
        return found

    def close(self) -> None:
        """Give memory back."""
        for engine in self.engines.values():
            engine.close()

    def _open(self, net: NetName) -> None:
        buckets = self.buckets if isinstance(net, Stage) else ALONE
        plain = engines.create(
            "torch", bundle=self.bundle, net=net, precision=Precision.FP32, buckets=buckets, device=self.device
        )
        plain.prepare()
        choice = engines.select(self.bundle, net, device=self.device, buckets=buckets)
        if choice.engine.name == plain.name:
            choice.engine.prepare()
        self.engines |= {(Kind.TORCH, net): plain, (Kind.DEFAULT, net): choice.engine}
        self.reasons[net] = choice.reason
        if isinstance(net, Stage):
            self.nets[net] = self.bundle.net(net).to(self.device)
        for each in graphs(self.bundle, net)[: 1 if isinstance(net, Stage) else None]:
            self.graphs[str(net) if isinstance(net, Stage) else f"{net} {each.inputs[0].shape[-1]}"] = each


def needed(ways: Sequence[Way]) -> list[Key]:
    """Every kind of step that occurs, the cheap ones first."""
    keys = {(_whose(way.kind, net), net, bucket) for way in ways for net, bucket in way.tally.runs}
    return sorted(keys, key=lambda key: (key[0] is Kind.DIRECT, key[2], key[1], key[0]))


def key_of(way: Way, net: str, bucket: int) -> Key:
    """Whose step a run of a way is."""
    return _whose(way.kind, net), net, bucket


def measure(
    hall: Hall, keys: Sequence[Key], *, number: int, missing: list[NotRun]
) -> Generator[Doing, None, dict[Key, Component]]:
    """All steps, in interleaved rounds."""
    runs: dict[str, rounds.Run] = {}
    titles: dict[str, Key] = {}
    for key in (key for key in keys if key[0] is not Kind.DIRECT):
        title = _title(key)
        yield Doing(f"first run of {title}")
        runs[title], titles[title] = _run(hall, key), key
        runs[title]()
    timing = rounds.interleaved(runs, rounds=number, device=hall.device)
    times = yield from _told(timing)
    found = {titles[title]: _component(hall, titles[title], seconds) for title, seconds in times.items()}
    for key in (key for key in keys if key[0] is Kind.DIRECT):
        found[key] = yield from _direct(hall, key, found, number=min(3, number), missing=missing)
    return found


def _whose(kind: Kind, net: str) -> Kind:
    """The released loop's autoencoder is ours on torch."""
    return Kind.TORCH if kind is Kind.RELEASED and not net.startswith(tuple(Stage)) else kind


def _title(key: Key) -> str:
    kind, net, bucket = key
    return f"{kind} {net}, {bucket} {'row' if bucket == 1 else 'rows'}"


def _run(hall: Hall, key: Key) -> Callable[[], object]:
    kind, name, bucket = key
    graph = hall.graphs[name]
    if kind is Kind.RELEASED:
        net = hall.nets[Stage(name)]
        question = peers.asked(net, rows=1, device=hall.device)
        return lambda: peers.released(net, question.x, time=500.0 / net.spec.time_scale, label=net.spec.classes)
    engine = hall.engines[kind, graph.net]
    batch = Rows(*(part.to(hall.device) for part in graph.example(bucket, seed=bucket)[:2]))
    return lambda: engine.run(batch)


def _told(timing: Generator[str, None, rounds.Times]) -> Generator[Doing, None, rounds.Times]:
    while True:
        try:
            yield Doing(next(timing))
        except StopIteration as end:
            times: rounds.Times = end.value
            return times


def _component(hall: Hall, key: Key, seconds: tuple[float, ...]) -> Component:
    kind, name, bucket = key
    released = kind is Kind.RELEASED
    engine = None if released else hall.engines[kind, hall.graphs[name].net]
    return Component(
        way=kind.value,
        net=name,
        engine="torch fp32" if engine is None else f"{engine.name} {engine.precision}",
        bucket=bucket,
        seconds=rounds.medians({name: seconds})[name],
        rounds=seconds,
        flops=bucket * row_flops(hall, key),
        note="" if kind is not Kind.DEFAULT else hall.reasons[hall.graphs[name].net],
    )


def row_flops(hall: Hall, key: Key) -> int:
    """One row; the released loop makes its modulation anew."""
    kind, name, _ = key
    if kind is Kind.DIRECT:
        return flops.dit(direct_net(hall.bundle.spec))
    graph = hall.graphs[name]
    if isinstance(graph.net, Codec):
        return flops.of(graph)
    spec = hall.bundle.spec.nets[graph.net]
    return flops.dit(spec) + (flops.modulation(spec) if kind is Kind.RELEASED else 0)


def _direct(
    hall: Hall, key: Key, found: Mapping[Key, Component], *, number: int, missing: list[NotRun]
) -> Generator[Doing, None, Component]:
    """The big net: measured, or where that would take too long reckoned at the coarse net's rate."""
    spec, bucket = direct_net(hall.bundle.spec), key[2]
    work = bucket * flops.dit(spec)
    rate = max(one.flops / one.seconds for (kind, _, _), one in found.items() if kind is Kind.TORCH)
    title = f"direct way, {spec.tokens} tokens"
    if work / rate > MOST_FOR_ONE:
        why = f"a run would take more than {MOST_FOR_ONE:g} s: reckoned at the best rate of the other nets"
        missing.append(NotRun(what=title, why=why))
        seconds: tuple[float, ...] = (work / rate,)
    else:
        yield Doing(title)
        run = _big(spec, bucket, hall.device)
        run()
        times = yield from _told(rounds.interleaved({title: run}, rounds=number, device=hall.device))
        seconds = times[title]
    return Component(
        way=key[0].value,
        net=DIRECT,
        engine="torch fp32",
        bucket=bucket,
        seconds=rounds.medians({title: seconds})[title],
        rounds=seconds,
        flops=work,
        note=f"{spec.tokens} tokens" + (", reckoned" if work / rate > MOST_FOR_ONE else ""),
    )


def _big(spec: NetSpec, rows: int, device: torch.device) -> Callable[[], object]:
    net = shapes.awake(DiT(spec)).to(device)
    x = torch.randn(rows, spec.in_channels, spec.input_size, spec.input_size, device=device)
    modulation = torch.randn(rows, 6 * spec.depth + 2, spec.width, device=device) / 2
    return torch.inference_mode()(lambda: net.denoise(x, modulation))
