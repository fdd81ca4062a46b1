"""Waiting on an asynchronous iterator with a time limit, without ever losing an item of it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from enum import Enum, auto
from typing import Generic, TypeVar

import anyio

T = TypeVar("T")


class Pause(Enum):
    """Why there is no item."""

    SILENCE = auto()
    """Nothing came in time; it may yet."""
    END = auto()
    """The source is exhausted, or the process is about to stop."""


class Following(Generic[T]):
    """One reader of a source; `close` it. Not for use by two tasks at once."""

    def __init__(self, source: AsyncGenerator[T, None], *, stop: asyncio.Event) -> None:
        self._source = source
        self._stop = stop
        self._upcoming: asyncio.Task[T | Pause] | None = None
        self._stopping = asyncio.create_task(stop.wait())

    async def next(self, *, within: float) -> T | Pause:
        """The next item; SILENCE if it takes longer than `within` seconds (ask again), END if there is none."""
        if self._stop.is_set():
            return Pause.END
        if self._upcoming is None:
            self._upcoming = asyncio.create_task(self._advance())
        await asyncio.wait({self._upcoming, self._stopping}, timeout=within, return_when=asyncio.FIRST_COMPLETED)
        if not self._upcoming.done():
            return Pause.END if self._stop.is_set() else Pause.SILENCE
        finished, self._upcoming = self._upcoming, None
        return finished.result()

    async def close(self) -> None:
        """Ends the source; runs to its end even where the reader's own task is being cancelled."""
        with anyio.CancelScope(shield=True):
            tasks = [task for task in (self._upcoming, self._stopping) if task]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await self._source.aclose()

    async def _advance(self) -> T | Pause:
        try:
            return await anext(self._source)
        except StopAsyncIteration:
            return Pause.END
