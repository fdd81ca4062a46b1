"""The data directory: one `gridit up` at a time holds it, by a file lock that the system drops with its holder.

Beside the lock lies a record of who holds it and which processes it started, so that a second `up` can name the
first, and the next one can stop what a killed one left behind.
"""

from __future__ import annotations

import fcntl
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, Self

from pydantic import ValidationError

from workers.contracts.errors import GriditError
from workers.contracts.job import Value
from workers.supervisor.process import Process

LOCK, RECORD = "up.lock", "up.json"


class DirectoryInUse(GriditError):
    """Another `gridit up` holds the data directory; the message names its process."""

    code = "data_dir_in_use"


class DirectoryNotWritable(GriditError):
    """The data directory cannot be made or written."""

    code = "data_dir_not_writable"


class Record(Value):
    """Who holds the directory, where it serves, and what it started."""

    pid: int
    url: str
    started_at: float
    children: tuple[Process, ...] = ()
    ready: bool = False
    """Whether it has answered since it started."""


class DataDirectory:
    """A held directory; a context manager that gives it back."""

    def __init__(self, path: Path, lock: IO[str], *, left_behind: tuple[Process, ...]) -> None:
        self.path = path
        self.left_behind = left_behind
        """What the last holder recorded; it may still run."""
        self._lock = lock
        self._record = Record(pid=os.getpid(), url="", started_at=time.time())

    @classmethod
    def claim(cls, path: Path) -> Self:
        """Make the directory if need be and hold it. Raises DirectoryInUse, DirectoryNotWritable."""
        path = path.expanduser().absolute()
        try:
            path.mkdir(mode=0o700, parents=True, exist_ok=True)
            lock = (path / LOCK).open("a+", encoding="utf-8")
        except OSError as error:
            raise DirectoryNotWritable(
                f"the data directory {path} cannot be written: {error.strerror}; choose another one with --data-dir"
            ) from error
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.close()
            raise DirectoryInUse(_in_use(path)) from None
        last = read_record(path)
        return cls(path, lock, left_behind=() if last is None else last.children)

    def record(self, **changes: object) -> None:
        """Replace fields of the record, atomically for readers."""
        self._record = self._record.evolve(**changes)
        aside = self.path / f"{RECORD}.new"
        aside.write_text(self._record.model_dump_json(indent=2), encoding="utf-8")
        aside.replace(self.path / RECORD)

    def record_children(self, children: Sequence[Process]) -> None:
        self.record(children=tuple(children))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Give the directory back; whoever comes next finds no children to stop."""
        (self.path / RECORD).unlink(missing_ok=True)
        self._lock.close()


def read_record(path: Path) -> Record | None:
    """What the holder (or the last one that was killed) wrote; None where nothing readable is."""
    try:
        return Record.model_validate_json((path / RECORD).read_text(encoding="utf-8"))
    except (OSError, ValidationError):
        return None


def default_directory() -> Path:
    """Where a user's data belongs on this platform."""
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Application Support" / "gridit"
    home = os.environ.get("XDG_DATA_HOME", "")
    return (Path(home) if Path(home).is_absolute() else Path.home() / ".local" / "share") / "gridit"


def _in_use(path: Path) -> str:
    record = read_record(path)
    if record is None:
        return f"the data directory {path} is in use by another gridit up; choose another one with --data-dir"
    at = f" serving {record.url}" if record.url else ""
    return (
        f"the data directory {path} is in use by gridit up, process {record.pid}{at}; "
        f"stop it (kill {record.pid}) or choose another directory with --data-dir"
    )
