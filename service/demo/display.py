"""Showing a tally: bars on a terminal, now and then a line elsewhere."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from service.demo.tally import Tally
from workers.contracts.job import Stage

LINE_EVERY = 16
"""Frames between two lines where there are no bars."""
Shower = Generator[None, Tally, None]


@contextmanager
def shown(console: Console) -> Iterator[Shower]:
    """Send it one tally after another."""
    shower = _bars(console) if console.is_terminal else _lines(console)
    next(shower)
    try:
        yield shower
    finally:
        shower.close()


def first_frames(tally: Tally) -> str:
    """When the first frame of each stage came."""
    times = [f"first {stage.value} {tally.first[stage]:.2f} s" for stage in tally.stages if stage in tally.first]
    return ", ".join(times)


def _bars(console: Console) -> Shower:
    columns = (
        TextColumn("{task.description:<8}"),
        BarColumn(bar_width=40),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("[dim]{task.fields[note]}"),
    )
    tasks: dict[Stage, TaskID] = {}
    with Progress(*columns, console=console) as progress:
        while True:
            tally = yield
            for stage in tally.stages:
                if stage not in tasks:
                    tasks[stage] = progress.add_task(stage.value, total=tally.total, note="")
                note = f"first after {tally.first[stage]:.2f} s" if stage in tally.first else tally.word
                progress.update(tasks[stage], completed=tally.done.get(stage, 0), note=note)


def _lines(console: Console) -> Shower:
    last = ""
    while True:
        tally = yield
        counts = [tally.done.get(stage, 0) for stage in tally.stages]
        mark = f"{tally.word} {[count // LINE_EVERY for count in counts]} {[bool(count) for count in counts]}"
        if mark != last:
            console.print(f"{tally.seconds:6.2f} s  {tally.line()}")
        last = mark
