"""Files that nobody can have written but this user, or root: read with that checked, written so that it stays true.

An owner and a mode say who may have written a file; what was written, a hash says. The kernel is asked about the very
file that was opened, so nothing can be exchanged between the check and the reading. Parents of the directory are not
looked at: whoever can rename the directory away cannot put another one of this user's in its place.
"""

from __future__ import annotations

import os
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

OTHERS_MAY_WRITE = stat.S_IWGRP | stat.S_IWOTH
ASIDE = ".aside-"
"""How names of files begin that are being written; one that is left over was never finished."""


class NotOwn(RuntimeError):
    """Somebody else may have written it; the message says who, and the remedy."""


def check_directory(path: Path) -> None:
    """`NotOwn` if others may put files there. A symbolic link is followed: what counts is where it leads."""
    found = path.stat()
    if not stat.S_ISDIR(found.st_mode):
        raise NotOwn(f"{path} is no directory")
    _check(path, found, remedy=f"chmod go-w {path}, or name a directory inside it, which is then made this user's own")


@contextmanager
def opened(path: Path) -> Iterator[BinaryIO]:
    """A file to read. `NotOwn`, or OSError if it cannot be read."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError as error:
        if path.is_symlink():
            raise NotOwn(f"{path} is a symbolic link; remove it") from error
        raise
    with os.fdopen(descriptor, "rb") as stream:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode):
            raise NotOwn(f"{path} is no regular file; remove it")
        _check(path, found, remedy="remove it")
        yield stream


def read(path: Path) -> bytes:
    """The content of a file, as `opened`."""
    with opened(path) as stream:
        return stream.read()


def make_directory(path: Path) -> None:
    """Make it, this user's alone, if it is not there, and check it."""
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    check_directory(path)


def write(path: Path, content: bytes) -> None:
    """Replace a file's content: a reader, or a crash, sees the old or the new, whole."""
    with tempfile.NamedTemporaryFile(dir=path.parent, prefix=ASIDE, delete=False) as aside:
        try:
            aside.write(content)
            aside.flush()
            os.fsync(aside.fileno())
            Path(aside.name).replace(path)
        except BaseException:
            Path(aside.name).unlink(missing_ok=True)
            raise


def _check(path: Path, found: os.stat_result, *, remedy: str) -> None:
    if found.st_uid not in (os.geteuid(), 0):
        raise NotOwn(f"{path} belongs to user {found.st_uid}, not to {os.geteuid()} who would run it; {remedy}")
    if found.st_mode & OTHERS_MAY_WRITE:
        raise NotOwn(f"{path} may be written by others (mode {stat.S_IMODE(found.st_mode):o}); {remedy}")
