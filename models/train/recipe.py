"""Recipes: everything that decides what a training run makes, frozen and validated.

A recipe describes one net (coarse or refine), its data and its optimisation; it is kept with the run's state, so a
field that is added later must have a default that leaves older runs as they are. How long a run lasts is a `Plan`: it
is kept with the state too, so that a run can be told to finish early.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from models.engine import Precision
from models.presets import time_scale
from models.spec import KnownRows, NetSpec, Prediction, ScheduleName, Stage

SMALLEST_DEGRADED = 8
"""Smallest frame that the widest blur can be mirrored in."""

_NOT_WRITTEN_YET = "0" * 64


class Degradation(StrEnum):
    """What a net that refines is shown for a low-resolution frame."""

    SMALL = "small"
    """The frame as it looks when it is drawn or averaged that small, with a touch of noise."""
    PUBLISHED = "published"
    """The frame made small and large again, with noise and at times a blur: see `models.train.degradation`."""


class Draws(StrEnum):
    """What one generator of random numbers is for."""

    STEP = "step"
    """All rows of a step."""
    ROW = "row"
    """One row of one step, so that processes can share a step's rows and each makes its own only."""


class BadRecipe(ValueError):
    """A recipe that cannot be followed; the message names each field."""

    @classmethod
    def of(cls, error: ValidationError) -> BadRecipe:
        """One line for all that pydantic found."""
        found = (": ".join([*map(str, one["loc"]), one["msg"].removeprefix("Value error, ")]) for one in error.errors())
        return cls("; ".join(found))


