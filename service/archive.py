"""Archives of frames, made when they are asked for: equal frames give equal bytes, so ranges of them fit together."""

from __future__ import annotations

import errno
import hashlib
import io
import tempfile
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from workers.contracts.errors import StorageFull
from workers.contracts.job import StoredObject
from workers.storage import Store

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


def zip_frames(store: Store, *, stored: Mapping[int, StoredObject]) -> Archive:
    """Entries `0000.png`, `0001.png`, ... stored as they are: PNGs do not shrink any further."""
    with _new(".zip") as path, zipfile.ZipFile(path, "w") as archive:
        for index, frame in sorted(stored.items()):
            name = f"{index:04d}{Path(frame.path).suffix}"
            archive.writestr(zipfile.ZipInfo(name, _EPOCH), store.read(frame))
    return Archive(path, _digest("zip", stored))


def npz_frames(store: Store, *, stored: Mapping[int, StoredObject]) -> Archive:
    """A NumPy archive: `frames` (n, H, W, 3) uint8 or (n, H, W) uint16, and the `index` of each in its sequence.

    Frames go through one by one: a long sequence of large ones does not fit the memory of a server.
    """
    import numpy as np

    ordered = [frame for _, frame in sorted(stored.items())]
    first = _pixels(store.read(ordered[0]))
    header = {"descr": np.lib.format.dtype_to_descr(first.dtype), "fortran_order": False}
    with _new(".npz") as path, zipfile.ZipFile(path, "w") as archive:
        with archive.open(_member("frames.npy"), "w", force_zip64=True) as member:
            np.lib.format.write_array_header_1_0(member, header | {"shape": (len(ordered), *first.shape)})
            for frame in ordered:
                member.write(_pixels(store.read(frame)).tobytes())
        with archive.open(_member("index.npy"), "w") as member:
            np.lib.format.write_array(member, np.array(sorted(stored)), allow_pickle=False)
    return Archive(path, _digest("npz", stored))


@contextmanager
def _new(suffix: str) -> Iterator[Path]:
    """A temporary file, gone again if anything goes wrong; raises StorageFull if there is no room for it."""
    with tempfile.NamedTemporaryFile(suffix=suffix, delete=False) as target:
        path = Path(target.name)
    try:
        yield path
    except BaseException as error:
        path.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            message = f"No room for a {suffix} file in {path.parent}; take the frames one by one, or try again later."
            raise StorageFull(message, retry_after=30) from error
        raise


def _member(name: str) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name, _EPOCH)
    info.compress_type = zipfile.ZIP_DEFLATED
    return info


def _pixels(data: bytes) -> Any:
    """(H, W, 3) uint8 or (H, W) uint16."""
    import numpy as np
    from PIL import Image

    with Image.open(io.BytesIO(data)) as image:
        return np.asarray(image).astype(np.uint16 if image.mode.startswith("I") else np.uint8)


def _digest(kind: str, stored: Mapping[int, StoredObject]) -> str:
    names = "".join(f"{index}:{stored[index].sha256};" for index in sorted(stored))
    return hashlib.sha256(f"{kind};{names}".encode()).hexdigest()
