"""The seam: what every store does, and what is the same in all of them.

A path is written once: its name carries a hash or an attempt, so a reader never sees a file change, and it sees all of
a file or none. What differs (a directory, an object store) is below `put` and `read`.
"""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from workers.contracts.errors import StoreError
from workers.contracts.job import StoredObject

ASIDE = ".partial-"
"""Start of the names of files being written."""


@dataclass(frozen=True, slots=True)
class Found:
    """A file that lies in the store, whoever put it there."""

    path: str
    bytes: int
    modified_at: float
    """Seconds since the epoch, by the store's clock."""


class Store(ABC):
    """Files by relative path. Raises StoreGone, StorageFull, StoreUnavailable; for all else a plain StoreError."""

    def put(
        self, path: str, data: bytes, *, media_type: str, width: int | None = None, height: int | None = None
    ) -> StoredObject:
        """Write a new file. Writing the same bytes to the same path again is success, other bytes a StoreError."""
        digest = hashlib.sha256(data).hexdigest()
        stored = StoredObject(
            path=checked(path), sha256=digest, bytes=len(data), media_type=media_type, width=width, height=height
        )
        if not self._create(path, data) and hashlib.sha256(self._content(path)).hexdigest() != digest:
            raise StoreError(f"{path} exists with other content; a path is written once")
        return stored

    def read(self, stored: StoredObject) -> bytes:
        """All of a file's bytes; raises StoreGone if it is not there, StoreError if it is not what was stored."""
        data = self._content(checked(stored.path))
        if hashlib.sha256(data).hexdigest() != stored.sha256:
            raise StoreError(f"{stored.path} is damaged: its hash is not the one that was stored")
        return data

    @abstractmethod
    def chunks(self, stored: StoredObject, *, start: int = 0, stop: int | None = None) -> Iterator[bytes]:
        """The bytes start..stop-1 in pieces that memory can hold; the hash, which is of all of them, is not checked."""

    @abstractmethod
    def delete(self, paths: Collection[str]) -> None:
        """Delete files; one that is not there is success."""

    @abstractmethod
    def delete_tree(self, prefix: str) -> None:
        """Delete all below a path; nothing being there is success."""

    @abstractmethod
    def files(self, prefix: str = "") -> Iterator[Found]:
        """Every file below a path, those being written included."""

    @abstractmethod
    def folders(self, prefix: str) -> list[str]:
        """Names of what lies directly below a path and has something below itself."""

    @abstractmethod
    def free_bytes(self) -> int | None:
        """Room that is left; None where no bound is known."""

    def local_path(self, stored: StoredObject) -> Path | None:
        """Where a file lies on this machine, for who can send it from there; None if it does not."""
        return None

    @abstractmethod
    def _create(self, path: str, data: bytes) -> bool:
        """Write all of a new file, or False if there is one."""

    @abstractmethod
    def _content(self, path: str) -> bytes:
        """All of a file."""


def checked(path: str) -> str:
    """A path that stays inside the store; raises StoreError for any other."""
    plain = bool(PurePosixPath(path).parts) and not path.startswith("/") and "\0" not in path and "\\" not in path
    if not plain or any(part in ("..", ".") for part in path.split("/")):
        raise StoreError(f"{path!r} is no path inside the store")
    return path
