"""Feature nets that the user names, for FID and FVD: TorchScript files, run over frames or clips.

No net is shipped or fetched. A TorchScript file is a program: loading and running one runs whatever is in it, so
its digest is part of every report. What the commonly distributed files expect is the default here; other nets are told
what they get by `Convention`.
"""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

Bytes = NDArray[np.uint8]
Doubles = NDArray[np.float64]

_WISHES = {"return_features": True, "rescale": False, "resize": False}
"""Arguments that published files offer, and what they are told: features, please, of input that is ready."""


class FeatureNetError(ValueError):
    """A file is no net that gives features; the message names the file, what was found and the remedy."""

    def __init__(self, path: Path, found: str, remedy: str) -> None:
        super().__init__(f"feature net {path}: {found}; {remedy}")


class Values(StrEnum):
    """What a net expects pixels to be."""

    BYTES = "bytes"
    """uint8, 0..255."""
    UNIT = "unit"
    """float32, 0..1."""
    SIGNED = "signed"
    """float32, -1..1."""


@dataclass(frozen=True, slots=True)
class Convention:
    """How frames are put to a net."""

    values: Values
    size: int | None
    """Side in pixels to which frames are scaled (bilinear, antialiased); None: as they are, the net scales them."""
    clip: int | None
    """Frames of a clip, (n, 3, clip, H, W); None: single frames, (n, 3, H, W)."""
    stride: int = 1
    """Every how many frames a single frame is taken; neighbours are nearly one and the same."""


FID = Convention(Values.BYTES, size=None, clip=None, stride=4)
"""Inception as distributed in TorchScript: it scales to 299 pixels by itself; 2048 features."""
FVD = Convention(Values.SIGNED, size=224, clip=16)
"""I3D as distributed in TorchScript: 224 pixels, clips of 16 frames here; 400 features."""


class FeatureNet:
    """A TorchScript module and how it is asked."""

    def __init__(self, path: Path, convention: Convention, *, device: torch.device | None = None) -> None:
        self.path, self.convention = path, convention
        self._device = device or torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self._net, self.digest = _load(path, self._device)
        offered = {argument.name for argument in self._net.forward.schema.arguments}  # type: ignore[attr-defined]
        self._wishes = {name: wish for name, wish in _WISHES.items() if name in offered}

    def facts(self) -> dict[str, object]:
        """Which file it is and how it was asked."""
        shown = asdict(self.convention) | {"values": self.convention.values.value}
        return {"file": self.path.name, "sha256": self.digest, **shown}

    @torch.inference_mode()
    def features(self, frames: Bytes) -> Doubles:
        """Of a sequence (F, H, W, 3): (n, D), a row for each frame or clip that is looked at."""
        parts = [self._ask(batch) for batch in _batches(frames, self.convention)]
        if not parts:
            found = f"its clips have {self.convention.clip} frames, the sequences only {len(frames)}"
            raise FeatureNetError(self.path, found, "measure longer sequences, or name shorter clips")
        return np.concatenate(parts)

    def _ask(self, batch: Tensor) -> Doubles:
        shown = _shown(batch.to(self._device), self.convention)
        try:
            answer = self._net(shown, **self._wishes)
        except RuntimeError as error:
            found = f"it fails on input {tuple(shown.shape)} of {shown.dtype}: {str(error).strip().splitlines()[-1]}"
            raise FeatureNetError(self.path, found, "see the options for what the net is shown") from error
        return self._checked(answer, rows=len(batch))

    def _checked(self, answer: object, *, rows: int) -> Doubles:
        expected = f"expected are {rows} rows of features"
        if not isinstance(answer, Tensor):
            raise FeatureNetError(self.path, f"it answers {type(answer).__name__}, {expected}", "wrap the net")
        if answer.ndim < 2 or len(answer) != rows or answer[0].numel() != answer.shape[1]:
            raise FeatureNetError(self.path, f"it answers {tuple(answer.shape)}, {expected}", "wrap the net")
        if not bool(answer.isfinite().all()):
            raise FeatureNetError(self.path, "it answers numbers that are not finite", "check what the net is shown")
        return np.asarray(answer.flatten(1).double().cpu().numpy())


def _load(path: Path, device: torch.device) -> tuple[torch.jit.ScriptModule, str]:
    remedy = "name a module saved by torch.jit.save"
    if not path.is_file():
        raise FeatureNetError(path, "no such file", remedy)
    try:
        with warnings.catch_warnings():  # the format in which these nets are distributed is deprecated
            warnings.simplefilter("ignore", DeprecationWarning)
            net = torch.jit.load(path, map_location=device)  # type: ignore[no-untyped-call]
    except (RuntimeError, ValueError) as error:
        raise FeatureNetError(
            path, f"no TorchScript ({str(error).splitlines()[0].partition('. ')[0]})", remedy
        ) from error
    if not hasattr(net, "forward"):
        raise FeatureNetError(path, "a module without forward", remedy)
    with path.open("rb") as stream:
        return net.eval(), hashlib.file_digest(stream, "sha256").hexdigest()


def _batches(frames: Bytes, convention: Convention) -> Iterator[Tensor]:
    """Frames (F, H, W, 3) as (n, 3, H, W), or as clips one after the other, (1, 3, clip, H, W)."""
    planes = torch.from_numpy(np.ascontiguousarray(frames)).movedim(-1, 1)
    if convention.clip is None:
        yield from torch.split(planes[:: convention.stride], 16)
        return
    for start in range(0, len(planes) - convention.clip + 1, convention.clip):
        yield planes[start : start + convention.clip].movedim(0, 1)[None]


def _shown(batch: Tensor, convention: Convention) -> Tensor:
    """Bytes as the net expects them."""
    if convention.size is not None:
        batch = _scaled(batch, convention.size)
    if convention.values is Values.BYTES:
        return batch.round().clamp(0, 255).byte() if batch.is_floating_point() else batch
    unit = batch.float() / 255.0
    return unit if convention.values is Values.UNIT else unit * 2.0 - 1.0


def _scaled(batch: Tensor, size: int) -> Tensor:
    """(n, 3, [clip,] H, W) -> the same with `size` for H and W."""
    planes = batch.float().flatten(0, -4) if batch.ndim > 4 else batch.float()
    scaled = F.interpolate(planes, size=(size, size), mode="bilinear", align_corners=False, antialias=True)
    return scaled.reshape(*batch.shape[:-2], size, size)
