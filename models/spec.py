"""What a bundle says about itself: frozen, validated descriptions of its nets, grid and defaults.

These are values only; weights are read by `models.bundle`. Field names are those of `bundle.json`.
Times given to a net are `time_scale` times the schedule's time, so a flow net with `time_scale` 1000 sees
0..1000 where the schedule runs over 0..1.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

FORMAT = 1
"""Version of the bundle layout; a reader refuses any other."""

Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class Stage(StrEnum):
    """The two stages of the method, and the nets that serve them."""

    COARSE = "coarse"
    REFINE = "refine"


class Prediction(StrEnum):
    """What a net's output means (x: the clean image; epsilon: the noise; v: alpha*eps - sigma*x; flow: eps - x).

    residual: the clean image less the enlarged low-resolution frame; for refinement, which so starts from it.
    """

    X = "x"
    RESIDUAL = "residual"
    EPSILON = "epsilon"
    V = "v"
    FLOW = "flow"


class ScheduleName(StrEnum):
    """How clean image and noise are mixed at a time."""

    FLOW = "flow"
    """x_t = (1 - t) x + t eps, t in 0..1 (rectified flow)."""
    LINEAR = "linear"
    """DDPM's 1000 linear betas, 1e-4..2e-2 (Ho et al. 2020)."""


class KnownRows(StrEnum):
    """How frames that are already drawn enter the next grid."""

    CLEAN_PREFIX = "clean_prefix"
    """Clean at every step; the net was trained so, and its output there is ignored."""
    REPLACEMENT = "replacement"
    """Noised to the level of the step; for nets that were trained without known rows."""


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class NetSpec(_Frozen):
    """One plain DiT: everything needed to build it and to check its state dict."""

    file: Annotated[str, Field(pattern=r"^[\w.-]+\.safetensors$")]
    sha256: Sha256
    input_size: Annotated[int, Field(ge=2, le=4096)]
    """Side of the square input, in pixels (or latents)."""
    patch: Annotated[int, Field(ge=1, le=64)]
    in_channels: Annotated[int, Field(ge=1, le=64)]
    """Channels of the input; for refinement: noisy channels + low-resolution channels."""
    out_channels: Annotated[int, Field(ge=1, le=64)]
    width: Annotated[int, Field(ge=8, le=8192)]
    depth: Annotated[int, Field(ge=1, le=128)]
    heads: Annotated[int, Field(ge=1, le=128)]
    classes: Annotated[int, Field(ge=0, le=100_000)] = 0
    """Number of class labels; 0: unconditional. Label `classes` is the null label."""
    prediction: Prediction
    schedule: ScheduleName
    time_scale: Annotated[float, Field(gt=0)] = 1000.0

    @property
    def tokens(self) -> int:
        """Number of patch tokens."""
        return (self.input_size // self.patch) ** 2

    @model_validator(mode="after")
    def _divisible(self) -> Self:
        if self.input_size % self.patch:
            raise ValueError(f"input_size {self.input_size} is not a multiple of patch {self.patch}")
        if self.width % self.heads or self.width % 4:
            raise ValueError(f"width {self.width} must be a multiple of heads {self.heads} and of 4")
        return self


class Defaults(_Frozen):
    """What a request gets when it does not say otherwise."""

    num_frames: Annotated[int, Field(ge=1)]
    fps: Annotated[int, Field(ge=1, le=120)]
    sampler: str
    coarse_steps: Annotated[int, Field(ge=1)]
    refine_steps: Annotated[int, Field(ge=1)]
    guidance_scale: Annotated[float, Field(ge=1)]


class Limits(_Frozen):
    """The most that a request may ask of this bundle."""

    num_frames: Annotated[int, Field(ge=1)] = 1024
    steps: Annotated[int, Field(ge=1)] = 1000
    guidance_scale: Annotated[float, Field(ge=1)] = 20.0


class BundleSpec(_Frozen):
    """`bundle.json`: one directory, one hash."""

    format: int = FORMAT
    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]{0,63}$")]
    description: str = ""
    license: str
    grid: Annotated[int, Field(ge=2, le=8)]
    """K: the coarse net draws K x K frames as one image."""
    coarse_size: int
    """Side of a coarse frame, pixels."""
    refined_size: int
    """Side of a refined frame, pixels."""
    channels: Annotated[int, Field(ge=1, le=4)] = 3
    classes: tuple[str, ...] = ()
    known_rows: KnownRows
    overlap_rows: Annotated[int, Field(ge=1)]
    """R: rows of the last grid that the next one starts with."""
    nets: dict[Stage, NetSpec]
    samplers: tuple[str, ...]
    defaults: Defaults
    limits: Limits = Limits()
    recipe: dict[str, object] = {}
    """How the weights were trained; free form."""
    gate: dict[str, object] = {}
    """Figures of the quality gate; free form."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.format != FORMAT:
            raise ValueError(f"format {self.format} is not readable here (this version reads {FORMAT})")
        if not self.overlap_rows < self.grid:
            raise ValueError(f"overlap_rows {self.overlap_rows} must be less than grid {self.grid}")
        if set(self.nets) != set(Stage):
            raise ValueError(f"nets must be exactly {sorted(Stage)}, not {sorted(self.nets)}")
        coarse, refine = self.nets[Stage.COARSE], self.nets[Stage.REFINE]
        if coarse.input_size != self.grid * self.coarse_size:
            raise ValueError(f"coarse input_size {coarse.input_size} is not grid {self.grid} x {self.coarse_size}")
        if refine.input_size != self.refined_size:
            raise ValueError(f"refine input_size {refine.input_size} is not refined_size {self.refined_size}")
        for stage, net in self.nets.items():
            if net.classes not in (0, len(self.classes)):
                raise ValueError(f"{stage} net has {net.classes} classes, the bundle {len(self.classes)}")
        if refine.in_channels != 2 * coarse.in_channels:
            raise ValueError(f"refine in_channels {refine.in_channels} is not twice the coarse {coarse.in_channels}")
        if coarse.prediction is Prediction.RESIDUAL:
            raise ValueError("the coarse net cannot predict a residual: there is no low-resolution frame")
        if self.defaults.sampler not in self.samplers:
            raise ValueError(f"default sampler {self.defaults.sampler} is not among {self.samplers}")
        return self
