"""Archives of frames, made when they are asked for: equal frames give equal bytes, so ranges of them fit together."""

from __future__ import annotations

import hashlib
import tempfile
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

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
    """A NumPy archive: `frames` (n, H, W, 3) uint8 or (n, H, W) uint16, and the `index` of each in its sequence.

    Frames go through one by one: a long sequence of large ones does not fit the memory of a server.
    """
    import numpy as np

    ordered = [path for _, path in sorted(paths.items())]
    first = _pixels(ordered[0])
    header = {"descr": np.lib.format.dtype_to_descr(first.dtype), "fortran_order": False}
    with tempfile.NamedTemporaryFile(suffix=".npz", delete=False) as target, zipfile.ZipFile(target, "w") as archive:
        with archive.open(_member("frames.npy"), "w", force_zip64=True) as member:
            np.lib.format.write_array_header_1_0(member, header | {"shape": (len(ordered), *first.shape)})
            for path in ordered:
                member.write(_pixels(path).tobytes())
        with archive.open(_member("index.npy"), "w") as member:
            np.lib.format.write_array(member, np.array(sorted(paths)), allow_pickle=False)
    return Archive(Path(target.name), _digest("npz", stored))


def _member(name: str) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name, _EPOCH)
    info.compress_type = zipfile.ZIP_DEFLATED
    return info


def _pixels(path: Path) -> Any:
    """(H, W, 3) uint8 or (H, W) uint16."""
    import numpy as np
    from PIL import Image

    with Image.open(path) as image:
        return np.asarray(image).astype(np.uint16 if image.mode.startswith("I") else np.uint8)


def _digest(kind: str, stored: Mapping[int, StoredObject]) -> str:
    names = "".join(f"{index}:{stored[index].sha256};" for index in sorted(stored))
    return hashlib.sha256(f"{kind};{names}".encode()).hexdigest()
