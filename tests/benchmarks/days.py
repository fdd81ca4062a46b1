"""`python -m tests.benchmarks.days`: the simulated days of docs/scheduling.md, run again and written into it.

Each day is one call of `gridit simulate`; the figures between the two marks of the page, and its picture, are replaced.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from workers.simulate import costs
from workers.simulate.writing import NAMES

ROOT = Path(__file__).resolve().parents[2]
PAGE, PICTURE = ROOT / "docs" / "scheduling.md", ROOT / "docs" / "scheduling.png"
BEGIN, END = "<!-- days -->\n\n", "<!-- end of days -->\n"
DEEP = costs.SHIPPED.with_name("deep-narrow-2-cores.json")


@dataclass(frozen=True)
class Day:
    """One day, and what is said of it."""

    name: str
    table: Path
    load: float


DAYS = (
    Day("The bundled model on CPUs, where larger batches gain next to nothing", costs.SHIPPED, 0.7),
    Day("A net whose batches gain as on a GPU (28 blocks of width 128, 16 tokens), the same load", DEEP, 0.7),
    Day("The same net, more work than the fleet could do one job at a time", DEEP, 1.2),
)
PICTURED = 2


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        outs = [Path(folder) / str(index) for index in range(len(DAYS))]
        reports = [simulated(day, out) for day, out in zip(DAYS, outs, strict=True)]
        shutil.copyfile(outs[PICTURED] / "times.png", PICTURE)
    figures = "\n".join(line for day, report in zip(DAYS, reports, strict=True) for line in section(day, report))
    before, _, rest = PAGE.read_text().partition(BEGIN)
    _, _, after = rest.partition(END)
    PAGE.write_text(f"{before}{BEGIN}{figures}\n{END}{after}")


def simulated(day: Day, out: Path) -> dict[str, Any]:
    """Its report."""
    command = [sys.executable, "-m", "service.cli", "simulate", "--costs", str(day.table)]
    subprocess.run([*command, "--load", str(day.load), "--out", str(out)], cwd=ROOT, check=True, capture_output=True)
    report: dict[str, Any] = json.loads((out / "report.json").read_text())
    return report


def section(day: Day, report: dict[str, Any]) -> Iterator[str]:
    """A heading, what was simulated, and a table: policies are columns."""
    policies = list(report["policies"].values())
    yield f"### {day.name}"
    yield ""
    yield f"`--costs {day.table.relative_to(ROOT)} --load {day.load:g}`: {report['setting']['jobs']} jobs."
    yield ""
    yield f"| | {' | '.join(one['policy'] for one in policies)} |"
    yield "|---|" + "--:|" * len(policies)
    yield from (
        row(f"{name}, p50 / p95, s", [_two(one["times"][key]) for one in policies]) for key, name in NAMES.items()
    )
    for priority in ("high", "low"):
        found = [_two(one["by_priority"][priority]["first_coarse"]) for one in policies]
        yield row(f"first coarse frame of `{priority}` jobs, p50 / p95, s", found)
    yield row("devices at work", [f"{fmean(w['utilisation'] for w in one['workers']):.0%}" for one in policies])
    yield row("work in a busy second, against one job alone", [f"{one['gain']:.2f}" for one in policies])
    yield row("Jain's index over tenants that all have work waiting", [f"{one['fairness']:.2f}" for one in policies])
    yield row("slowdown of the tenant that fares worst", [f"{one['worst_slowdown']:.1f}" for one in policies])
    yield ""


def row(name: str, values: Sequence[str]) -> str:
    """Of a table."""
    return f"| {name} | {' | '.join(values)} |"


def _two(quantiles: dict[str, float]) -> str:
    return " / ".join(
        f"{value:.1f}" if value < 99.95 else f"{value:.0f}" for value in (quantiles["p50"], quantiles["p95"])
    )


if __name__ == "__main__":
    main()
