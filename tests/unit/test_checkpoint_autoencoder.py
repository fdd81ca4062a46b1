"""The autoencoder's halves against diffusers' own whole, with a tiny one that diffusers itself saved."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from models.nn import autoencoder
from models.spec import Codec
from tests.published import save_vae

pytest.importorskip("diffusers")

SIZE = (2, 3, 16, 24)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_vae(tmp_path_factory.mktemp("vae"))


@pytest.fixture(scope="module")
def config(folder: Path) -> dict[str, object]:
    read: dict[str, object] = json.loads((folder / "config.json").read_text())
    return read


@pytest.fixture(scope="module")
def state(folder: Path) -> dict[str, Tensor]:
    return load_file(folder / "diffusion_pytorch_model.safetensors")


@pytest.fixture(scope="module")
def whole(folder: Path) -> Any:
    from diffusers import AutoencoderKL

    return AutoencoderKL.from_pretrained(folder, local_files_only=True).eval()


@torch.inference_mode()
def test_the_encoder_gives_the_moments(config: dict[str, object], state: dict[str, Tensor], whole: Any) -> None:
    x = torch.randn(SIZE, generator=torch.Generator().manual_seed(0))
    posterior = whole.encode(x).latent_dist
    moments = autoencoder.load(Codec.ENCODER, config=config, state=state)(x)
    assert moments.shape == (2, 8, 8, 12)
    mean, log_variance = moments.chunk(2, dim=1)
    assert float(mean.std()) > 0.1
    assert torch.equal(mean, posterior.mean)
    assert torch.equal(log_variance.clamp(-30, 20), posterior.logvar)


@torch.inference_mode()
def test_the_decoder_gives_the_images(config: dict[str, object], state: dict[str, Tensor], whole: Any) -> None:
    latents = torch.randn(2, 4, 8, 12, generator=torch.Generator().manual_seed(0))
    decoder = autoencoder.load(Codec.DECODER, config=config, state={key: t.half() for key, t in state.items()})
    images = decoder(latents)
    assert images.shape == SIZE
    assert images.dtype == torch.float32
    assert float((images - whole.decode(latents).sample).norm() / images.norm()) < 5e-3  # stored in half precision
    exact = autoencoder.load(Codec.DECODER, config=config, state=state)
    assert torch.equal(exact(latents), whole.decode(latents).sample)


@torch.inference_mode()
def test_names_of_before_2023_are_understood(config: dict[str, object], state: dict[str, Tensor]) -> None:
    new = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    old: dict[str, Tensor] = {}
    for key, tensor in state.items():
        name = next((name for name in new if f".{name}." in key and "attentions" in key), None)
        convolution = tensor[:, :, None, None] if name and tensor.ndim == 2 else tensor
        old[key.replace(f".{name}.", f".{new[name]}.") if name else key] = convolution
    assert old.keys() != state.keys()
    latents = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    ours, theirs = (autoencoder.load(Codec.DECODER, config=config, state=s)(latents) for s in (old, state))
    assert torch.equal(ours, theirs)


def test_the_shapes_are_told_without_weights(config: dict[str, object], state: dict[str, Tensor]) -> None:
    assert autoencoder.shapes(config) == {key: tuple(tensor.shape) for key, tensor in state.items()}


def test_tensors_that_do_not_fit_are_named(config: dict[str, object], state: dict[str, Tensor]) -> None:
    missing = {key: tensor for key, tensor in state.items() if key != "decoder.conv_in.bias"}
    with pytest.raises(RuntimeError, match=r"decoder\.conv_in\.bias"):
        autoencoder.load(Codec.DECODER, config=config, state=missing)
