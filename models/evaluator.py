"""From evaluations to engine rows: modulation by (time, label), packing, padding to a bucket, splitting.

This is the one place that owns padding. It answers with tensors that are the caller's to keep, since an engine's own
output is only valid until its next run. An autoencoder's half is a net without time and label, run row by row.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Protocol

import torch
from torch import Tensor

from models.engine import CachingEngine, Engine, Rows
from models.modulation import ModulationTable
from models.nn.dit import DiT
from models.spec import Codec, Stage
from models.units.asking import Evaluate, Memory, Reuse


class Answering(Protocol):
    """One net that answers evaluations, many at a time."""

    @property
    def device(self) -> torch.device:
        """Where it works and answers."""

    @property
    def buckets(self) -> tuple[int, ...]:
        """Rows that it can be run with, ascending."""

    @property
    def largest(self) -> int:
        """Most rows of one call."""

    @property
    def caches(self) -> bool:
        """Whether it can reuse deep features."""

    def bucket(self, rows: int) -> int:
        """Rows that `rows` are padded to; they are at most `largest`."""

    def __call__(self, parts: Sequence[Evaluate]) -> tuple[Tensor, ...]:
        """Run the rows of all parts, at most `largest` together: an output (n, out, S, S) for each part."""

    def close(self) -> None:
        """Give the device's memory back; repeat-safe."""


Nets = Mapping[Stage | Codec, Answering]
"""The nets of one bundle."""


class _Behind:
    """A net behind one engine."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine

    @property
    def device(self) -> torch.device:
        """The engine's."""
        return self.engine.device

    @property
    def buckets(self) -> tuple[int, ...]:
        """The engine's."""
        return self.engine.buckets

    @property
    def largest(self) -> int:
        """Rows of the largest bucket."""
        return self.engine.buckets[-1]

    def bucket(self, rows: int) -> int:
        """The smallest bucket that holds `rows`, which is at most `largest`."""
        return next(size for size in self.engine.buckets if size >= rows)

    def close(self) -> None:
        """Close the engine."""
        self.engine.close()


class Evaluator(_Behind):
    """One DiT behind one engine."""

    def __init__(self, net: DiT | ModulationTable, engine: Engine) -> None:
        """`net`: the float32 net the engine was made from, of which only the modulation half is used; or its rows."""
        super().__init__(engine)
        table = net if isinstance(net, ModulationTable) else ModulationTable(net, device=engine.device)
        self._modulation = table

    def beside(self, engine: Engine) -> Evaluator:
        """The same net behind another engine on this device, with the modulation rows that were made already."""
        return Evaluator(self._modulation, engine)

    @property
    def caches(self) -> bool:
        """Whether the engine can reuse deep features."""
        return isinstance(self.engine, CachingEngine)

    def __call__(self, parts: Sequence[Evaluate]) -> tuple[Tensor, ...]:
        """Run the rows of all parts, at most `largest` together: an output (n, out, S, S) for each part.

        Parts that take features and parts that compute them are two runs.
        """
        taking = [place for place, part in enumerate(parts) if part.reuse is Reuse.TAKE]
        computing = [place for place, part in enumerate(parts) if part.reuse is not Reuse.TAKE]
        answers: dict[int, Tensor] = {}
        for places in (computing, taking):
            if places:
                chosen = [parts[place] for place in places]
                out = self._run(chosen)
                answers.update(zip(places, torch.split(out, [len(part.times) for part in chosen]), strict=True))
        return tuple(answers[place] for place in range(len(parts)))

    def _run(self, parts: Sequence[Evaluate]) -> Tensor:
        """Parts that all take features, or none of which does: their outputs in one tensor that is the caller's."""
        x = torch.cat([part.x for part in parts]).to(self.engine.device)
        times = [time for part in parts for time in part.times]
        labels = [label for part in parts for label in part.labels]
        padding = self.bucket(len(x)) - len(x)
        times, labels = times + times[-1:] * padding, labels + labels[-1:] * padding
        rows = Rows(_padded(x, padding), self._modulation.gather(times, labels))
        return self._answer(parts, rows, padding)[: len(x)].clone()

    def _answer(self, parts: Sequence[Evaluate], rows: Rows, padding: int) -> Tensor:
        if all(part.reuse is Reuse.NO for part in parts):
            return self.engine.run(rows)
        assert isinstance(self.engine, CachingEngine), "whoever admits jobs looks at `caches`"
        kept = [(part, part.first + row) for part in parts for row in range(len(part.times))]
        if parts[0].reuse is Reuse.TAKE:
            deep = torch.stack([_memory(part).rows[place] for part, place in kept])
            return self.engine.run_reusing(rows, _padded(deep, padding))
        out, deep = self.engine.run_keeping(rows)
        for (part, place), features in zip(kept, deep.clone(), strict=False):
            if part.reuse is Reuse.KEEP:
                _memory(part).rows[place] = features
        return out


class CodecEvaluator(_Behind):
    """Half an autoencoder behind one engine with one bucket, of one row."""

    caches = True
    """It has none to compute twice."""

    def __call__(self, parts: Sequence[Evaluate]) -> tuple[Tensor, ...]:
        """The rows of all parts, one by one."""
        return tuple(torch.cat([self._one(row[None]) for row in part.x]) for part in parts)

    def _one(self, row: Tensor) -> Tensor:
        return self.engine.run(Rows(row.to(self.device))).clone()


def take(evaluation: Evaluate, rows: slice) -> Evaluate:
    """Some rows of an evaluation."""
    return replace(
        evaluation,
        x=evaluation.x[rows],
        times=evaluation.times[rows],
        labels=evaluation.labels[rows],
        first=evaluation.first + rows.start,
    )


def _padded(rows: Tensor, padding: int) -> Tensor:
    """The last row once more, `padding` times."""
    return torch.cat([rows, rows[-1:].expand(padding, *rows.shape[1:])]) if padding else rows


def _memory(part: Evaluate) -> Memory:
    assert part.memory is not None, "features are kept somewhere"
    return part.memory
