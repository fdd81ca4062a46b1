"""The adaLN rows of a net by (time, label): made once, kept on the device, gathered for each batch.

They follow from time and label alone, so a server computes that half of a net once and feeds it to engines as an input;
what is made and kept is float32 whatever the engine computes in.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Sequence

import torch
from torch import Tensor

from models import devices
from models.nn.dit import DiT

Key = tuple[float, int]
"""(time of the schedule, label)."""

TABLE_BYTES = 1 << 30
"""Of one net's modulation rows."""
_MODULATION_BATCH = 8
"""Rows made at a time: a linear layer's result is only independent of its batch from four rows on."""


class ModulationTable:
    """(time, label) -> adaLN rows of one net, kept in one tensor on the device, least recently used first to go.

    Rows are made in float32 on the CPU and always in batches of one size, so a row's bits do not depend on what else
    was asked for.
    """

    def __init__(self, net: DiT, *, device: torch.device, capacity: int | None = None) -> None:
        """`capacity` counts rows of (6*depth + 2) * D floats; by default as many as `TABLE_BYTES` hold."""
        self._net = net.eval().float().cpu()
        self._device = device
        self._shape = (6 * net.spec.depth + 2, net.spec.width)
        self._capacity = capacity or max(1, TABLE_BYTES // (4 * math.prod(self._shape)))
        self._slots: OrderedDict[Key, int] = OrderedDict()
        self._rows = torch.empty(0, *self._shape, device=device)

    def gather(self, times: Sequence[float], labels: Sequence[int]) -> Tensor:
        """Schedule times and labels of n rows -> (n, 6*depth + 2, D)."""
        keys = list(zip(times, labels, strict=True))
        asked = dict.fromkeys(keys)
        missing = [key for key in asked if key not in self._slots]
        for key in asked:
            if key in self._slots:
                self._slots.move_to_end(key)  # so that none of these makes room for another of them
        self._make_room(len(missing), most=max(self._capacity, len(asked)))
        for start in range(0, len(missing), _MODULATION_BATCH):
            self._make(missing[start : start + _MODULATION_BATCH])
        index = torch.tensor([self._slots[key] for key in keys])
        return self._rows.index_select(0, devices.sent(index, self._device))

    def _make_room(self, more: int, *, most: int) -> None:
        """The table grows by doubling, to `most` rows."""
        needed = len(self._slots) + more
        if len(self._rows) < min(needed, most):
            rows = torch.empty(min(most, max(needed, 2 * len(self._rows))), *self._shape, device=self._device)
            rows[: len(self._rows)] = self._rows
            self._rows = rows

    @torch.inference_mode()
    def _make(self, keys: Sequence[Key]) -> None:
        padded = [*keys, *[keys[-1]] * (_MODULATION_BATCH - len(keys))]
        times = torch.tensor([time * self._net.spec.time_scale for time, _ in padded], dtype=torch.float32)
        rows = self._net.modulation(times, torch.tensor([label for _, label in padded]))
        slots = torch.tensor([self._slot(key) for key in keys])
        self._rows.index_copy_(0, devices.sent(slots, self._device), devices.sent(rows[: len(keys)], self._device))

    def _slot(self, key: Key) -> int:
        """A place in the table: a free one, else that of the row that was not asked for the longest."""
        free = len(self._slots)
        self._slots[key] = free if free < len(self._rows) else self._slots.popitem(last=False)[1]
        return self._slots[key]
