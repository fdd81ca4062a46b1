"""The object store: immutable files under one root directory.

A path is written once: its name carries a hash or an attempt, so a reader never sees a file change. A file is written
aside, flushed to disk and renamed; whoever can see it sees all of it. Standard library and contracts only: the service
reads from it, the workers write to it.
"""

from __future__ import annotations

import hashlib
import os
import secrets
import shutil
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from workers.contracts.errors import StoreError
from workers.contracts.job import StoredObject

ASIDE = ".partial-"
"""Start of the names of files being written."""


class Store:
    """Files by relative path below `root`."""

    def __init__(self, root: Path) -> None:
        """Make the root; raises StoreError unless it can be written."""
        self.root = root.absolute()
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            probe = self.root / f"{ASIDE}{secrets.token_hex(8)}"
            probe.touch(exist_ok=False)
            probe.unlink()
        except OSError as error:
            raise StoreError(f"the store {self.root} cannot be written: {error.strerror}") from error

    def put(
        self, path: str, data: bytes, *, media_type: str, width: int | None = None, height: int | None = None
    ) -> StoredObject:
        """Write a new file. Writing the same bytes to the same path again is success, other bytes a StoreError."""
        target = self._resolve(path)
        digest = hashlib.sha256(data).hexdigest()
        stored = StoredObject(
            path=path, sha256=digest, bytes=len(data), media_type=media_type, width=width, height=height
        )
        try:
            if target.exists():
                self._check_same(target, digest)
            else:
                _write(target, data)
        except OSError as error:
            raise StoreError(f"{target} cannot be written: {error.strerror}") from error
        return stored

    def read(self, stored: StoredObject) -> bytes:
        """All of a file's bytes; raises StoreError if it is gone or not what was stored."""
        with self.open(stored) as file:
            data = file.read()
        if hashlib.sha256(data).hexdigest() != stored.sha256:
            raise StoreError(f"{stored.path} is damaged: its hash is not the one that was stored")
        return data

    def open(self, stored: StoredObject) -> BinaryIO:
        """A file to read from; raises StoreError if it is gone."""
        try:
            return self.path(stored).open("rb")
        except OSError as error:
            raise StoreError(f"{stored.path} cannot be read: {error.strerror}") from error

    def path(self, stored: StoredObject) -> Path:
        """Where a file lies; raises StoreError if that is not inside the root."""
        return self._resolve(stored.path)

    def delete_tree(self, prefix: str) -> None:
        """Delete a directory and all below it; one that is not there is success."""
        target = self._resolve(prefix)
        try:
            shutil.rmtree(target)
        except FileNotFoundError:
            pass
        except OSError as error:
            raise StoreError(f"{target} cannot be deleted: {error.strerror}") from error

    def _resolve(self, path: str) -> Path:
        parts = PurePosixPath(path).parts
        plain = bool(parts) and not path.startswith("/") and "\0" not in path and "\\" not in path
        if not plain or any(part in ("..", ".") for part in path.split("/")):
            raise StoreError(f"{path!r} is no path inside the store")
        target = self.root.joinpath(*parts)
        if not target.resolve().is_relative_to(self.root.resolve()):
            raise StoreError(f"{path!r} leads out of the store")
        return target

    def _check_same(self, target: Path, digest: str) -> None:
        if hashlib.sha256(target.read_bytes()).hexdigest() != digest:
            raise StoreError(f"{target} exists with other content; a path is written once")


def _write(target: Path, data: bytes) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    aside = target.with_name(f"{ASIDE}{secrets.token_hex(8)}")
    try:
        with aside.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        aside.rename(target)
    finally:
        aside.unlink(missing_ok=True)
