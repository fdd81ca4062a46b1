"""Recipes: everything that decides what a training run makes, frozen and validated.

A recipe describes one net (coarse or refine), its data and its optimisation; presets are the recipes of the bundle
that ships. How long a run lasts is a `Plan`: it is kept with the checkpoint, so that a run can be told to finish early.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from models.engines import Precision
from models.spec import NetSpec, Prediction, ScheduleName, Stage

_NOT_WRITTEN_YET = "0" * 64


class Recipe(BaseModel):
    """One net, what it is shown and how it is optimised. Sizes are sides of squares in pixels."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    stage: Stage
    domains: tuple[str, ...]
    """The classes, in the order of their labels."""

    patch: int
    width: int
    depth: int
    heads: int
    grid: int = 4
    coarse_size: int = 16
    refined_size: int = 128

    sequences: int
    """Sequences per domain that are rendered ahead."""
    clip_frames: int
    """Frames of each."""
    seed: int = 0

    precision: Literal[Precision.FP32, Precision.BF16] = Precision.FP32
    """Of the forward pass (autocast); weights, sums and averages stay float32. On CPUs without fast bfloat16 kernels
    for small nets float32 is the faster one."""
    batch: int = 16
    shards: int = 2
    """Parts of a batch that threads work on side by side; the sum of their gradients does not depend on the threads."""
    steps: int
    learning_rate: float
    warm_up: int = 100
    decay_share: Annotated[float, Field(ge=0, le=1)] = 0.4
    """The learning rate falls to zero over this last share of the steps."""
    betas: tuple[float, float] = (0.9, 0.95)
    weight_decay: float = 0.0
    clip: float = 1.0
    ema: float = 0.999

    time_mean: float
    """Times are sigmoid(normal(time_mean, 1))."""
    smallest_time: float = 0.05
    """The loss is weighted by 1 / max(t, smallest_time)^2."""
    seam_weight: float = 0.0
    """Weight of the squared jumps of the error across the borders of patches."""
    seam_from: int = 0
    """The step from which they count."""
    label_dropout: float = 0.1
    prefix_share: float = 0.5
    """Coarse: share of the grids whose first 1..grid-1 rows are given."""
    low_noise: float
    """Given frames (coarse) or low-resolution frames (refine) get noise of a std drawn from 0..low_noise."""

    @property
    def frame_size(self) -> int:
        """Side of the frames that this net draws."""
        return self.coarse_size if self.stage is Stage.COARSE else self.refined_size

    @property
    def net(self) -> NetSpec:
        """The net to train; its digest is that of no file yet."""
        coarse = self.stage is Stage.COARSE
        return NetSpec(
            file=f"{self.stage}.safetensors",
            sha256=_NOT_WRITTEN_YET,
            input_size=self.grid * self.coarse_size if coarse else self.refined_size,
            patch=self.patch,
            in_channels=3 if coarse else 6,
            out_channels=3,
            width=self.width,
            depth=self.depth,
            heads=self.heads,
            classes=len(self.domains),
            prediction=Prediction.X if coarse else Prediction.RESIDUAL,
            schedule=ScheduleName.FLOW,
        )


@dataclass(frozen=True, slots=True)
class Plan:
    """When the learning rate starts to fall, and when the run ends; both in steps."""

    decay_from: int
    steps: int

    @classmethod
    def of(cls, recipe: Recipe) -> Plan:
        """The whole run as the recipe has it."""
        return cls(decay_from=recipe.steps - round(recipe.decay_share * recipe.steps), steps=recipe.steps)

    def finish(self, step: int, *, within: int) -> Plan:
        """Start to decay at `step` and end `within` steps later."""
        return Plan(decay_from=min(step, self.decay_from), steps=step + within)

    def factor(self, step: int, *, warm_up: int) -> float:
        """Learning rate at `step`, as a share of the highest: a ramp up, a plain, a ramp down to zero."""
        rising = min(1.0, (step + 1) / max(1, warm_up))
        falling = (self.steps - step) / max(1, self.steps - self.decay_from)
        return min(rising, max(0.0, falling), 1.0)


PRESETS: dict[str, Recipe] = {
    recipe.name: recipe
    for recipe in (
        Recipe(
            name="demo-coarse", stage=Stage.COARSE, domains=("lava", "sky"),
            patch=4, width=160, depth=6, heads=5, sequences=12_000, clip_frames=64,
            steps=6_000, learning_rate=1.2e-3, time_mean=0.8, low_noise=0.04,
        ),
        Recipe(
            name="demo-refine", stage=Stage.REFINE, domains=("lava", "sky"),
            patch=8, width=128, depth=4, heads=4, sequences=6_000, clip_frames=4,
            steps=4_500, learning_rate=1.5e-3, time_mean=1.0, smallest_time=0.25, low_noise=0.1,
            seam_weight=4.0, seam_from=3874,
        ),
    )
}  # fmt: skip
"""The two nets of the bundle that ships, by name."""
