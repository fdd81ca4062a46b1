"""Between pixels and what the nets work on: the autoencoder's halves, asked as nets are.

Bundles without an autoencoder work on pixels, and both ways are free. An encoder answers with the posterior's mean and
log variance; the sound mode takes the mean, the released loop a sample.
"""

from __future__ import annotations

from collections.abc import Generator

from torch import Tensor

from models.spec import BundleSpec, Codec
from models.units.asking import Evaluate

LOG_VARIANCE = (-30.0, 20.0)
"""Bounds of the posterior's log variance."""


def encoded(pixels: Tensor, *, spec: BundleSpec, noise: Tensor | None = None) -> Generator[Evaluate, Tensor, Tensor]:
    """(n, C, H, W) in [-1, 1] -> what the nets see; the posterior's mean, or with `noise` a sample."""
    vae = spec.autoencoder
    if vae is None:
        return pixels
    moments = yield _evaluate(Codec.ENCODER, pixels)
    mean, log_variance = moments.chunk(2, dim=1)
    if noise is not None:
        mean = mean + (0.5 * log_variance.clamp(*LOG_VARIANCE)).exp() * noise
    return (mean - vae.shift) * vae.scale


def decoded(latents: Tensor, *, spec: BundleSpec) -> Generator[Evaluate, Tensor, Tensor]:
    """What the nets draw (n, C, S, S) -> pixels in [-1, 1]."""
    vae = spec.autoencoder
    if vae is not None:
        latents = yield _evaluate(Codec.DECODER, latents / vae.scale + vae.shift)
    return latents.clamp(-1, 1)


def eight_bit(pixels: Tensor) -> Tensor:
    """Pixels in [-1, 1] as a picture of 8 bits would hold them."""
    return ((pixels.clamp(-1, 1) + 1) * 127.5).round() / 127.5 - 1


def bounded(drawn: Tensor, *, spec: BundleSpec) -> Tensor:
    """Pixels are cut to [-1, 1]; latents are what they are."""
    return drawn if spec.autoencoder else drawn.clamp(-1, 1)


def _evaluate(half: Codec, x: Tensor) -> Evaluate:
    return Evaluate(half, x, (0.0,) * len(x), (0,) * len(x))
