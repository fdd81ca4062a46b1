"""`python -m tests.benchmarks.sharing`: what many jobs on one device gain by sharing it, against one job at a time.

One run, one set of weights, made here: nets of width 128 that are deep and short of tokens, so that a CPU shows what a
GPU does, one row costs far more than its share of a full batch. The engine by itself says what larger batches gain;
the runner on its device thread, with one slot and with eight, says how much of that reaches the jobs. Timings mean
something on a quiet machine only.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from queue import Queue

import torch
from rich.console import Console
from rich.table import Table

from models.bundle import Bundle
from models.engine import BUCKETS, Rows
from models.engines.torch import TorchEngine
from models.spec import Defaults, Limits, Stage
from tests.driving import on_cpu, runner_for, spec_of, task
from tests.tiny import tiny_spec, written
from workers.device import Device, Out
from workers.runner import Runner
from workers.tasks import Task, TaskFailed, TaskFinished, TickRan, UnitFinished

WIDTH, DEPTH, PATCH = 128, 28, 4
"""The published depth; 16 tokens."""
GRID, COARSE, REFINED, OVERLAP = 4, 4, 16, 2
JOBS = 8
MEASURED = 5
"""Runs of each bucket in a round."""


CLOCKS: Mapping[str, Callable[[], float]] = {"wall": time.perf_counter, "cpu": time.thread_time}
"""The second is the device thread's own time: what a busy machine gives to others is not in it."""


@dataclass
class Meter:
    """What both engines' runs take, since the first of them."""

    clock: Callable[[], float]
    began: float | None = None
    ended: float = 0.0
    busy: float = 0.0

    @property
    def so_far(self) -> float:
        """From the beginning of the first run to the end of the last."""
        return 0.0 if self.began is None else self.ended - self.began


class Timed(TorchEngine):
    """Tells a meter of its runs; stays open, so that one engine serves every round."""

    meter = Meter(time.perf_counter)

    def run(self, batch: Rows) -> torch.Tensor:
        began = self.meter.clock()
        out = super().run(batch)
        self.meter.ended = self.meter.clock()
        self.meter.busy += self.meter.ended - began
        if self.meter.began is None:
            self.meter.began = began
        return out

    def blank(self, rows: int) -> Rows:
        """Rows to be timed with."""
        return self._zeros(rows)

    def close(self) -> None:
        pass


Engines = Mapping[Stage, Timed]
Seconds = Mapping[tuple[str, int], float]
"""Of one run, by net and bucket."""


@dataclass(frozen=True)
class Round:
    """What one way of running the jobs came to, in seconds."""

    total: float
    first: float
    """Median over the jobs: to the first refined frames, from the beginning of all."""
    idle: float
    """Of the device thread, with work and no engine run in progress."""
    ticks: tuple[TickRan, ...]


def made(path: Path) -> Bundle:
    """The nets of the benchmark."""
    spec = tiny_spec(overlap_rows=OVERLAP)
    nets = {
        stage: net.model_copy(
            update={"input_size": GRID * COARSE, "patch": PATCH, "width": WIDTH, "depth": DEPTH, "heads": 4}
        )
        for stage, net in spec.nets.items()
    }
    defaults = Defaults(num_frames=16, fps=8, sampler="euler", coarse_steps=2, refine_steps=2, guidance_scale=1.0)
    return written(
        path,
        spec.model_copy(
            update={"nets": nets, "refined_size": REFINED, "defaults": defaults, "limits": Limits(num_frames=256)}
        ),
    )


def jobs(count: int, **changes: object) -> list[Task]:
    """Equal jobs with different seeds."""
    return [task(f"job-{seed}", spec_of(seed=seed, **changes), submitted_at=float(seed)) for seed in range(count)]


def through(runner: Runner, asked: Sequence[Task], *, slots: int) -> Iterator[Out]:
    """The facts of these jobs from a device thread that has at most `slots` of them in hand."""
    out: Queue[Out | None] = Queue(32)
    device = Device(lambda: runner, out, lease_seconds=60.0)
    device.start()
    line, left = iter(asked), len(asked)
    for following in islice(line, slots):
        device.admit(following)
    while left:
        fact = out.get()
        assert fact is not None, "it says so before it ends"
        if isinstance(fact, TaskFinished | TaskFailed):
            left -= 1
            for following in islice(line, 1):
                device.admit(following)
        yield fact
    device.close()
    device.join()


def timed(runner: Runner, engines: Engines, asked: Sequence[Task], *, slots: int, clock: str = "wall") -> Round:
    """How long they take on a runner whose engines these are."""
    meter = metered(engines, clock)
    firsts: dict[str, float] = {}
    ticks: list[TickRan] = []
    for fact in through(runner, asked, slots=slots):
        match fact:
            case TickRan():
                ticks.append(fact)
            case UnitFinished(job_id, unit=unit) if unit.stage is Stage.REFINE:
                firsts.setdefault(job_id, meter.so_far)
            case TaskFailed(error=error):
                raise error
    return Round(meter.so_far, statistics.median(firsts.values()), meter.so_far - meter.busy, tuple(ticks))


