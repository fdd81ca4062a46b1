"""How far a job is, as its events tell it: a frozen value that each event replaces."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from service.client import Event
from workers.contracts.event import EventType
from workers.contracts.job import Stage

_WORDS = {
    EventType.QUEUED: "waiting",
    EventType.STARTED: "drawing",
    EventType.COARSE_READY: "refining",
    EventType.COMPLETED: "completed",
    EventType.FAILED: "failed",
    EventType.CANCELLED: "cancelled",
}


@dataclass(frozen=True)
class Tally:
    """Frames so far; `first` holds when the first frame of a stage came, in seconds since submission."""

    total: int
    stages: tuple[Stage, ...]
    word: str = "waiting"
    done: Mapping[Stage, int] = field(default_factory=dict)
    first: Mapping[Stage, float] = field(default_factory=dict)
    seconds: float = 0.0

    def after(self, event: Event, *, seconds: float) -> Tally:
        """The tally once this event came, so many seconds after submission."""
        changed = replace(self, word=_WORDS.get(event.type, self.word), seconds=seconds)
        if event.type is not EventType.FRAME:
            return changed
        stage = Stage(event.data["stage"])
        done = {**self.done, stage: self.done.get(stage, 0) + 1}
        return replace(changed, done=done, first={stage: seconds, **self.first})

    def line(self) -> str:
        """All of it in one line."""
        parts = [f"{stage.value} {self.done.get(stage, 0)}/{self.total}" for stage in self.stages]
        return ", ".join([self.word, *parts])
