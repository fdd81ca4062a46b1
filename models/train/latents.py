"""Training on an autoencoder's latents: where it is read from, how it stays with the runs, how frames go through it.

A grid is encoded as the one image that it is, anew at every step, a row at a time, so that a row's latents do not
depend on the others'. What the net learns to draw is a sample of the posterior, as published; what it is shown, its
mean.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from models.checkpoint import autoencoders, places, reading
from models.checkpoint.hub import Hub
from models.checkpoint.layout import Part
from models.engines.torch import TorchCodec
from models.evaluator import CodecEvaluator
from models.nn import autoencoder
from models.spec import AutoencoderSpec, Codec
from models.units.latents import LOG_VARIANCE


class LostAutoencoder(ValueError):
    """A run's autoencoder is not where runs are kept."""

    def __init__(self, folder: Path, digest: str) -> None:
        super().__init__(f"{folder}: found no autoencoder, expected {digest[:12]} of this run; name it again (--vae)")


@dataclass(frozen=True, slots=True)
class Vae:
    """An autoencoder: what it is, and its tensors."""

    spec: AutoencoderSpec
    tensors: Mapping[str, Tensor]

    @classmethod
    def read(cls, source: str) -> Vae:
        """From a path or the hub, with whatever scale its config has: the net is yet to learn it."""
        place = places.find(places.Wanted(source, part=Part.AUTOENCODER), hub=Hub())
        scale = reading.json_object(place.folder / str(place.layout.config)).get("scaling_factor")
        spec, tensors = autoencoders.read(place, scale=scale if isinstance(scale, float) else None)
        return cls(spec, tensors)

    @classmethod
    def reopen(cls, digest: str, folder: Path) -> Vae:
        """As `keep` wrote it."""
        path = folder / _file(digest)
        if not path.exists():
            raise LostAutoencoder(folder, digest)
        with safe_open(path, framework="pt") as stored:
            spec = AutoencoderSpec.model_validate_json(stored.metadata()["spec"])
            return cls(spec, {key: stored.get_tensor(key) for key in stored.keys()})  # noqa: SIM118

    @property
    def digest(self) -> str:
        """SHA-256 of what it is and of its tensors."""
        digest = hashlib.sha256(self.spec.model_dump_json().encode())
        for key, tensor in sorted(self.tensors.items()):
            digest.update(key.encode())
            digest.update(tensor.contiguous().flatten().view(torch.uint8).numpy().tobytes())
        return digest.hexdigest()

    @property
    def channels(self) -> int:
        """Of the frames that go in and come out."""
        return autoencoders.pixel_channels(self.tensors)

    def keep(self, folder: Path) -> None:
        """Beside the runs, so that they go on without it being named again."""
        path = folder / _file(self.digest)
        if path.exists():
            return
        folder.mkdir(parents=True, exist_ok=True)
        aside = path.with_name(f".{path.name}.{os.getpid()}")
        tensors = {key: tensor.contiguous() for key, tensor in self.tensors.items()}
        save_file(tensors, aside, metadata={"spec": self.spec.model_dump_json()})
        aside.replace(path)

    def codec(self, half: Codec, *, device: torch.device) -> CodecEvaluator:
        """One half, ready to run."""
        module = autoencoder.load(half, config=self.spec.config, state=self.tensors)
        return CodecEvaluator(TorchCodec(module, device=device))


class Encoding:
    """Frames as latents."""

    def __init__(self, vae: Vae, *, device: torch.device) -> None:
        """The encoder is kept on `device`; latents are handed out on the CPU, where rows are made."""
        self.vae, self._device = vae, device
        self._encoder = autoencoder.load(Codec.ENCODER, config=vae.spec.config, state=vae.tensors).to(device)

    @torch.no_grad()
    def __call__(self, pixels: Tensor, *, noise: torch.Generator | None = None) -> Tensor:
        """(B, C, S, S) in [-1, 1] -> latents (B, L, S/d, S/d): the posterior's mean, or with `noise` a sample of it."""
        moments = torch.cat([self._encoder(row[None].to(self._device)).cpu() for row in pixels])
        latents, log_variance = moments.chunk(2, dim=1)
        if noise is not None:
            deviation = (0.5 * log_variance.clamp(*LOG_VARIANCE)).exp()
            latents = latents + deviation * torch.randn(latents.shape, generator=noise)
        return (latents - self.vae.spec.shift) * self.vae.spec.scale


def _file(digest: str) -> str:
    return f"autoencoder-{digest[:16]}.safetensors"
