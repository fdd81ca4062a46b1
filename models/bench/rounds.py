"""Interleaved timing: everything that is compared runs once in each round, so a busy moment meets all of them alike.

Medians over the rounds are what is compared; a machine that others use changes them less than it changes means.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Generator, Mapping, Sequence

import torch

from models.bench.peak import settle

SHORTEST = 0.02
"""Seconds: what is shorter is run several times in a row."""
MOST_IN_A_ROW = 50
PAUSE = 0.005
"""Seconds before each: another library's threads go on looking for work for a while."""

Run = Callable[[], object]
Times = dict[str, tuple[float, ...]]
"""Seconds of one run, a figure for each round, by name."""


def interleaved(
    runs: Mapping[str, Run], *, rounds: int, device: torch.device, shortest: float = SHORTEST
) -> Generator[str, None, Times]:
    """Time every run in every round, in an order that turns by one each round; yields the name before each.

    All of them were run before, so nothing is being made for the first time.
    """
    names, found = list(runs), {name: list[float]() for name in runs}
    in_a_row: dict[str, int] = {}
    for number in range(rounds):
        for name in turned(names, number):
            yield name
            if name not in in_a_row:
                once = _seconds(runs[name], 1, device)
                in_a_row[name] = min(MOST_IN_A_ROW, max(1, math.ceil(shortest / max(once, 1e-9))))
            found[name].append(_seconds(runs[name], in_a_row[name], device))
    return {name: tuple(seconds) for name, seconds in found.items()}


def turned(names: Sequence[str], number: int) -> list[str]:
    """The names from the `number`-th on, then those before it."""
    start = number % max(1, len(names))
    return [*names[start:], *names[:start]]


def medians(times: Times) -> dict[str, float]:
    """Of each name's rounds."""
    return {name: statistics.median(seconds) for name, seconds in times.items()}


def _seconds(run: Run, times: int, device: torch.device) -> float:
    settle(device)
    time.sleep(PAUSE)
    began = time.perf_counter()
    for _ in range(times):
        run()
    settle(device)
    return (time.perf_counter() - began) / times
