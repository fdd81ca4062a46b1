"""Modulation rows by (time, label): whatever was asked for before, and whatever has gone, a row's bits are its own."""

from __future__ import annotations

import random

import pytest
import torch
from torch import Tensor

from models.modulation import Key, ModulationTable
from models.nn.dit import DiT
from models.spec import Stage
from tests.tiny import awake, tiny_net

CPU = torch.device("cpu")


class Counting(DiT):
    """Counts the rows that are made of it."""

    made = 0

    def modulation(self, t: Tensor, label: Tensor | None = None) -> Tensor:
        self.made += 1
        return super().modulation(t, label)


@pytest.fixture
def net() -> Counting:
    made = Counting(tiny_net(stage=Stage.COARSE))
    awake(made)
    return made


def gathered(table: ModulationTable, keys: list[Key]) -> Tensor:
    return table.gather([time for time, _ in keys], [label for _, label in keys])


def alone(net: DiT, key: Key) -> Tensor:
    return gathered(ModulationTable(net, device=CPU), [key])[0]


@pytest.mark.parametrize("capacity", [None, 40, 9, 1])
def test_a_rows_bits_depend_on_nothing_else(net: Counting, capacity: int | None) -> None:
    dice = random.Random(3)
    every: list[Key] = [(dice.random(), dice.randrange(3)) for _ in range(25)]
    expected = {key: alone(net, key) for key in every}
    table = ModulationTable(net, device=CPU, capacity=capacity)
    for _ in range(60):
        keys = dice.choices(every, k=dice.randrange(1, 17))
        for key, row in zip(keys, gathered(table, keys), strict=True):
            assert torch.equal(row, expected[key])


def test_rows_are_made_once_while_there_is_room_and_the_oldest_go_first(net: Counting) -> None:
    table = ModulationTable(net, device=CPU, capacity=8)
    first: list[Key] = [(step / 8, 0) for step in range(8)]
    gathered(table, first)
    gathered(table, first[::-1])
    assert net.made == 1
    gathered(table, [(0.99, 1)])  # in place of the one that was not asked for the longest, the last of the first
    assert net.made == 2
    gathered(table, first[:-1])
    assert net.made == 2
    gathered(table, [first[-1]])
    assert net.made == 3


def test_an_answer_is_the_callers(net: Counting) -> None:
    table = ModulationTable(net, device=CPU, capacity=2)
    row = gathered(table, [(0.5, 0)])
    kept = row.clone()
    gathered(table, [(0.1, 0), (0.2, 1)])
    assert torch.equal(row, kept)
