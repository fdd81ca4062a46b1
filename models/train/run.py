"""The training loop as a generator of step records; whoever drives it decides when to save, show or stop.

Rectified flow with x-prediction: the loss is the squared error of the clean image over max(t, t_min)^2, which is the
squared error of the velocity. All state is in `Training`; `state_dict` and `restored` round-trip it exactly, so a run
that was killed and resumed gives, bit for bit, what the unbroken one gives.
"""

from __future__ import annotations

import copy
import os
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.optim import AdamW

from models.engines import Precision
from models.nn.dit import DiT
from models.spec import Stage
from models.train.batches import Batch, Data, batch
from models.train.positions import frame_aware
from models.train.recipe import Plan, Recipe


@dataclass(frozen=True, slots=True)
class Step:
    """What one step did."""

    step: int
    """Steps done, this one included."""
    loss: float
    learning_rate: float
    seconds: float


@dataclass(slots=True)
class Training:
    """A run's whole state."""

    recipe: Recipe
    plan: Plan
    net: DiT
    ema: DiT
    optimiser: AdamW
    step: int = 0

    @classmethod
    def fresh(cls, recipe: Recipe) -> Training:
        """At step 0, initialised from the recipe's seed."""
        with torch.random.fork_rng():
            torch.manual_seed(recipe.seed)
            net = DiT(recipe.net)
        if recipe.stage is Stage.COARSE:
            net.pos_embed.data = frame_aware(recipe.width, tokens=net.spec.input_size // recipe.patch, grid=recipe.grid)
        optimiser = AdamW(
            net.parameters(), lr=recipe.learning_rate, betas=recipe.betas, weight_decay=recipe.weight_decay
        )
        return cls(recipe, Plan.of(recipe), net, copy.deepcopy(net).requires_grad_(False), optimiser)

    @classmethod
    def restored(cls, path: Path) -> Training:
        """The state that `save` wrote."""
        stored = torch.load(path, weights_only=True)
        training = cls.fresh(Recipe.model_validate(stored["recipe"]))
        training.plan = Plan(**stored["plan"])
        training.net.load_state_dict(stored["net"])
        training.ema.load_state_dict(stored["ema"])
        training.optimiser.load_state_dict(stored["optimiser"])
        training.step = stored["step"]
        return training

    def state_dict(self) -> dict[str, object]:
        """Tensors and plain values only. The step is also the state of all draws: see `batches`."""
        return {
            "recipe": self.recipe.model_dump(mode="json"),
            "plan": asdict(self.plan),
            "net": self.net.state_dict(),
            "ema": self.ema.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "step": self.step,
        }

    def save(self, path: Path) -> None:
        """Write aside, then rename: a reader sees the old state or the new one."""
        path.parent.mkdir(parents=True, exist_ok=True)
        aside = path.with_name(f".{path.name}.{os.getpid()}")
        try:
            torch.save(self.state_dict(), aside)
            aside.replace(path)
        finally:
            aside.unlink(missing_ok=True)


def run(training: Training, *, data: Data, threads: int = 1) -> Iterator[Step]:
    """Steps until the plan's end. The state is consistent whenever a step is yielded; threads change no bit of it."""
    with ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        while training.step < training.plan.steps:
            began = time.perf_counter()
            rate = _set_rate(training)
            loss = _descend(training, batch(training.recipe, training.step, data=data), pool)
            training.step += 1
            _follow(training)
            yield Step(training.step, loss, rate, time.perf_counter() - began)


def loss_of(
    net: DiT,
    rows: Batch,
    *,
    smallest_time: float,
    time_scale: float,
    seam_weight: float = 0.0,
    precision: Precision = Precision.FP32,
) -> Tensor:
    """Sum over the pixels that count of |x - net(x_t)|^2 / max(t, smallest_time)^2.

    Patches are drawn apart, so their errors meet in steps; `seam_weight` times the squares of these steps are added.
    The net that answers best is the same one.
    """
    with torch.autocast(rows.x.device.type, dtype=torch.bfloat16, enabled=precision is Precision.BF16):
        drawn = net(rows.x, rows.times * time_scale, rows.labels)
    out = drawn.float() + rows.base
    weight = rows.weight / rows.times[:, None, None, None].clamp(min=smallest_time) ** 2
    error = weight.sqrt() * (out - rows.clean)
    loss: Tensor = (error**2).sum()
    return loss + seam_weight * _seams(error, net.spec.patch) if seam_weight else loss


def _seams(error: Tensor, patch: int) -> Tensor:
    """Sum of the squared jumps of (B, C, S, S) across the borders of patches."""
    before, after = slice(patch - 1, -1, patch), slice(patch, None, patch)
    down = error[:, :, after] - error[:, :, before]
    across = error[..., after] - error[..., before]
    return (down**2).sum() + (across**2).sum()


def _set_rate(training: Training) -> float:
    recipe = training.recipe
    rate = recipe.learning_rate * training.plan.factor(training.step, warm_up=recipe.warm_up)
    for group in training.optimiser.param_groups:
        group["lr"] = rate
    return rate


def _descend(training: Training, rows: Batch, pool: Executor) -> float:
    """One step of the optimiser: each shard's gradients are made by one thread, and summed in the shards' order."""
    recipe = training.recipe
    seam_weight = recipe.seam_weight if training.step >= recipe.seam_from else 0.0
    loss = partial(
        loss_of,
        smallest_time=recipe.smallest_time,
        time_scale=recipe.net.time_scale,
        seam_weight=seam_weight,
        precision=recipe.precision,
    )
    parts = list(pool.map(partial(_gradients, training.net, loss), rows.split(recipe.shards)))
    for index, parameter in enumerate(training.net.parameters()):
        parameter.grad = torch.stack([gradients[index] for _, gradients in parts]).sum(0) / rows.counted
    nn.utils.clip_grad_norm_(training.net.parameters(), recipe.clip)
    training.optimiser.step()
    return sum(loss for loss, _ in parts) / rows.counted


def _gradients(net: DiT, loss_of_part: Callable[[DiT, Batch], Tensor], rows: Batch) -> tuple[float, tuple[Tensor, ...]]:
    loss = loss_of_part(net, rows)
    return float(loss.detach()), torch.autograd.grad(loss, list(net.parameters()))


@torch.no_grad()
def _follow(training: Training) -> None:
    """Move the average towards the net; early on it follows closely, so that it forgets its start."""
    decay = min(training.recipe.ema, (1 + training.step) / (10 + training.step))
    for slow, fast in zip(training.ema.parameters(), training.net.parameters(), strict=True):
        slow.lerp_(fast, 1 - decay)
