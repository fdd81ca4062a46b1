"""Driving a real runner in a test or a benchmark: jobs of the tiny bundle, and the oracle that knows no batches."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from models import alone
from models.bundle import Bundle
from models.engine import BUCKETS, Engine, Precision
from models.engines.torch import TorchEngine
from models.evaluator import Answering, Evaluator
from models.spec import Stage
from workers.contracts import job as contract
from workers.contracts.catalogue import EngineInfo
from workers.inhand import request_of
from workers.leaving import Leave, leave
from workers.runner import Runner
from workers.scheduler import Net
from workers.tasks import Fact, RunAlone, Task, UnitFinished

Results = dict[str, NDArray[np.float32]]
Oracle = Callable[[contract.JobSpec], Results]


def by_itself(bundle: Bundle) -> Oracle:
    """Jobs by themselves: every unit's result."""
    nets = alone.evaluators(bundle)

    def results_of(spec: contract.JobSpec) -> Results:
        request = request_of(spec, bundle)
        return {unit.key: result.numpy() for unit, result in alone.run(bundle.spec, request, nets=nets)}

    return results_of


E = TypeVar("E", bound=TorchEngine)


def on_cpu(kind: type[E], bundle: Bundle, stage: Stage, *, buckets: tuple[int, ...] = BUCKETS) -> E:
    """An engine of this kind for one net."""
    return kind(bundle.net(stage), device=torch.device("cpu"), precision=Precision.FP32, buckets=buckets)


def runner_for(
    bundle: Bundle,
    engines: Mapping[Stage, Engine] | None = None,
    *,
    largest: int = 8,
    clock: Callable[[], float] = time.time,
    leave: Leave = leave,
) -> Runner:
    """A runner of this bundle on torch, or on `engines` where they are given."""
    name, buckets = bundle.spec.name, tuple(size for size in BUCKETS if size <= largest)
    nets: dict[Net, Answering] = {}
    infos: dict[Net, EngineInfo] = {}
    for stage in bundle.spec.stages:
        engine = (engines or {}).get(stage) or on_cpu(TorchEngine, bundle, stage, buckets=buckets)
        nets[Net(name, stage)] = Evaluator(bundle.net(stage), engine)
        infos[Net(name, stage)] = EngineInfo(engine="torch", precision="fp32", buckets=buckets)
    return Runner({name: bundle}, nets, engines=infos, clock=clock, leave=leave)


def spec_of(**changes: object) -> contract.JobSpec:
    """A job of the tiny bundle."""
    plain: dict[str, object] = {
        "model": "tiny",
        "bundle_hash": "0",
        "class_label": "sky",
        "num_frames": 20,
        "fps": 8,
        "size": "8x8",
        "seed": 1,
        "num_inference_steps": 3,
        "refine_steps": 2,
        "sampler": "euler",
        "guidance_scale": 1.5,
    }
    return contract.JobSpec.model_validate(plain | changes)


def task(job_id: str, spec: contract.JobSpec, **changes: object) -> Task:
    """Its first attempt."""
    plain: dict[str, object] = {"submitted_at": 0.0, "finished": {}, "done": frozenset(), "alone": RunAlone.NO}
    return Task(job_id=job_id, attempt=1, spec=spec, **(plain | changes))  # type: ignore[arg-type]


def run_to_end(runner: Runner) -> list[Fact]:
    """Every fact until nothing is left to do."""
    facts: list[Fact] = []
    while runner.has_work:
        facts.extend(runner.tick())
    return facts


def results(facts: Sequence[Fact], job_id: str) -> Results:
    """Of the units that a job finished, by key."""
    return {fact.unit.key: fact.result for fact in facts if isinstance(fact, UnitFinished) and fact.job_id == job_id}


def assert_equal(actual: Results, wanted: Results) -> None:
    """The same units and the same bits."""
    assert actual.keys() == wanted.keys()
    for key, result in wanted.items():
        assert np.array_equal(actual[key], result), key
