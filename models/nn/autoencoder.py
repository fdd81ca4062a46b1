"""The two halves of a VAE in diffusers' `AutoencoderKL` layout, as plain modules in float32.

The networks are diffusers' own (the extra `latent`), which only this file imports. Nothing is scaled, sampled or
clipped here: the nets of a bundle see (latent - shift) * scale, and it is the caller that goes to and fro. State dicts
are taken in today's names and in those of before 2023, which the published autoencoder still has.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from models.nn.unmade import unmade
from models.spec import Codec

_OLD_ATTENTION = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}
_OLD_NAME = re.compile(rf"(.*\.attentions\.\d+\.)({'|'.join(_OLD_ATTENTION)})\.(weight|bias)")


class DiffusersMissing(ValueError):
    """The autoencoder's code is not installed."""

    def __init__(self) -> None:
        super().__init__("autoencoders need the package diffusers: pip install 'gridit-serve[latent]'")


class Encoder(nn.Module):
    """Images -> posterior."""

    def __init__(self, encoder: nn.Module, quantise: nn.Module | None) -> None:
        super().__init__()
        self.encoder, self.quantise = encoder, quantise or nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, d*h, d*w) in [-1, 1] -> (B, 2*L, h, w): mean and log variance of the latents, L channels each."""
        moments: Tensor = self.quantise(self.encoder(x))
        return moments


class Decoder(nn.Module):
    """Latents -> images."""

    def __init__(self, decoder: nn.Module, unquantise: nn.Module | None) -> None:
        super().__init__()
        self.decoder, self.unquantise = decoder, unquantise or nn.Identity()

    def forward(self, latents: Tensor) -> Tensor:
        """(B, L, h, w) -> (B, C, d*h, d*w), about [-1, 1]."""
        images: Tensor = self.decoder(self.unquantise(latents))
        return images


def load(half: Codec, *, config: Mapping[str, object], state: Mapping[str, Tensor]) -> Encoder | Decoder:
    """One half, float32, in evaluation mode, on the CPU; `state` is that of the whole (or of this half).

    `config` is diffusers' own; RuntimeError names the tensors that do not fit it.
    """
    module = _half(half, _build(config))
    own = module.state_dict().keys()
    named = {_in_half(half, key): tensor.float() for key, tensor in current_names(state).items()}
    module.load_state_dict({key: tensor for key, tensor in named.items() if key in own}, assign=True)
    return module.eval().requires_grad_(False)


def shapes(config: Mapping[str, object]) -> dict[str, tuple[int, ...]]:
    """Name and shape of every tensor of the whole, in today's names."""
    return {key: tuple(tensor.shape) for key, tensor in _build(config).state_dict().items()}


def current_names(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The same tensors in today's names; attention that was stored as 1x1 convolutions becomes linear layers."""
    return dict(_current(key, tensor) for key, tensor in state.items())


def _current(key: str, tensor: Tensor) -> tuple[str, Tensor]:
    old = _OLD_NAME.fullmatch(key)
    if old is None:
        return key, tensor
    flat = tensor.flatten(1) if tensor.ndim > 1 else tensor
    return f"{old[1]}{_OLD_ATTENTION[old[2]]}.{old[3]}", flat


def _build(config: Mapping[str, object]) -> Any:
    """The whole, without memory for its weights."""
    try:
        from diffusers import AutoencoderKL
    except ImportError as error:
        raise DiffusersMissing from error
    with unmade():
        return AutoencoderKL.from_config(dict(config))


def _half(half: Codec, whole: Any) -> Encoder | Decoder:
    if half is Codec.ENCODER:
        return Encoder(whole.encoder, whole.quant_conv)
    return Decoder(whole.decoder, whole.post_quant_conv)


def _in_half(half: Codec, key: str) -> str:
    """A tensor's name in the whole -> its name in `Encoder` or `Decoder`."""
    bottleneck = {Codec.ENCODER: ("quant_conv", "quantise"), Codec.DECODER: ("post_quant_conv", "unquantise")}[half]
    layer, dot, rest = key.partition(".")
    return bottleneck[1] + dot + rest if layer == bottleneck[0] else key
