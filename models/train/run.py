"""The training loop as a generator of step records; whoever drives it decides when to save, show or stop.

All state is in `Training`; `state_dict` and `restored` round-trip it exactly, so a run that was killed and resumed
gives, bit for bit, what the unbroken one gives. What is made small is said in `loss`, what is shown in `batches`.
"""

from __future__ import annotations

import copy
import math
import os
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.optim import AdamW

from models.nn.dit import DiT
from models.train.batches import Batch, batch
from models.train.data import Data
from models.train.loss import Objective
from models.train.recipe import Plan, Recipe
from models.train.start import fresh_net, warm
from models.train.team import Team

_CPU = torch.device("cpu")


class Diverged(ValueError):
    """The loss is no number any more."""

    def __init__(self, step: int, loss: float) -> None:
        remedy = "go on from the last save with data that are in order, or start again with a smaller --learning-rate"
        super().__init__(f"step {step}: found a loss of {loss}, expected a finite one; {remedy}")


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
    def fresh(
        cls, recipe: Recipe, *, weights: Mapping[str, Tensor] | None = None, device: torch.device = _CPU
    ) -> Training:
        """At step 0, initialised from the recipe's seed and, where they are given, from another net's weights."""
        net = fresh_net(recipe)
        if weights is not None:
            warm(net, weights)
        net = net.to(device)
        optimiser = AdamW(
            net.parameters(), lr=recipe.learning_rate, betas=recipe.betas, weight_decay=recipe.weight_decay
        )
        return cls(recipe, Plan.of(recipe), net, copy.deepcopy(net).requires_grad_(False), optimiser)

    @classmethod
    def restored(cls, path: Path, *, device: torch.device = _CPU) -> Training:
        """The state that `save` wrote."""
        stored = torch.load(path, weights_only=True, map_location=_CPU)
        training = cls.fresh(Recipe.model_validate(stored["recipe"]), device=device)
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
            with aside.open("wb") as file:
                torch.save(self.state_dict(), file)
                file.flush()
                os.fsync(file.fileno())
            aside.replace(path)
        finally:
            aside.unlink(missing_ok=True)


def run(training: Training, *, data: Data, threads: int = 1, team: Team | None = None) -> Iterator[Step]:
    """Steps until the plan's end. The state is consistent whenever a step is yielded; threads change no bit of it."""
    team = Team() if team is None else team
    share = team.share(training.recipe.batch)
    with ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        while training.step < training.plan.steps:
            began = time.perf_counter()
            rate = _set_rate(training)
            rows = batch(training.recipe, training.step, data=data, rows=share)
            loss = _descend(training, rows, pool, team)
            training.step += 1
            _follow(training)
            yield Step(training.step, loss, rate, time.perf_counter() - began)


def _set_rate(training: Training) -> float:
    recipe = training.recipe
    rate = recipe.learning_rate * training.plan.factor(training.step, warm_up=recipe.warm_up)
    for group in training.optimiser.param_groups:
        group["lr"] = rate
    return rate


def _descend(training: Training, rows: Batch, pool: Executor, team: Team) -> float:
    """One step of the optimiser: each part's gradients are made by one thread, and summed in the parts' order."""
    recipe = training.recipe
    parts = rows.split(min(recipe.shards * recipe.accumulate, len(rows.x)))
    made = pool.map(partial(_gradients, training.net, _objective(training), team.device), parts)
    loss, total = next(made)
    for more, gradients in made:
        loss += more
        total = [whole.add_(part) for whole, part in zip(total, gradients, strict=True)]
    facts = torch.tensor([loss, float(rows.counted)], dtype=torch.float64, device=team.device)
    loss, numbers = (float(fact) for fact in team.sum([facts])[0])
    if not math.isfinite(loss):
        raise Diverged(training.step + 1, loss)
    counted = max(1, round(numbers))
    for parameter, gradient in zip(training.net.parameters(), team.sum(total), strict=True):
        parameter.grad = gradient / counted
    nn.utils.clip_grad_norm_(training.net.parameters(), recipe.clip)
    training.optimiser.step()
    return loss / counted


def _objective(training: Training) -> Objective:
    recipe = training.recipe
    seam_weight = recipe.seam_weight if training.step >= recipe.seam_from else 0.0
    return Objective(recipe.net, recipe.smallest_time, seam_weight=seam_weight, precision=recipe.precision)


def _gradients(net: DiT, objective: Objective, device: torch.device, rows: Batch) -> tuple[float, list[Tensor]]:
    loss = objective.of(net, rows.to(device))
    return float(loss.detach()), list(torch.autograd.grad(loss, list(net.parameters())))


@torch.no_grad()
def _follow(training: Training) -> None:
    """Move the average towards the net; early on it follows closely, so that it forgets its start."""
    decay = min(training.recipe.ema, (1 + training.step) / (10 + training.step))
    for slow, fast in zip(training.ema.parameters(), training.net.parameters(), strict=True):
        slow.lerp_(fast, 1 - decay)
