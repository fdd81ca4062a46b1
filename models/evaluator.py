"""From evaluations to engine rows: modulation by (time, label), packing, padding to a bucket, splitting.

This is the one place that owns padding. It answers with tensors that are the caller's to keep, since an engine's own
output is only valid until its next run. An autoencoder's half is a net without time and label, run row by row.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Protocol

import torch
from torch import Tensor, nn

from models.engines import Engine, Rows
from models.nn.dit import DiT
from models.spec import Codec, Stage
from models.units.asking import Evaluate

Key = tuple[float, int]
"""(time of the schedule, label)."""

_MODULATION_BATCH = 8
"""Rows made at a time: a linear layer's result is only independent of its batch from four rows on."""


class Answering(Protocol):
    """One net that answers evaluations, many at a time."""

    @property
    def device(self) -> torch.device:
        """Where it works and answers."""

    @property
    def largest(self) -> int:
        """Most rows of one call."""

    def bucket(self, rows: int) -> int:
        """Rows that `rows` are padded to; they are at most `largest`."""

    def __call__(self, parts: Sequence[Evaluate]) -> tuple[Tensor, ...]:
        """Run the rows of all parts, at most `largest` together: an output (n, out, S, S) for each part."""

    def close(self) -> None:
        """Give the device's memory back; repeat-safe."""


Nets = Mapping[Stage | Codec, Answering]
"""The nets of one bundle."""


class Evaluator:
    """One DiT behind one engine."""

    def __init__(self, net: DiT, engine: Engine) -> None:
        """`net` is the float32 net the engine was made from; only its modulation half is used."""
        self.engine = engine
        self._modulation = ModulationTable(net, device=engine.device)

    @property
    def device(self) -> torch.device:
        """The engine's."""
        return self.engine.device

    @property
    def largest(self) -> int:
        """Rows of the largest bucket."""
        return self.engine.buckets[-1]

    def bucket(self, rows: int) -> int:
        """The smallest bucket that holds `rows`, which is at most `largest`."""
        return next(size for size in self.engine.buckets if size >= rows)

    def __call__(self, parts: Sequence[Evaluate]) -> tuple[Tensor, ...]:
        """Run the rows of all parts, at most `largest` together: an output (n, out, S, S) for each part."""
        x = torch.cat([part.x for part in parts]).to(self.engine.device)
        times = [time for part in parts for time in part.times]
        labels = [label for part in parts for label in part.labels]
        padding = self.bucket(len(x)) - len(x)
        if padding:
            x = torch.cat([x, x[-1:].expand(padding, -1, -1, -1)])
        times, labels = times + times[-1:] * padding, labels + labels[-1:] * padding
        out = self.engine.run(Rows(x, self._modulation.gather(times, labels)))[: len(x) - padding].clone()
        return torch.split(out, [len(part.times) for part in parts])

    def close(self) -> None:
        """Close the engine."""
        self.engine.close()


class CodecEvaluator:
    """One half of an autoencoder, in float32, a row at a time: a convolution's bits may depend on its batch."""

    largest = 1

    def __init__(self, half: nn.Module, *, device: torch.device) -> None:
        """Take the half over: it is moved to `device`."""
        self.device = device
        self._half: nn.Module | None = half.eval().to(device)

    def bucket(self, rows: int) -> int:
        """No padding."""
        return rows

    @torch.inference_mode()
    def __call__(self, parts: Sequence[Evaluate]) -> tuple[Tensor, ...]:
        """The rows of all parts, one by one."""
        assert self._half is not None, "the autoencoder is closed"
        return tuple(torch.cat([self._half(row[None].to(self.device)) for row in part.x]) for part in parts)

    def close(self) -> None:
        """Let the weights go."""
        self._half = None


def take(evaluation: Evaluate, rows: slice) -> Evaluate:
    """Some rows of an evaluation."""
    return Evaluate(evaluation.net, evaluation.x[rows], evaluation.times[rows], evaluation.labels[rows])


class ModulationTable:
    """(time, label) -> adaLN rows of one net, kept on the device, least recently used first to go.

    Rows are made in float32 on the CPU and always in batches of one size, so a row's bits do not depend on what else
    was asked for.
    """

    def __init__(self, net: DiT, *, device: torch.device, capacity: int = 4096) -> None:
        """`capacity` counts rows of (6*depth + 2) * D floats."""
        self._net = net.eval().float().cpu()
        self._device, self._capacity = device, capacity
        self._rows: OrderedDict[Key, Tensor] = OrderedDict()

    def gather(self, times: Sequence[float], labels: Sequence[int]) -> Tensor:
        """Schedule times and labels of n rows -> (n, 6*depth + 2, D)."""
        keys = list(zip(times, labels, strict=True))
        missing = [key for key in dict.fromkeys(keys) if key not in self._rows]
        for start in range(0, len(missing), _MODULATION_BATCH):
            self._make(missing[start : start + _MODULATION_BATCH])
        for key in keys:
            self._rows.move_to_end(key)
        rows = torch.stack([self._rows[key] for key in keys])
        while len(self._rows) > self._capacity:
            self._rows.popitem(last=False)
        return rows

    @torch.inference_mode()
    def _make(self, keys: Sequence[Key]) -> None:
        padded = [*keys, *[keys[-1]] * (_MODULATION_BATCH - len(keys))]
        times = torch.tensor([time * self._net.spec.time_scale for time, _ in padded], dtype=torch.float32)
        rows = self._net.modulation(times, torch.tensor([label for _, label in padded]))
        self._rows.update(zip(keys, rows.to(self._device).unbind(0), strict=False))
