"""Pre-rendered sequences on disk, so that drawing never starves the training.

A `Clips` value names a block of sequences of one domain; `open_clips` renders it once into a `.npy` file and
maps it from then on. The file's name holds a digest of the domain's source: edit a domain and its clips are
drawn afresh. Sequences for training start at seed 0, those for evaluation at `EVALUATION_SEED`; the two never meet.
"""

from __future__ import annotations

import hashlib
import importlib
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import numpy as np
from numpy.typing import NDArray

from models.data import domains

TRAINING_SEED = 0
"""First seed of the sequences that nets are trained on."""
EVALUATION_SEED = 1_000_000
"""First seed of the sequences that no net is ever trained on."""


@dataclass(frozen=True)
class Clips:
    """Sequences `first_seed`..`first_seed + sequences - 1` of a domain, their first `frames` frames."""

    domain: str
    sequences: int
    frames: int
    size: int
    first_seed: int = TRAINING_SEED

    def __post_init__(self) -> None:
        """Training seeds and evaluation seeds must not meet."""
        if self.first_seed < EVALUATION_SEED < self.first_seed + self.sequences:
            raise ValueError(f"sequences from seed {self.first_seed} reach the evaluation seeds ({EVALUATION_SEED})")

    @property
    def file(self) -> str:
        """Name of the file that holds them."""
        seeds = f"{self.first_seed}+{self.sequences}"
        return f"{self.domain}-{self.size}px-{self.frames}f-{seeds}-{source_digest(self.domain)[:12]}.npy"


def open_clips(clips: Clips, folder: Path) -> NDArray[np.uint8]:
    """(sequences, frames, size, size, 3) uint8 sRGB, read-only; rendered into `folder` when not there yet."""
    path = folder / clips.file
    if not path.exists():
        _write(path, clips)
    mapped: NDArray[np.uint8] = np.load(path, mmap_mode="r")
    return mapped


def source_digest(domain: str) -> str:
    """SHA-256 over the domain's source and that of the drawing modules it imports from."""
    module = importlib.import_module(f"{domains.__name__}.{domain}")
    digest = hashlib.sha256()
    for name in sorted(_drawing_modules(module)):
        file = sys.modules[name].__file__
        assert file is not None, name
        digest.update(Path(file).read_bytes())
    return digest.hexdigest()


def _drawing_modules(module: ModuleType) -> set[str]:
    owners = (getattr(value, "__module__", None) for value in vars(module).values())
    return {module.__name__} | {name for name in owners if name is not None and name.startswith("models.data.")}


def _write(path: Path, clips: Clips) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        _render(clips, aside)
        aside.replace(path)
    finally:
        aside.unlink(missing_ok=True)


def _render(clips: Clips, path: Path) -> None:
    shape = (clips.sequences, clips.frames, clips.size, clips.size, 3)
    out = np.lib.format.open_memmap(path, mode="w+", dtype=np.uint8, shape=shape)
    domain = domains.load(clips.domain)
    for index in range(clips.sequences):
        out[index] = domain.render(clips.first_seed + index, frames=clips.frames, size=clips.size)
    out.flush()
