"""Tiny nets in the forms in which weights are published, made on the spot with random, wide-awake weights.

What diffusers publishes is made and saved by diffusers itself; its classes are imported where they are used.
"""

from __future__ import annotations

import json
from argparse import Namespace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from models.nn.dit import DiT
from models.spec import NetSpec, Prediction, ScheduleName, Stage
from tests.tiny import awake

GOLDEN = Path(__file__).parent / "golden"
"""Nets of the published kind: 4 latent channels, learned variance, 64 x 64 latents, no labels."""
STAGE1, SR = GOLDEN / "stage1.safetensors", GOLDEN / "sr.safetensors"


def golden(file: Path = STAGE1) -> dict[str, Tensor]:
    """The tensors of one of them."""
    return load_file(file)


def training_checkpoint(file: Path, averaged: dict[str, Tensor]) -> Path:
    """As a training script saves it: {"model", "ema", "opt", "args"}; the averaged net is the one that is wanted."""
    wrapped = {f"module.{key}": tensor + 1 for key, tensor in averaged.items()}
    optimiser = {"state": {0: {"exp_avg": torch.zeros(2), "step": torch.tensor(3.0)}}, "param_groups": [{"lr": 1e-4}]}
    args = Namespace(model="DiT-XL/2", image_size=512, num_classes=1000)
    torch.save({"model": wrapped, "ema": averaged, "opt": optimiser, "args": args}, file)
    return file


def labelled_net(*, in_channels: int = 4, size: int = 16) -> DiT:
    """A vanilla DiT with a label table: 5 classes and the null row."""
    spec = NetSpec(
        file="net.safetensors",
        sha256="0" * 64,
        input_size=size,
        patch=2,
        in_channels=in_channels,
        out_channels=8,
        width=32,
        depth=2,
        heads=4,
        classes=5,
        prediction=Prediction.EPSILON,
        learned_variance=True,
        schedule=ScheduleName.LINEAR,
        time_scale=1,
    )
    return awake(DiT(spec), seed=in_channels)


def pixel_net(*, stage: Stage, size: int = 16) -> DiT:
    """A net of pixels that predicts without variance, nothing of it published."""
    spec = labelled_net(size=size).spec.model_copy(
        update={
            "in_channels": 3 if stage is Stage.COARSE else 6,
            "out_channels": 3,
            "classes": 0,
            "learned_variance": False,
        }
    )
    return awake(DiT(spec))


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


def diffusers_net(**changes: object) -> Any:
    """A `DiTTransformer2DModel` of 2 blocks over 4 x 16 x 16 latents, 5 classes, every block with its own weights."""
    from diffusers import DiTTransformer2DModel

    config: dict[str, object] = {
        "num_attention_heads": 4,
        "attention_head_dim": 8,
        "in_channels": 4,
        "out_channels": 8,
        "num_layers": 2,
        "sample_size": 16,
        "patch_size": 2,
        "num_embeds_ada_norm": 5,
    }
    torch.manual_seed(0)
    net: Any = DiTTransformer2DModel(**config | changes)
    return _embedded_alike(awake_all(net))


def awake_all(net: Any) -> Any:
    """Every parameter random and large enough to matter."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.5 / parameter.shape[-1] ** 0.5)
    return net.eval()


def save_pipeline(folder: Path) -> Path:
    """A `DiTPipeline`'s folder: the net, its autoencoder, and the names of its labels."""
    diffusers_net().save_pretrained(folder / "transformer")
    save_vae(folder / "vae")
    labels = {"0": "tench, Tinca tinca", "1": "crane", "2": "crane", "3": "hen", "4": "ostrich"}
    index = {"_class_name": "DiTPipeline", "id2label": labels}
    (folder / "model_index.json").write_text(json.dumps(index))
    return folder


def _embedded_alike(net: Any) -> Any:
    first = net.transformer_blocks[0].norm1.emb
    for block in net.transformer_blocks[1:]:
        block.norm1.emb.load_state_dict(first.state_dict())
    return net
