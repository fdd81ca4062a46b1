"""What the gate found, as values, as JSON and as a table.

A figure is always shown beside its value on real sequences which the reference does not contain:
that tells how much of it is chance.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from rich.table import Table
from rich.text import Text

from models.evaluate.limits import Bound


@dataclass(frozen=True)
class Figure:
    """One measured number of one class. `view` says on which frames: coarse, refined, or full size."""

    name: str
    view: str
    value: float
    real: float
    bound: Bound
    threshold: float
    passed: bool
    real_passed: bool
    widened: bool = False
    """Whether the limit is wider than the fixed one, which real sequences did not keep."""


@dataclass(frozen=True)
class CorruptionCheck:
    """Real sequences, spoiled: which limits they exceed. None means that the gate is blind to it."""

    name: str
    view: str
    exceeded: tuple[str, ...]
    excused: str = ""
    """Why it need not be caught; empty: it must be."""

    @property
    def caught(self) -> bool:
        return bool(self.exceeded)


@dataclass(frozen=True)
class ClassReport:
    name: str
    figures: tuple[Figure, ...]
    corruptions: tuple[CorruptionCheck, ...]

    @property
    def passed(self) -> bool:
        """Whether the generated sequences pass, by a gate that is to be trusted."""
        return self.sound and all(figure.passed for figure in self.figures)

    @property
    def sound(self) -> bool:
        """Whether real sequences pass and every corruption is caught."""
        return all(figure.real_passed for figure in self.figures) and all(
            check.caught or check.excused for check in self.corruptions
        )


@dataclass(frozen=True)
class GateReport:
    classes: tuple[ClassReport, ...]

    @property
    def passed(self) -> bool:
        return bool(self.classes) and all(one.passed for one in self.classes)

    def to_json(self) -> dict[str, Any]:
        """Plain values, with the verdicts spelled out."""
        return {
            "passed": self.passed,
            "classes": [
                {
                    "name": one.name,
                    "passed": one.passed,
                    "sound": one.sound,
                    "figures": [asdict(figure) | {"bound": figure.bound.value} for figure in one.figures],
                    "corruptions": [asdict(check) | {"caught": check.caught} for check in one.corruptions],
                }
                for one in self.classes
            ],
        }


def figure_table(report: GateReport) -> Table:
    """Every figure of every class, one row each."""
    table = Table("class", "view", "figure", "generated", "real", "limit", "", title="Generated sequences")
    for column in table.columns[3:6]:
        column.justify = "right"
    shown = ("", "")
    for one in report.classes:
        for figure in one.figures:
            place, shown = _heading(shown, (one.name, figure.view)), (one.name, figure.view)
            if place[1] and table.rows:
                table.add_section()
            numbers = (f"{figure.value:.3f}", f"{figure.real:.3f}", _limit(figure))
            table.add_row(*place, figure.name, *numbers, _verdict(figure))
    if any(figure.widened for one in report.classes for figure in one.figures):
        table.caption = "* wider than the fixed limit, which real sequences do not keep"
    return table


def corruption_table(report: GateReport) -> Table:
    """Every corruption of real sequences, and the limits that it exceeds."""
    table = Table("class", "view", "corruption", "caught by", title="Real sequences, spoiled")
    shown = ("", "")
    for one in report.classes:
        for check in one.corruptions:
            place, shown = _heading(shown, (one.name, check.view)), (one.name, check.view)
            if place[1] and table.rows:
                table.add_section()
            table.add_row(*place, check.name, _caught(check))
    return table


def _heading(before: tuple[str, str], now: tuple[str, str]) -> tuple[str, str]:
    """Class and view where they are new; what is as above is left out."""
    return (now[0] if now[0] != before[0] else "", now[1] if now != before else "")


def _limit(figure: Figure) -> str:
    sign = "<=" if figure.bound is Bound.AT_MOST else ">="
    return f"{sign} {figure.threshold:.3f}{'*' if figure.widened else ''}"


def _caught(check: CorruptionCheck) -> Text:
    if check.caught:
        return Text(", ".join(check.exceeded))
    if check.excused:
        return Text(f"need not be: {check.excused}", style="yellow")
    return Text("NOT CAUGHT", style="bold red")


def _verdict(figure: Figure) -> Text:
    if not figure.real_passed:
        return Text("REAL FAILS", style="bold red")
    return Text("pass", style="green") if figure.passed else Text("FAIL", style="bold red")
