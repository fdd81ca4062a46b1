"""What a unit asks of the nets, and how it makes an estimate of the answer.

A unit yields `Evaluate` and is sent the output. `estimate` is the way from a sampler's query to the clean image it
stands for: guidance where it does something, the net's kind of prediction, its learned variance.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import dataclass, field
from enum import StrEnum

import torch
from torch import Tensor

from models.noise import NoiseKey, NoiseSource
from models.plan import Request
from models.samplers import Estimate, Query, Sampling
from models.schedules import Level, denoised
from models.spec import Codec, Mode, NetSpec, Prediction, Stage

GUIDED_AS_RELEASED = 3
"""Output channels that the released loop guides, whatever the number of latent channels."""


class Reuse(StrEnum):
    """Whether a net's deep features are computed or taken from an earlier step of the same rows."""

    NO = "no"
    KEEP = "keep"
    """Compute and keep them."""
    TAKE = "take"
    """Take those that were kept last."""


@dataclass(slots=True)
class Memory:
    """The deep features of one unit's rows, on the device; written and read by whoever answers."""

    rows: dict[int, Tensor] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Evaluate:
    """n rows of one net, each at its own time and label."""

    net: Stage | Codec
    x: Tensor
    """(n, C, S, S) float32."""
    times: tuple[float, ...]
    """Times of the schedule, one a row; of no meaning to an autoencoder."""
    labels: tuple[int, ...]
    reuse: Reuse = Reuse.NO
    memory: Memory | None = None
    """Where features are kept; there is one wherever `reuse` is not NO."""
    first: int = 0
    """Place of the first row in the memory."""


UnitRun = Generator[Evaluate, Tensor, Tensor]
"""Yields evaluations, is sent (n, out, S, S), returns the result."""

Estimating = Generator[Evaluate, Tensor, Estimate]
"""What turns one query into evaluations and their outputs into an estimate."""


@dataclass(frozen=True, slots=True)
class Asker:
    """One net at the service of one unit."""

    stage: Stage
    net: NetSpec
    request: Request
    condition: Tensor | None = None
    """(n, C, S, S): what a refine net sees beside the noisy image; for residual predictions also what is added to."""
    memory: Memory = field(default_factory=Memory)

    def estimate(self, x: Tensor, level: Level, query: int = 0) -> Estimating:
        """The clean images that rows (n, C, S, S) at one level stand for; `query` counts those of a sampling."""
        out = yield from self._output(x, level, self._reuse(query))
        channels = x.shape[1]
        clean = denoised(self.net.prediction, x, out[:, :channels], level)
        if self.net.prediction is Prediction.RESIDUAL:
            assert self.condition is not None, "only refinement has a frame to add a residual to"
            clean = clean + self.condition
        return Estimate(clean, out[:, channels:] if self.net.learned_variance else None)

    def _output(self, x: Tensor, level: Level, reuse: Reuse) -> Generator[Evaluate, Tensor, Tensor]:
        """The net's output, guided where both labels would not give the same."""
        rows, null = len(x), self.net.classes
        label = null if self.request.label is None or not self.net.classes else self.request.label
        seen = x if self.condition is None else torch.cat([x, self.condition], dim=1)
        if not self._guides(label):
            out = yield Evaluate(self.stage, seen, (level.time,) * rows, (label,) * rows, reuse, self.memory)
            return out
        both = torch.cat([seen, seen])
        labels = (label,) * rows + (null,) * rows
        out = yield Evaluate(self.stage, both, (level.time,) * 2 * rows, labels, reuse, self.memory)
        labelled, free = out[:rows], out[rows:]
        count = GUIDED_AS_RELEASED if self.request.mode is Mode.OFFICIAL else x.shape[1]
        guided = free[:, :count] + self.request.guidance_scale * (labelled[:, :count] - free[:, :count])
        return torch.cat([guided, labelled[:, count:]], dim=1)

    def _reuse(self, query: int) -> Reuse:
        """Every n-th query computes deep features; a sampling too short for two rounds computes them always."""
        every = self.request.cache
        steps = self.request.coarse_steps if self.stage is Stage.COARSE else self.request.refine_steps
        if every == 1 or steps < 2 * every:
            return Reuse.NO
        return Reuse.TAKE if query % every else Reuse.KEEP

    def _guides(self, label: int) -> bool:
        """Sound refinement follows the coarse frame; the released loop guides both stages alike."""
        real = label != self.net.classes and self.request.guidance_scale != 1
        return real and (self.stage is Stage.COARSE or self.request.mode is Mode.OFFICIAL)


def drive(sampling: Sampling, answer: Callable[[Query, int], Estimating]) -> UnitRun:
    """Run a sampler; `answer(query, i)` answers its i-th query."""
    query, count = next(sampling), 0
    while True:
        estimate = yield from answer(query, count)
        try:
            query = sampling.send(estimate)
        except StopIteration as end:
            drawn: Tensor = end.value
            return drawn
        count += 1


def draw(noise: NoiseSource, stream: str, shape: tuple[int, ...], step: int) -> Tensor:
    """One draw of a stream; the argument order suits `partial`."""
    return noise(NoiseKey(stream, step, shape))
