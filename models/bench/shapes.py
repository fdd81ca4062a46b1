"""Bundles of published sizes with random weights: they run as trained ones do, and draw nothing.

Every layer has weights that matter, unlike those of a net before its training, so that errors of engines show. What
such errors do to pictures, they cannot show. The same shape has the same weights every time, hence the same plans.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from models import bundle, presets, samplers
from models.bundle import Bundle
from models.nn.dit import DiT
from models.spec import (
    OFFICIAL_GRID,
    AutoencoderSpec,
    BundleSpec,
    Defaults,
    KnownRows,
    Limits,
    NetSpec,
    Prediction,
    ScheduleName,
    Spacing,
    Stage,
)

ENLARGED = 4
"""Side of a refined frame, of a coarse one's: as published."""
LATENTS, DOWNSAMPLE = 4, 8
PUBLISHED_WIDTHS = (128, 256, 512, 512)
"""Channels of the published autoencoder's levels."""
SMALL = 1024
"""Nets narrower than this get an autoencoder of a quarter of the published widths, to stay in proportion."""


class NoSuchShape(ValueError):
    """A number of tokens that no grid of frames has."""

    def __init__(self, tokens: int) -> None:
        side = max(OFFICIAL_GRID, round(math.sqrt(max(tokens, 1)) / OFFICIAL_GRID) * OFFICIAL_GRID)
        super().__init__(
            f"tokens {tokens} are no {OFFICIAL_GRID} x {OFFICIAL_GRID} grid of frames of whole patches: "
            f"take the square of a multiple of {OFFICIAL_GRID}, such as {side * side}"
        )


def named(shape: str) -> str:
    """ "S/2" or "DiT-S/2", in any case -> "DiT-S/2"; `UnknownPreset` names those there are."""
    name = shape if shape.lower().startswith("dit-") else f"DiT-{shape}"
    presets.parse(name)
    return f"DiT-{name[4:].upper()}"


def spec_of(
    shape: str, *, tokens: int, stages: Sequence[Stage] = tuple(Stage), downsample: int = DOWNSAMPLE
) -> BundleSpec:
    """Nets of the released kind (epsilon, learned variance, no labels, latents) whose coarse one sees `tokens`.

    The refining one sees as many, as the published one does. With a `downsample` of 1 there is no autoencoder: the
    latents are taken for pixels.
    """
    size, patch = presets.parse(named(shape))
    side = math.isqrt(tokens)
    if side * side != tokens or side % OFFICIAL_GRID or tokens < 1:
        raise NoSuchShape(tokens)
    latents = side * patch
    refined = latents * downsample
    coarse = refined // ENLARGED
    frame_sizes = {Stage.COARSE: coarse, Stage.REFINE: refined}
    return BundleSpec(
        name=f"random-{size.width}x{size.depth}-{tokens}",
        license="none: random numbers",
        grid=OFFICIAL_GRID,
        coarse_size=coarse,
        refined_size=refined if Stage.REFINE in stages else coarse,
        known_rows=KnownRows.REPLACEMENT,
        overlap_rows=OFFICIAL_GRID - 1,
        nets={stage: _net(shape, stage, frame_sizes[stage], downsample) for stage in stages},
        channels=LATENTS if downsample == 1 else 3,
        autoencoder=None if downsample == 1 else _autoencoder(size.width),
        samplers=samplers.names(),
        defaults=Defaults(
            num_frames=64,
            fps=8,
            sampler="sde_dpmpp_2m",
            spacing=Spacing.LOG_SNR,
            coarse_steps=25,
            refine_steps=25,
            guidance_scale=1,
        ),
        limits=Limits(),
    )


def write(folder: Path, spec: BundleSpec) -> Bundle:
    """The bundle with its weights, stored in half precision."""
    nets = {stage: awake(DiT(net), seed=order).state_dict() for order, (stage, net) in enumerate(spec.nets.items())}
    vae = None if spec.autoencoder is None else _random_autoencoder(spec.autoencoder)
    return bundle.write(folder / spec.name, spec=spec, nets=nets, autoencoder=vae)


def awake(net: DiT, *, seed: int = 0) -> DiT:
    """Every parameter but the positional table random, small enough for the net to stay finite."""
    table = net.pos_embed.detach().clone()
    _randomise(net, seed)
    with torch.no_grad():
        net.pos_embed.copy_(table)
    return net.eval().requires_grad_(False)


def _net(shape: str, stage: Stage, frame_size: int, downsample: int) -> NetSpec:
    return presets.net_spec(
        named(shape),
        stage=stage,
        frame_size=frame_size,
        grid=OFFICIAL_GRID,
        channels=LATENTS,
        downsample=downsample,
        learned_variance=True,
        prediction=Prediction.EPSILON,
        schedule=ScheduleName.LINEAR,
    )


def _autoencoder(width: int) -> AutoencoderSpec:
    widths = tuple(each // 4 for each in PUBLISHED_WIDTHS) if width < SMALL else PUBLISHED_WIDTHS
    config: dict[str, object] = {
        "block_out_channels": list(widths),
        "down_block_types": ["DownEncoderBlock2D"] * len(widths),
        "up_block_types": ["UpDecoderBlock2D"] * len(widths),
        "layers_per_block": 2,
        "latent_channels": LATENTS,
    }
    return AutoencoderSpec(
        file="autoencoder.safetensors",
        sha256="0" * 64,
        latent_channels=LATENTS,
        downsample=DOWNSAMPLE,
        config=config,
    )


def _random_autoencoder(spec: AutoencoderSpec) -> dict[str, Tensor]:
    from models.nn import autoencoder

    generator = torch.Generator().manual_seed(7)
    state: dict[str, Tensor] = {}
    for key, shape in sorted(autoencoder.shapes(spec.config).items()):
        fan = math.prod(shape[1:]) or 1
        norm = "norm" in key and key.endswith("weight")
        spread = 0.5 / math.sqrt(fan) if len(shape) > 1 else 0.02
        state[key] = torch.ones(shape) if norm else spread * torch.randn(shape, generator=generator)
    return state


def _randomise(module: nn.Module, seed: int) -> None:
    generator: Any = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            spread = 0.5 / max(parameter.shape[-1], 1) ** 0.5
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * spread)
