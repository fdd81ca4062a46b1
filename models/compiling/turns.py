"""Whose turn it is: a lock of one piece of work among all processes of this machine that would do it.

The kernel holds it for a process and lets it go when that process ends, however it ends; there is nothing to clean up.
"""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

from filelock import FileLock, Timeout

LOOK_SECONDS = 0.1


class Turn:
    """A context that is entered at once; the turn is had when `mine`, at the latest after `wait`.

    with cache.building(key) as turn:
        if not turn.mine:
            yield WAIT
            turn.wait()
        ...  # look again, build, store
    """

    def __init__(self, path: Path) -> None:
        """`path` is the lock's file, in a directory that is there; the file stays."""
        self._lock = FileLock(path, thread_local=False)

    @property
    def mine(self) -> bool:
        """Whether nobody else has the turn now."""
        return self._lock.is_locked

    def wait(self) -> None:
        """Until it is mine. What was not there before may be there now."""
        if not self.mine:
            self._lock.acquire(poll_interval=LOOK_SECONDS)

    def __enter__(self) -> Self:
        with suppress(Timeout):  # somebody else's: the caller says so, and waits
            self._lock.acquire(blocking=False)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._lock.release()
