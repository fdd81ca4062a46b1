"""A ZIP of frames, made when it is asked for: the same frames give the same bytes, so ranges of it fit together."""

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
    names = "".join(f"{index}:{stored[index].sha256};" for index in sorted(stored))
    return Archive(Path(target.name), hashlib.sha256(names.encode()).hexdigest())