class Recipe(BaseModel):
    """One net, what it is shown and how it is optimised. Sizes are sides of squares in pixels."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    stage: Stage
    domains: tuple[str, ...]
    """The classes, in the order of their labels; none: it knows no classes."""

    patch: Annotated[int, Field(ge=1, le=64)]
    width: Annotated[int, Field(ge=8, le=8192)]
    depth: Annotated[int, Field(ge=1, le=128)]
    heads: Annotated[int, Field(ge=1, le=128)]
    grid: Annotated[int, Field(ge=2, le=8)] = 4
    coarse_size: Annotated[int, Field(ge=1, le=4096)] = 16
    refined_size: Annotated[int, Field(ge=1, le=4096)] = 128
    channels: Annotated[int, Field(ge=1, le=4)] = 3
    prediction: Prediction | None = None
    """None: x for the coarse net, residual for the one that refines."""
    schedule: ScheduleName = ScheduleName.FLOW
    learned_variance: bool = False

    sequences: int = 0
    """Sequences per procedural domain that are rendered ahead."""
    clip_frames: int = 0
    """Frames of each."""
    content: str = ""
    """Digest of the user's own sequences as they were decoded; empty: the classes are procedural domains."""
    bits: Literal[8, 16] = 8
    """Depth of the frames it is shown, and so of those that the bundle makes."""
    value_range: tuple[float, float] | None = None
    """Of volumes: the values that the net's -1 and 1 stand for."""
    autoencoder: str = ""
    """Digest of the autoencoder whose latents the net works on; empty: it works on pixels."""
    latent_channels: int = 0
    downsample: Annotated[int, Field(ge=1, le=64)] = 1
    """Pixels to a latent, along one side."""
    init: str = ""
    """SHA-256 of the file of weights that the net started from; empty: from nothing."""
    seed: int = 0
    draws: Draws = Draws.STEP

    precision: Literal[Precision.FP32, Precision.BF16] = Precision.FP32
    """Of the forward pass (autocast); weights, sums and averages stay float32. On CPUs without fast bfloat16 kernels
    for small nets float32 is the faster one."""
    batch: Annotated[int, Field(ge=1)] = 16
    """Rows of a step, of all processes and parts together."""
    shards: Annotated[int, Field(ge=1)] = 2
    """Parts of a batch that threads work on side by side; the sum of their gradients does not depend on the threads."""
    accumulate: Annotated[int, Field(ge=1)] = 1
    """Rounds in which a process works through its rows, so that fewer have to fit in memory at a time."""
    steps: Annotated[int, Field(ge=1)]
    learning_rate: Annotated[float, Field(gt=0)]
    warm_up: Annotated[int, Field(ge=0)] = 100
    decay_share: Annotated[float, Field(ge=0, le=1)] = 0.4
    """The learning rate falls to zero over this last share of the steps."""
    betas: tuple[float, float] = (0.9, 0.95)
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    clip: Annotated[float, Field(gt=0)] = 1.0
    ema: Annotated[float, Field(ge=0, lt=1)] = 0.999

    time_mean: float
    """Flow: times are sigmoid(normal(time_mean, 1)). DDPM's schedule: they are drawn evenly from 0..999."""
    smallest_time: Annotated[float, Field(gt=0)] = 0.05
    """Clean images and residuals: the loss is weighted by 1 / max(sigma, smallest_time)^2."""
    seam_weight: float = 0.0
    """Weight of the squared jumps of the error across the borders of patches."""
    seam_from: int = 0
    """The step from which they count."""
    label_dropout: Annotated[float, Field(ge=0, le=1)] = 0.1
    prefix_share: Annotated[float, Field(ge=0, le=1)] = 0.5
    """Coarse: share of the grids whose first 1..grid-1 rows are given; 0: none, as the published nets were trained."""
    low_noise: Annotated[float, Field(ge=0)]
    """Given frames (coarse) or low-resolution frames (refine) get noise of a std drawn from 0..low_noise."""
    mirror: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Share of the clips whose frames are mirrored left to right, all of them alike; their order stays."""
    degradation: Degradation = Degradation.SMALL

    @property
    def frame_size(self) -> int:
        """Side of the frames that this net draws."""
        return self.coarse_size if self.stage is Stage.COARSE else self.refined_size

    @property
    def sizes(self) -> tuple[int, ...]:
        """Sides of the frames that are read: of those it draws, then of those it is shown small."""
        if self.stage is Stage.COARSE or self.degradation is Degradation.PUBLISHED:
            return (self.frame_size,)
        return (self.refined_size, self.coarse_size)

    @property
    def classes(self) -> int:
        """Number of classes."""
        return len(self.domains)

    @property
    def known_rows(self) -> KnownRows:
        """How given rows may enter the coarse net, for it learnt so."""
        return KnownRows.CLEAN_PREFIX if self.prefix_share else KnownRows.REPLACEMENT

    @property
    def predicted(self) -> Prediction:
        """What the net's output means."""
        usual = Prediction.X if self.stage is Stage.COARSE else Prediction.RESIDUAL
        return usual if self.prediction is None else self.prediction

    @property
    def net(self) -> NetSpec:
        """The net to train; its digest is that of no file yet."""
        coarse, drawn = self.stage is Stage.COARSE, self.latent_channels or self.channels
        return NetSpec(
            file=f"{self.stage}.safetensors",
            sha256=_NOT_WRITTEN_YET,
            input_size=self.frame_size // self.downsample * (self.grid if coarse else 1),
            patch=self.patch,
            in_channels=drawn if coarse else 2 * drawn,
            out_channels=2 * drawn if self.learned_variance else drawn,
            width=self.width,
            depth=self.depth,
            heads=self.heads,
            classes=self.classes,
            prediction=self.predicted,
            learned_variance=self.learned_variance,
            schedule=self.schedule,
            time_scale=time_scale(self.schedule),
        )

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        step = self.patch * self.downsample
        if self.frame_size % step:
            near = max(step, round(self.frame_size / step) * step)
            size = "coarse_size" if self.stage is Stage.COARSE else "refined_size"
            of = f"patch {self.patch}" if self.downsample == 1 else f"patch {self.patch} x {self.downsample} pixels"
            raise ValueError(f"{size} {self.frame_size} is not a multiple of {of}: take {near}")
        if self.width % self.heads or self.width % 8:
            raise ValueError(f"width {self.width} is not a multiple of heads {self.heads} and of 8: change one of them")
        if self.learned_variance and self.schedule is not ScheduleName.LINEAR:
            raise ValueError(f"learned_variance with schedule {self.schedule}: only with {ScheduleName.LINEAR}")
        if self.stage is Stage.COARSE and self.predicted is Prediction.RESIDUAL:
            raise ValueError("prediction residual for the coarse net: only the refine net has what it is added to")
        if self.degradation is Degradation.PUBLISHED and self.refined_size < SMALLEST_DEGRADED:
            limit = f"at least {SMALLEST_DEGRADED} with the published degradation"
            raise ValueError(f"refined_size {self.refined_size}: {limit}, whose blur is that wide")
        if self.shards * self.accumulate > self.batch:
            parts = f"{self.shards} shards x {self.accumulate} rounds"
            raise ValueError(f"batch {self.batch} has fewer rows than {parts}: take a larger batch")
        return self


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
