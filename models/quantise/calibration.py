"""Rows that a bundle's own sampling gives its nets: what scales are chosen from.

A short sequence of a few classes is drawn by torch in float32 with the bundle's own sampler and guidance, and of all
rows that a net answers on the way, at any step, a bounded sample is kept, the same for the same bundle. Nothing is
quantised here. Halves of an autoencoder are not listened to, since they are never quantised.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from models import alone, drawing
from models.bundle import Bundle
from models.engine import Rows
from models.evaluator import Answering
from models.modulation import ModulationTable
from models.plan import Request
from models.spec import BundleSpec, Codec, Stage
from models.units import Evaluate

KEPT = 128
"""Rows kept of each net."""
DRAWN = 4
"""Short sequences, of the first classes in turn; the null label is heard beside them where guidance asks for it."""
STEPS = 12
"""Steps of a stage, at most: nets that take seconds a row would else be listened to for hours."""


@dataclass(frozen=True)
class Calibration:
    """Rows of each net of a bundle, on the CPU."""

    rows: Mapping[Stage, Rows]

    @property
    def digest(self) -> str:
        """SHA-256 of all rows."""
        found = hashlib.sha256()
        for stage, rows in sorted(self.rows.items()):
            found.update(f"{stage} {len(rows.x)}".encode())
            for tensor in (rows.x, rows.modulation):
                assert tensor is not None
                found.update(tensor.contiguous().numpy().tobytes())
        return found.hexdigest()


@dataclass
class _Listening:
    """A net that remembers a random sample of the rows it answers; each row is as likely to be in it as any other."""

    inner: Answering
    most: int
    seen: int = 0
    kept: list[tuple[Tensor, float, int]] = field(default_factory=list)
    """(C, S, S) on the CPU, time, label."""
    chance: random.Random = field(default_factory=lambda: random.Random(0))

    @property
    def device(self) -> torch.device:
        return self.inner.device

    @property
    def buckets(self) -> tuple[int, ...]:
        return self.inner.buckets

    @property
    def largest(self) -> int:
        return self.inner.largest

    @property
    def caches(self) -> bool:
        return self.inner.caches

    def bucket(self, rows: int) -> int:
        return self.inner.bucket(rows)

    def __call__(self, parts: Sequence[Evaluate]) -> tuple[Tensor, ...]:
        for part in parts:
            for x, time, label in zip(part.x, part.times, part.labels, strict=True):
                self._hear(x, time, label)
        return self.inner(parts)

    def close(self) -> None:
        self.inner.close()

    def _hear(self, x: Tensor, time: float, label: int) -> None:
        place = self.chance.randrange(self.seen + 1)
        self.seen += 1
        if len(self.kept) < self.most:
            self.kept.append((x.cpu().clone(), time, label))
        elif place < self.most:
            self.kept[place] = (x.cpu().clone(), time, label)


def calibrate(bundle: Bundle, *, most: int = KEPT) -> Generator[str, None, Calibration]:
    """Draw a short sequence of each of the first classes, on the first GPU, else the CPU; yields before each.

    Up to `most` rows are kept of a net.
    """
    nets = alone.evaluators(bundle)
    heard = {stage: _Listening(nets[stage], most) for stage in bundle.spec.stages}
    listening: dict[Stage | Codec, Answering] = {**nets}
    listening.update((stage, ear) for stage, ear in heard.items())
    for request in requests(bundle.spec):
        yield "calibrate"
        for _ in alone.run(bundle.spec, request, nets=listening):
            pass
    for net in nets.values():
        net.close()
    return Calibration({stage: _rows(bundle, stage, ear) for stage, ear in heard.items()})


def requests(spec: BundleSpec) -> Iterator[Request]:
    """What is drawn: a grid and the one that goes on from it, with no more steps than `STEPS`."""
    for seed in range(DRAWN):
        label = seed % len(spec.classes) if spec.classes else None
        usual = drawing.default_request(spec, seed=seed, label=label)
        yield replace(
            usual,
            num_frames=min(usual.num_frames, spec.grid**2 + 1),
            coarse_steps=min(usual.coarse_steps, STEPS),
            refine_steps=min(usual.refine_steps, STEPS),
        )


def _rows(bundle: Bundle, stage: Stage, ear: _Listening) -> Rows:
    table = ModulationTable(bundle.net(stage), device=torch.device("cpu"), capacity=len(ear.kept))
    modulation = table.gather([time for _, time, _ in ear.kept], [label for _, _, label in ear.kept])
    return Rows(torch.stack([x for x, _, _ in ear.kept]), modulation)
