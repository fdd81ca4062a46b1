"""What a bundle says about itself: frozen, validated descriptions of its nets, grid and defaults.

These are values only; weights are read by `models.bundle`. Field names are those of `bundle.json`.
Times given to a net are `time_scale` times the schedule's time, so a flow net with `time_scale` 1000 sees
0..1000 where the schedule runs over 0..1.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

FORMAT = 1
"""Version of the bundle layout; a reader refuses any other."""

OFFICIAL_GRID = 4
"""The released loop's row numbers are those of a grid of this K."""
OFFICIAL_STEPS = 250
OFFICIAL_GUIDANCE = 4.0
OFFICIAL_SAMPLER = "ddpm"

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


class Dialect(StrEnum):
    """Whose arithmetic a net was trained with, where two programs for the same weights differ in detail."""

    PUBLISHED = "published"
    """DiT's and GriDiT's: time features of frequencies 10000^(-k/128), all norms with eps 1e-6."""
    DIFFUSERS = "diffusers"
    """diffusers' `DiTTransformer2DModel`: frequencies 10000^(-k/127), and eps 1e-5 in the norms before the MLPs."""


class Spacing(StrEnum):
    """At which of a schedule's times a sampler looks."""

    LINEAR = "linear"
    """Evenly from the noisiest time to the cleanest, both among them (the published choice)."""
    TRAILING = "trailing"
    """Evenly, counted from the noisiest time; the last step is as long as the others (Lin et al. 2024)."""
    LOG_SNR = "log_snr"
    """Evenly in the logarithm of the signal-to-noise ratio (Lu et al. 2022)."""


