"""Archives of frames, made when they are asked for: equal frames give equal bytes, so ranges of them fit together."""

from __future__ import annotations

import hashlib
import tempfile
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from workers.contracts.job import StoredObject

_EPOCH = (1980, 1, 1, 0, 0, 0)
"""The time every entry carries; ZIP knows none before it."""


@dataclass(frozen=True)
class Archive:
    """A temporary file; whoever asked for it removes it."""

    path: Path
    digest: str

    def remove(self) -> None:
        """Repeat-safe."""
        self.path.unlink(missing_ok=True)


def zip_frames(paths: Mapping[int, Path], *, stored: Mapping[int, StoredObject]) -> Archive:
    """Entries `0000.png`, `0001.png`, ... stored as they are: PNGs do not shrink any further."""
    with tempfile.NamedTemporaryFile(suffix=".zip", delete=False) as target, zipfile.ZipFile(target, "w") as archive:
        for index, path in sorted(paths.items()):
            archive.writestr(zipfile.ZipInfo(f"{index:04d}{path.suffix}", _EPOCH), path.read_bytes())
    return Archive(Path(target.name), _digest("zip", stored))


def npz_frames(paths: Mapping[int, Path], *, stored: Mapping[int, StoredObject]) -> Archive:
    """A NumPy archive: `frames` (n, H, W, 3) uint8 or (n, H, W) uint16, and the `index` of each in its sequence."""
    import numpy as np
    from PIL import Image

    frames = []
    for _, path in sorted(paths.items()):
        with Image.open(path) as image:
            frames.append(np.asarray(image).astype(np.uint16 if image.mode.startswith("I") else np.uint8))
    with tempfile.NamedTemporaryFile(suffix=".npz", delete=False) as target:
        np.savez_compressed(target, frames=np.stack(frames), index=np.array(sorted(paths)))
    return Archive(Path(target.name), _digest("npz", stored))


def _digest(kind: str, stored: Mapping[int, StoredObject]) -> str:
    names = "".join(f"{index}:{stored[index].sha256};" for index in sorted(stored))
    return hashlib.sha256(f"{kind};{names}".encode()).hexdigest()