def metered(engines: Engines, clock: str) -> Meter:
    """A new meter on these engines."""
    meter = Meter(CLOCKS[clock])
    for engine in engines.values():
        engine.meter = meter
    return meter


def runs(engines: Engines, *, clock: str) -> Iterator[tuple[str, int, float]]:
    """Net, bucket and seconds of single runs of the engines by themselves."""
    for stage, engine in engines.items():
        for rows in BUCKETS:
            batch = engine.blank(rows)
            for _ in range(MEASURED):
                meter = metered(engines, clock)
                engine.run(batch)
                yield stage.value, rows, meter.busy


def engine_gain(one_by_one: Sequence[TickRan], seconds: Seconds) -> float:
    """What the engine itself gains when each batch of one job becomes a batch with as many rows of every job."""
    before = sum(seconds[tick.net, tick.bucket] for tick in one_by_one)
    return before / sum(tick.rows * _row_seconds(tick.net, JOBS * tick.rows, seconds) for tick in one_by_one)


def _row_seconds(net: str, rows: int, seconds: Seconds) -> float:
    bucket = next(size for size in BUCKETS if size >= min(rows, BUCKETS[-1]))
    return seconds[net, bucket] / bucket


def main() -> None:
    """Measure, and print the tables."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--rounds", type=int, default=5)
    options.add_argument("--clock", choices=CLOCKS, default="wall", help="cpu: the device thread's, with one thread")
    options.add_argument("--threads", type=int, default=1)
    options.add_argument("--frames", type=int, default=48)
    given = options.parse_args()
    torch.set_num_threads(given.threads)
    with tempfile.TemporaryDirectory() as place:
        bundle = made(Path(place) / "wide")
        engines = {stage: on_cpu(Timed, bundle, stage) for stage in Stage}
        runner = runner_for(bundle, engines, largest=BUCKETS[-1])
        asked = jobs(JOBS, num_frames=given.frames, num_inference_steps=20, refine_steps=2, guidance_scale=1.0)
        timed(runner, engines, asked[:2], slots=2)  # allocations, modulation rows
        alone, together = [], []
        taken: dict[tuple[str, int], list[float]] = {}
        for _ in range(given.rounds):
            for net, rows, seconds in runs(engines, clock=given.clock):
                taken.setdefault((net, rows), []).append(seconds)
            alone.append(timed(runner, engines, asked, slots=1, clock=given.clock))
            together.append(timed(runner, engines, asked, slots=JOBS, clock=given.clock))
        costs = {key: statistics.median(values) for key, values in taken.items()}
        Console().print(_of_engines(costs), _of_jobs(alone, together, costs))


def _of_engines(costs: Seconds) -> Table:
    table = Table("net", *map(str, BUCKETS), title=f"rows/s of the engines by themselves, by bucket; width {WIDTH}")
    for stage in Stage:
        table.add_row(stage.value, *(f"{rows / costs[stage.value, rows]:.0f}" for rows in BUCKETS))
    return table


def _of_jobs(alone: Sequence[Round], together: Sequence[Round], costs: Seconds) -> Table:
    gain = statistics.median(one.total / other.total for one, other in zip(alone, together, strict=True))
    engine = engine_gain([tick for round_ in alone for tick in round_.ticks], costs)
    sooner = statistics.median(one.first / other.first for one, other in zip(alone, together, strict=True))
    idle = statistics.median(one.idle / one.total for one in together)
    table = Table("", "one at a time", f"{JOBS} together", "ratio", "wanted", title=f"{JOBS} equal jobs")
    table.add_row("all done, s", *_medians(alone, together, "total"), f"{gain:.2f}", "")
    table.add_row("the engine's own gain", "", "", f"{engine:.2f}", ">= 2")
    table.add_row("share of it that is reached", "", "", f"{gain / engine:.0%}", ">= 90%")
    table.add_row("first refined frame, median s", *_medians(alone, together, "first"), f"{sooner:.2f}", ">= 4")
    table.add_row("device thread without a run", "", f"{idle:.1%}", "", "<= 5%")
    for stage in Stage:
        table.add_row(f"rows of a batch, {stage}", *(f"{_rows(rounds, stage):.1f}" for rounds in (alone, together)))
    return table


def _medians(alone: Sequence[Round], together: Sequence[Round], name: str) -> list[str]:
    return [f"{statistics.median(getattr(one, name) for one in rounds):.2f}" for rounds in (alone, together)]


def _rows(rounds: Sequence[Round], stage: Stage) -> float:
    return statistics.mean(tick.rows for one in rounds for tick in one.ticks if tick.net == stage)


if __name__ == "__main__":
    main()
