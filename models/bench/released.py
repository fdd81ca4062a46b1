"""The nets of a bundle evaluated as the released loop does: row by row, each twice in one batch, nothing kept.

Behind the same face as ours, so that whole jobs run either way and their frames can be compared. Where guidance is
real, the two rows of it are the two of the batch.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from models.bench import peers
from models.evaluator import take
from models.nn.dit import DiT
from models.units.asking import Evaluate

DEBUG_DECODES = 5
"""Decodings of each grid that the released program does for its own records."""
ROWS = 2
"""Of every run."""
WHOLE = 1 << 16
"""It takes any number of rows, one after another."""


class ReleasedNet:
    """One DiT on one device."""

    buckets = (WHOLE,)
    largest = WHOLE
    caches = False

    def __init__(self, net: DiT, *, device: torch.device) -> None:
        """Take the net over."""
        self.device, self._net = device, net.to(device)

    def bucket(self, rows: int) -> int:
        """No padding."""
        return rows

    def __call__(self, parts: Sequence[Evaluate]) -> tuple[Tensor, ...]:
        """The rows of all parts."""
        return tuple(self._part(part) for part in parts)

    def close(self) -> None:
        """Let the weights go."""
        del self._net

    def _part(self, part: Evaluate) -> Tensor:
        if guided(part):
            half = len(part.times) // 2
            pairs = [self._pair(take_pair(part, row)) for row in range(half)]
            return torch.cat([pair[:1] for pair in pairs] + [pair[1:] for pair in pairs])
        return torch.cat([self._one(one) for one in rows_of(part)])

    def _one(self, one: Evaluate) -> Tensor:
        return peers.released(self._net, one.x.to(self.device), time=one.times[0], label=one.labels[0])

    def _pair(self, pair: Evaluate) -> Tensor:
        return peers.released_pair(self._net, pair.x.to(self.device), time=pair.times[0], labels=pair.labels)


def guided(part: Evaluate) -> bool:
    """Whether its second half are the same images under another label."""
    half = len(part.labels) // 2
    return len(part.labels) % 2 == 0 and part.labels[:half] != part.labels[half:]


def runs(part: Evaluate) -> int:
    """How often the net is run for it."""
    return len(part.times) // 2 if guided(part) else len(part.times)


def rows_of(part: Evaluate) -> Iterator[Evaluate]:
    """One by one."""
    return (take(part, slice(row, row + 1)) for row in range(len(part.times)))


def take_pair(part: Evaluate, row: int) -> Evaluate:
    """The labelled and the free row of one image."""
    half = len(part.times) // 2
    one, other = take(part, slice(row, row + 1)), take(part, slice(half + row, half + row + 1))
    return Evaluate(part.net, torch.cat([one.x, other.x]), one.times + other.times, one.labels + other.labels)
