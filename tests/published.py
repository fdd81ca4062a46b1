"""Tiny nets in the forms in which weights are published, made on the spot with random, wide-awake weights.

What diffusers publishes is made and saved by diffusers itself; its classes are imported where they are used.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch


def save_vae(folder: Path, **changes: object) -> Path:
    """An `AutoencoderKL` of two levels (4 latent channels, 2 pixels to a latent) as diffusers saves it."""
    from diffusers import AutoencoderKL

    config: dict[str, object] = {
        "block_out_channels": (8, 16),
        "down_block_types": ("DownEncoderBlock2D",) * 2,
        "up_block_types": ("UpDecoderBlock2D",) * 2,
        "layers_per_block": 1,
        "norm_num_groups": 4,
    }
    torch.manual_seed(0)
    vae: Any = AutoencoderKL(**config | changes)
    vae.save_pretrained(folder)
    return folder
