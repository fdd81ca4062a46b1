"""Readers of jobs' events who come and go: each drops its connection at random and resumes with Last-Event-ID.

What a reader has heard in the end must be the whole story: ids dense from 1, every frame once and in order. They go
through the product's own client, so whatever it hides (a lost connection, a restart) is hidden from them.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol

from service.client import Client, Event
from workers.contracts.event import EventType


class Told(Protocol):
    """An event, in the words of the queue or of the client."""

    @property
    def type(self) -> EventType: ...

    @property
    def data(self) -> Mapping[str, Any]: ...


class Reader(threading.Thread):
    """Follows one job to its end."""

    def __init__(self, url: str, job_id: str, *, seed: int) -> None:
        super().__init__(name=f"reader-{seed}", daemon=True)
        self._url = url
        self.job_id = job_id
        self._dice = random.Random(seed)
        self.heard: list[Event] = []
        """Stored events, as they came."""
        self.connections = 0
        self.error: Exception | None = None

    def run(self) -> None:
        """The thread."""
        try:
            while not (self.heard and self.heard[-1].type.terminal):
                self._read_some()
        except Exception as error:  # noqa: BLE001 - told by `story`
            self.error = error

    def story(self, *, within: float) -> list[Event]:
        """All that was heard, once the job has ended; fails if it was not all, or not once."""
        self.join(within)
        if self.error is not None:
            raise self.error
        assert not self.is_alive(), f"{self.job_id}: still reading after {len(self.heard)} events"
        assert [event.id for event in self.heard] == list(range(1, len(self.heard) + 1)), "a gap, or a repeat"
        return self.heard

    def _read_some(self) -> None:
        """One connection, dropped after some events."""
        self.connections += 1
        patience = self._dice.randrange(1, 60)
        last = self.heard[-1].id if self.heard else 0
        with Client(self._url) as client:
            for event in client.events(self.job_id, after=last):
                if event.id:
                    self.heard.append(event)
                patience -= 1
                if not patience:
                    return


def follow(url: str, job_ids: Iterable[str], *, each: int = 2) -> list[Reader]:
    """Some readers of each job, at work."""
    readers = [Reader(url, job_id, seed=seed) for seed, job_id in enumerate(list(job_ids) * each)]
    for reader in readers:
        reader.start()
    return readers


def frames_of(events: Sequence[Told]) -> list[tuple[str, int]]:
    """Stage and index of each frame, as they were told."""
    return [(event.data["stage"], event.data["index"]) for event in events if event.type is EventType.FRAME]


def assert_whole(events: Sequence[Told], *, count: int) -> None:
    """Every frame once and in order, each refined one after its coarse one, one end, which is a good one."""
    frames = frames_of(events)
    for stage in ("coarse", "refined"):
        assert [index for kind, index in frames if kind == stage] == list(range(count))
    assert all(frames.index(("coarse", index)) < frames.index(("refined", index)) for index in range(count))
    assert [event.type for event in events if event.type.terminal] == [EventType.COMPLETED], events[-1].data
    assert events[-1].type is EventType.COMPLETED
