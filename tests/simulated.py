"""Step costs, fleets and arrivals for tests of the simulator."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence

from models.spec import BundleSpec, Codec
from tests.tiny import tiny_spec
from workers.contracts.job import JobSpec, Priority, Stage
from workers.simulate.arrivals import Arrival, numbered
from workers.simulate.costs import Costs
from workers.simulate.fleet import WorkerSpec

BUCKETS = (1, 2, 4, 8)
BASE, ROW = 0.02, 0.01
"""Seconds of a batch, and of each row in it."""


def costs_of(spec: BundleSpec | None = None, *, name: str = "tiny", base: float = BASE, row: float = ROW) -> Costs:
    """A table in which a batch costs `base` and `row` for each row."""
    spec = (spec or tiny_spec()).model_copy(update={"name": name})
    by_bucket = {rows: base + row * rows for rows in BUCKETS}
    seconds = {stage.value: by_bucket for stage in spec.stages}
    if spec.autoencoder:
        seconds |= {half.value: {1: row} for half in Codec}
    return Costs(bundle=spec, bundle_hash="0", machine="a made-up one", seconds=seconds)


def by_model(*tables: Costs) -> Mapping[str, Costs]:
    return {table.model: table for table in tables}


def some_job(table: Costs, dice: random.Random) -> JobSpec:
    return table.job(
        num_frames=dice.choice([1, 8, 16, 20, 40]),
        num_inference_steps=dice.choice([1, 2, 4]),
        refine_steps=dice.choice([1, 2]),
        stages=dice.choice(list(Stage)),
        priority=dice.choice(list(Priority)),
        class_label=dice.choice([None, "sky"]),
    )


def some_arrivals(tables: Sequence[Costs], *, count: int, seconds: float, seed: int = 0) -> tuple[Arrival, ...]:
    """Jobs of several tenants, at random over so many seconds, some of them together."""
    dice = random.Random(seed)

    def drawn() -> Iterator[tuple[float, str, JobSpec]]:
        at = 0.0
        for _ in range(count):
            at = dice.choice([at, dice.random() * seconds])
            yield at, dice.choice("abc"), some_job(dice.choice(tables), dice)

    return numbered(drawn())


def fleet_of(tables: Sequence[Costs], *, count: int, seed: int = 0) -> tuple[WorkerSpec, ...]:
    """Workers of different speed and slots; the first serves everything, others one model or all."""
    dice, names = random.Random(seed), tuple(table.model for table in tables)
    return tuple(
        WorkerSpec(
            f"worker-{index}",
            names if not index else dice.choice([names, names[:1], names[-1:]]),
            slots=dice.choice([1, 2, 8]),
            speed=dice.choice([0.5, 1.0, 2.0]),
        )
        for index in range(count)
    )
