"""Arrivals: which job comes when, from whom. A list of them in a file, or drawn (`traffic`).

One line of a file is a JSON object: `at` in seconds from the beginning, `tenant`, `model`, and any field of a job's
spec; what is left out is the bundle's default.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from workers.contracts.errors import SimulationInput
from workers.contracts.job import JobSpec
from workers.simulate.costs import Costs


@dataclass(frozen=True, slots=True)
class Arrival:
    """One job."""

    id: str
    """Sorts by time, as the ids of real jobs do."""
    at: float
    """Seconds from the beginning."""
    tenant: str
    job: JobSpec


def numbered(jobs: Iterable[tuple[float, str, JobSpec]]) -> tuple[Arrival, ...]:
    """(at, tenant, job), in any order, as arrivals in order of time."""
    ordered = sorted(jobs, key=lambda entry: entry[0])
    return tuple(Arrival(f"job-{index:06d}", *entry) for index, entry in enumerate(ordered))


def read(path: Path, costs: Mapping[str, Costs]) -> tuple[Arrival, ...]:
    """A file's arrivals, `costs` by model; SimulationInput names the line and field that is wrong."""
    try:
        lines = path.read_text().splitlines()
    except OSError as error:
        raise SimulationInput(f"{path}: cannot be read ({error.strerror}); name a list of arrivals") from error
    return numbered(_arrival(f"{path}:{n}", line, costs) for n, line in enumerate(lines, start=1) if line.strip())


def write(arrivals: Sequence[Arrival], path: Path) -> None:
    """For `read`."""
    lines = (
        {"at": arrival.at, "tenant": arrival.tenant, **arrival.job.model_dump(mode="json")} for arrival in arrivals
    )
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))


def _arrival(where: str, line: str, costs: Mapping[str, Costs]) -> tuple[float, str, JobSpec]:
    try:
        fields = json.loads(line)
    except ValueError as error:
        raise SimulationInput(f"{where}: not JSON ({error}); one object a line") from error
    if not isinstance(fields, dict) or not isinstance(fields.get("at"), int | float) or fields["at"] < 0:
        raise SimulationInput(f"{where}: at: needs the seconds from the beginning, 0 or more")
    at, tenant = float(fields.pop("at")), str(fields.pop("tenant", "default"))
    model = fields.get("model", next(iter(costs)))
    if model not in costs:
        raise SimulationInput(f"{where}: model: there are no step costs of {model!r}, only of {sorted(costs)}")
    if unknown := sorted(set(fields) - set(JobSpec.model_fields)):
        raise SimulationInput(f"{where}: {unknown[0]}: no field of a job; there are {sorted(JobSpec.model_fields)}")
    try:
        return at, tenant, costs[model].job(**fields)
    except ValidationError as error:
        first = error.errors()[0]
        raise SimulationInput(f"{where}: {first['loc'][0]}: {first['msg']}") from error