class Mode(StrEnum):
    """How a long sequence is put together."""

    SOUND = "sound"
    """Exactly N frames at one speed, known rows at the right level, independent noise."""
    OFFICIAL = "official"
    """The released behaviour, oddities included."""


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
    learned_variance: bool = False
    """The second half of the output channels says where the variance of a step lies between its bounds, in -1..1."""
    schedule: ScheduleName
    time_scale: Annotated[float, Field(gt=0)] = 1000.0
    dialect: Dialect = Dialect.PUBLISHED

    @property
    def tokens(self) -> int:
        """Number of patch tokens."""
        return (self.input_size // self.patch) ** 2

    @property
    def ancestral(self) -> bool:
        """Whether it is of the released kind: epsilon and learned variance over DDPM's schedule."""
        kind = (self.prediction, self.schedule, self.learned_variance)
        return kind == (Prediction.EPSILON, ScheduleName.LINEAR, True)

    @model_validator(mode="after")
    def _divisible(self) -> Self:
        if self.input_size % self.patch:
            raise ValueError(f"input_size {self.input_size} is not a multiple of patch {self.patch}")
        if self.width % self.heads or self.width % 4:
            raise ValueError(f"width {self.width} must be a multiple of heads {self.heads} and of 4")
        return self


class Codec(StrEnum):
    """The halves of an autoencoder; they are nets of a bundle as the stages' are."""

    ENCODER = "encoder"
    DECODER = "decoder"


class AutoencoderSpec(_Frozen):
    """A VAE in diffusers' `AutoencoderKL` layout: the nets then work on its latents instead of pixels."""

    file: Annotated[str, Field(pattern=r"^[\w.-]+\.safetensors$")]
    sha256: Sha256
    latent_channels: Annotated[int, Field(ge=1, le=64)] = 4
    downsample: Annotated[int, Field(ge=1, le=64)] = 8
    """Pixels to a latent, along one side."""
    scale: Annotated[float, Field(gt=0)] = 0.18215
    """The nets see (latents - shift) * scale."""
    shift: float = 0.0
    config: dict[str, object] = {}
    """diffusers' own description of the architecture."""


class Defaults(_Frozen):
    """What a request gets when it does not say otherwise."""

    num_frames: Annotated[int, Field(ge=1)]
    fps: Annotated[int, Field(ge=1, le=120)]
    sampler: str
    spacing: Spacing = Spacing.LINEAR
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
    """Side of a refined frame, pixels; of a bundle without refinement, that of a coarse one."""
    channels: Annotated[int, Field(ge=1, le=4)] = 3
    """Channels of a frame as it is shown."""
    bits: Literal[8, 16] = 8
    """Depth of a frame as it is stored; 16 for one channel only."""
    value_range: tuple[float, float] | None = None
    """What the least and the greatest stored number stand for, in the units of the data that it was trained on."""
    classes: tuple[str, ...] = ()
    known_rows: KnownRows
    overlap_rows: Annotated[int, Field(ge=1)]
    """R: rows of the last grid that the next one starts with."""
    nets: dict[Stage, NetSpec]
    """The coarse net, and most often one that refines."""
    autoencoder: AutoencoderSpec | None = None
    """None: the nets work on pixels."""
    samplers: tuple[str, ...]
    defaults: Defaults
    limits: Limits = Limits()
    recipe: dict[str, object] = {}
    """How the weights were trained; free form."""
    gate: dict[str, object] = {}
    """Figures of the quality gate; free form."""
    source: dict[str, object] = {}
    """Where imported weights came from, and what was found in them; free form."""

    @property
    def stages(self) -> tuple[Stage, ...]:
        """The stages it has nets for, in order."""
        return tuple(stage for stage in Stage if stage in self.nets)

    @property
    def net_channels(self) -> int:
        """Channels of what the nets draw: a frame's, or its latents'."""
        return self.autoencoder.latent_channels if self.autoencoder else self.channels

    @property
    def downsample(self) -> int:
        """Pixels to one place of what the nets draw, along one side."""
        return self.autoencoder.downsample if self.autoencoder else 1

    @property
    def modes(self) -> tuple[Mode, ...]:
        """The sampling modes it can do: the released loop is only defined for nets like the released ones."""
        official = self.grid == OFFICIAL_GRID and all(net.ancestral for net in self.nets.values())
        return tuple(Mode) if official else (Mode.SOUND,)

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.format != FORMAT:
            raise ValueError(f"format {self.format} is not readable here (this version reads {FORMAT})")
        if not self.overlap_rows < self.grid:
            raise ValueError(f"overlap_rows {self.overlap_rows} must be less than grid {self.grid}")
        if self.bits == 16 and self.channels != 1:
            raise ValueError(f"bits 16 need channels 1, not {self.channels}")
        if Stage.COARSE not in self.nets:
            raise ValueError(f"nets must have one named {Stage.COARSE.value!r}, not only {sorted(self.nets)}")
        for stage, net in self.nets.items():
            self._check_net(stage, net)
        if self.nets[Stage.COARSE].prediction is Prediction.RESIDUAL:
            raise ValueError("the coarse net cannot predict a residual: there is no low-resolution frame")
        if Stage.REFINE not in self.nets and self.refined_size != self.coarse_size:
            raise ValueError(f"refined_size {self.refined_size}: without a refine net it is coarse_size")
        if self.defaults.sampler not in self.samplers:
            raise ValueError(f"default sampler {self.defaults.sampler} is not among {self.samplers}")
        return self

    def _check_net(self, stage: Stage, net: NetSpec) -> None:
        side = self.grid * self.coarse_size if stage is Stage.COARSE else self.refined_size
        if net.input_size * self.downsample != side:
            raise ValueError(f"{stage} input_size {net.input_size} x {self.downsample} is not {side} pixels")
        seen = self.net_channels if stage is Stage.COARSE else 2 * self.net_channels
        if net.in_channels != seen:
            raise ValueError(f"{stage} in_channels {net.in_channels} must be {seen}")
        drawn = self.net_channels * (2 if net.learned_variance else 1)
        if net.out_channels != drawn:
            raise ValueError(f"{stage} out_channels {net.out_channels} must be {drawn}")
        if net.classes not in (0, len(self.classes)):
            raise ValueError(f"{stage} net has {net.classes} classes, the bundle {len(self.classes)}")
