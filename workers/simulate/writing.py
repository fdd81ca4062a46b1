"""Summaries as files: `report.json` with every figure, `report.md` to read."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from workers.simulate.costs import Costs
from workers.simulate.fleet import WorkerSpec
from workers.simulate.summary import Quantiles, Summary

NAMES = {
    "queue_wait": "wait in the queue",
    "first_coarse": "first coarse frame",
    "first_refined": "first refined frame",
    "completion": "completion",
}


@dataclass(frozen=True, slots=True)
class Setting:
    """What was simulated, so that the figures can be had again."""

    fleet: tuple[WorkerSpec, ...]
    costs: tuple[Costs, ...]
    arrivals: str
    """In words: the file, or how they were drawn."""
    jobs: int
    hours: float


def write(summaries: Sequence[Summary], setting: Setting, folder: Path) -> None:
    """Both files."""
    folder.mkdir(parents=True, exist_ok=True)
    plain = {"setting": _plain(setting), "policies": {one.policy: asdict(one) for one in summaries}}
    (folder / "report.json").write_text(json.dumps(plain, indent=2) + "\n")
    (folder / "report.md").write_text("\n".join(markdown(summaries, setting)) + "\n")


def markdown(summaries: Sequence[Summary], setting: Setting) -> Iterator[str]:
    """Lines of the report."""
    yield "# A day of jobs, simulated"
    yield ""
    yield f"{setting.jobs} jobs over {setting.hours:g} hours: {setting.arrivals}."
    for costs in setting.costs:
        yield f"Step costs of `{costs.model}` recorded on {costs.machine}."
    yield f"Workers: {', '.join(f'{one.name} (speed {one.speed:g}, {one.slots} slots)' for one in setting.fleet)}."
    yield "\n## Seconds from submission\n\np50 / p95 / p99\n"
    yield from table(["", *(one.policy for one in summaries)], _times(summaries))
    yield "\n## Devices and tenants\n"
    yield from table(["", *(one.policy for one in summaries)], _shares(summaries))
    yield "\n## By priority\n\np50 / p95\n"
    yield from table(["", *(one.policy for one in summaries)], _priorities(summaries))
    yield "\n## By tenant\n\nslowdown: time in the system over time alone on the fastest worker\n"
    yield from table(["", "jobs", *(one.policy for one in summaries)], _tenants(summaries))
    yield "\n## By worker\n\nutilisation until the last arrival; rows a batch\n"
    yield from table(["", *(one.policy for one in summaries)], _workers(summaries))


def table(head: Sequence[str], rows: Iterator[Sequence[str]]) -> Iterator[str]:
    """A Markdown table."""
    yield f"| {' | '.join(head)} |"
    yield "|" + "---|" * len(head)
    for row in rows:
        yield f"| {' | '.join(row)} |"


def _times(summaries: Sequence[Summary]) -> Iterator[Sequence[str]]:
    for key, name in NAMES.items():
        yield [name, *(_three(one.times.get(key)) for one in summaries)]


def _shares(summaries: Sequence[Summary]) -> Iterator[Sequence[str]]:
    yield ["all done after, hours", *(f"{one.until / 3600:.1f}" for one in summaries)]
    yield ["utilisation", *(f"{_mean([w.utilisation for w in one.workers]):.0%}" for one in summaries)]
    yield ["work for each busy second, against alone", *(f"{one.gain:.2f}" for one in summaries)]
    yield ["Jain's index over tenants", *(f"{one.fairness:.3f}" for one in summaries)]
    yield ["worst tenant's slowdown", *(f"{one.worst_slowdown:.1f}" for one in summaries)]


def _priorities(summaries: Sequence[Summary]) -> Iterator[Sequence[str]]:
    for priority in summaries[0].by_priority:
        for key in ("first_coarse", "first_refined", "completion"):
            found = [one.by_priority[priority].get(key) for one in summaries]
            yield [f"{priority}: {NAMES[key]}", *(_two(each) for each in found)]


def _tenants(summaries: Sequence[Summary]) -> Iterator[Sequence[str]]:
    for name, tenant in summaries[0].tenants.items():
        yield [name, str(tenant.jobs), *(f"{one.tenants[name].slowdown:.1f}" for one in summaries)]


def _workers(summaries: Sequence[Summary]) -> Iterator[Sequence[str]]:
    for index, worker in enumerate(summaries[0].workers):
        own = [one.workers[index] for one in summaries]
        yield [worker.name, *(f"{each.utilisation:.0%}; {each.rows_per_tick:.1f}" for each in own)]


def _plain(setting: Setting) -> Mapping[str, object]:
    return {
        "jobs": setting.jobs,
        "hours": setting.hours,
        "arrivals": setting.arrivals,
        "fleet": [asdict(worker) for worker in setting.fleet],
        "costs": [costs.model_dump(mode="json", exclude={"bundle"}) for costs in setting.costs],
    }


def _three(found: Quantiles | None) -> str:
    return "" if found is None else " / ".join(_seconds(value) for value in (found.p50, found.p95, found.p99))


def _two(found: Quantiles | None) -> str:
    return "" if found is None else " / ".join(_seconds(value) for value in (found.p50, found.p95))


def _seconds(value: float) -> str:
    return f"{value:.1f}" if value < 99.95 else f"{value:.0f}"


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
