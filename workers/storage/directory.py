"""A store in a directory: a file is written aside, flushed to disk and linked to its name.

Whoever can see a file sees all of it; what a crash leaves aside is nobody's and is swept. Standard library only.
"""

from __future__ import annotations

import errno
import os
import secrets
import shutil
import tempfile
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from workers.contracts.errors import StorageFull, StoreError, StoreGone
from workers.contracts.job import StoredObject
from workers.storage.store import ASIDE, Found, Store, checked

CHUNK = 256 * 1024
TRIES = 5
"""Two may delete one tree, or one write to it, at the same time: the loser looks again."""
_FULL = (errno.ENOSPC, errno.EDQUOT)
_NO_LINKS = (errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EMLINK, errno.ENOSYS)


class DirectoryStore(Store):
    """Files below `root`."""

    def __init__(self, root: Path) -> None:
        """Make the root; raises StoreError unless it can be written. A full disk can: it may have room later."""
        self.root = root.absolute()
        with suppress(StorageFull), _told("written", self.root):
            self.root.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=self.root):
                pass

    def path(self, stored: StoredObject) -> Path:
        """Where a file lies; raises StoreError if that is not inside the root."""
        return self._resolve(stored.path)

    def local_path(self, stored: StoredObject) -> Path | None:
        return self.path(stored)

    def chunks(self, stored: StoredObject, *, start: int = 0, stop: int | None = None) -> Iterator[bytes]:
        left = (stored.bytes if stop is None else stop) - start
        with _told("read", self.path(stored)), self.path(stored).open("rb") as file:
            file.seek(start)
            while left > 0 and (chunk := file.read(min(CHUNK, left))):
                left -= len(chunk)
                yield chunk

    def delete(self, paths: Collection[str]) -> None:
        for path in paths:
            target = self._resolve(path)
            with _told("deleted", target):
                target.unlink(missing_ok=True)
            with suppress(OSError):  # folders go with their last file
                while (target := target.parent) != self.root:
                    target.rmdir()

    def delete_tree(self, prefix: str) -> None:
        target = self._resolve(prefix)
        for _ in range(TRIES):
            shutil.rmtree(target, ignore_errors=True)
            if not os.path.lexists(target):
                return
        with _told("deleted", target), suppress(FileNotFoundError):
            shutil.rmtree(target)

    def files(self, prefix: str = "") -> Iterator[Found]:
        for folder, _, names in os.walk(self._resolve(prefix) if prefix else self.root):
            for name in names:
                path = Path(folder, name)
                with suppress(FileNotFoundError):
                    stat = path.stat(follow_symlinks=False)
                    yield Found(path.relative_to(self.root).as_posix(), stat.st_size, stat.st_mtime)

    def folders(self, prefix: str) -> list[str]:
        try:
            with os.scandir(self._resolve(prefix)) as entries:
                return sorted(entry.name for entry in entries if entry.is_dir(follow_symlinks=False))
        except FileNotFoundError:
            return []

    def free_bytes(self) -> int | None:
        """As an ordinary user may use it."""
        with _told("read", self.root):
            stat = os.statvfs(self.root)
        return stat.f_bavail * stat.f_frsize

    def _create(self, path: str, data: bytes) -> bool:
        target = self._resolve(path)
        with _told("written", target):
            for _ in range(TRIES - 1):
                with suppress(FileNotFoundError):  # the folder was deleted meanwhile
                    return _write(target, data)
            return _write(target, data)

    def _content(self, path: str) -> bytes:
        target = self._resolve(path)
        with _told("read", target):
            return target.read_bytes()

    def _resolve(self, path: str) -> Path:
        target = self.root.joinpath(checked(path))
        if not target.resolve().is_relative_to(self.root.resolve()):
            raise StoreError(f"{path!r} leads out of the store")
        return target


def _write(target: Path, data: bytes) -> bool:
    """Write a new file; False if there is one of that name."""
    if target.exists():
        return False
    target.parent.mkdir(parents=True, exist_ok=True)
    aside = target.with_name(f"{ASIDE}{secrets.token_hex(8)}")
    try:
        with aside.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        return _name(aside, target)
    finally:
        aside.unlink(missing_ok=True)


def _name(aside: Path, target: Path) -> bool:
    """Give a written file its name unless that is taken: a link, unlike a rename, replaces nothing."""
    try:
        os.link(aside, target)
    except FileExistsError:
        return False
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        aside.rename(target)
    return True


@contextmanager
def _told(done: str, path: Path) -> Iterator[None]:
    """An OSError inside as ours."""
    try:
        yield
    except FileNotFoundError as error:
        raise StoreGone(f"{path} cannot be {done}: {error.strerror}") from error
    except OSError as error:
        if error.errno in _FULL:
            remedy = "delete finished jobs, or give the store more room"
            raise StorageFull(f"the store has no room: {error.strerror}; {remedy}", retry_after=30) from error
        raise StoreError(f"{path} cannot be {done}: {error.strerror}") from error
