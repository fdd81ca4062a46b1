"""A tiny bundle on latents, and the halves of its autoencoder: diffusers' own code with random weights, two levels."""

from __future__ import annotations

from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from models import bundle as bundles
from models.bundle import Bundle
from models.compiling.export import export
from models.engine import Precision
from models.graph import Graph, codec_graphs
from models.nn import autoencoder
from models.nn.dit import DiT
from models.spec import AutoencoderSpec, BundleSpec, Codec
from tests.tiny import awake, tiny_spec

needs_diffusers = pytest.mark.skipif(
    find_spec("diffusers") is None, reason="diffusers comes with the extra latent, which is not installed"
)

SIDES = (32, 16)
"""Of the images: a grid of 4 x 4 frames of 8 pixels, and a refined frame."""

CONFIG: dict[str, object] = {
    "block_out_channels": (8, 16),
    "down_block_types": ("DownEncoderBlock2D",) * 2,
    "up_block_types": ("UpDecoderBlock2D",) * 2,
    "latent_channels": 3,
    "layers_per_block": 1,
    "norm_num_groups": 4,
}


def latent_spec() -> BundleSpec:
    """Latents of 3 channels, half the size of the pixels, so that the tiny nets fit them."""
    vae = AutoencoderSpec(
        file="vae.safetensors", sha256="0" * 64, latent_channels=3, downsample=2, scale=0.5, config=CONFIG
    )
    sizes = {"name": "latent", "coarse_size": 8, "refined_size": 16, "autoencoder": vae}
    return BundleSpec.model_validate(tiny_spec().model_dump() | sizes)


@cache
def weights() -> dict[str, Tensor]:
    """Of the autoencoder."""
    from diffusers import AutoencoderKL

    with torch.random.fork_rng():
        torch.manual_seed(0)
        vae: Any = AutoencoderKL(**CONFIG)
    return dict(vae.state_dict())


@cache
def exported(half: Codec, side: int) -> bytes:
    """The ONNX of one of its graphs, in float32."""
    return export(codecs(half)[SIDES.index(side)], precision=Precision.FP32)


def codecs(half: Codec) -> tuple[Graph, ...]:
    """Its graphs, one for each of `SIDES`."""
    return codec_graphs(half, autoencoder.load(half, config=CONFIG, state=weights()), latent_spec())


def latent_bundle(path: Path) -> Bundle:
    """The bundle, in float32."""
    spec = latent_spec()
    nets = {stage: awake(DiT(net), seed=index).state_dict() for index, (stage, net) in enumerate(spec.nets.items())}
    return bundles.write(path, spec=spec, nets=nets, autoencoder=weights(), dtype=torch.float32)
