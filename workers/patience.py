"""How long a worker's jobs wait together for a store that is full or does not answer.

Pure: the clock is an argument. An episode begins with a write that failed and ends with one that went through, or when
nobody has tried for a while. One clock for all jobs in hand, else the last of many would wait many times as long; but
one that was claimed meanwhile has all of it before itself.
"""

from __future__ import annotations

from dataclasses import dataclass

from workers.contracts.errors import StorageFull, StoreError, StoreUnavailable

RECENT_SECONDS = 10.0
"""So soon after a failure it is no time to take more jobs in hand."""
EPISODE_SECONDS = 180.0
"""Longer than one try may take, with all its time limits: failures so near each other are of one episode."""


@dataclass(slots=True)
class Patience:
    """Shared by the threads that write; each call changes one field."""

    seconds: float
    since: float = float("-inf")
    """When the first write of this episode failed."""
    last: float = float("-inf")

    def failed(self, now: float) -> None:
        """A write has failed."""
        if now - self.last >= EPISODE_SECONDS:
            self.since = now
        self.last = now

    def relieved(self) -> None:
        """A write went through."""
        self.last = float("-inf")

    def is_tried(self, now: float) -> bool:
        """Whether the store could not be written to a moment ago."""
        return now - self.last < RECENT_SECONDS

    def given_up(self, error: StorageFull | StoreUnavailable) -> StoreError:
        """The reason for which a job fails: for its owner, who need not know where files lie."""
        limit = f"{self.seconds:g} s (GRIDIT_STORE_PATIENCE_SECONDS)"
        if isinstance(error, StorageFull):
            return StorageFull(f"the store had no room for {limit}; delete finished jobs, or give the store more room")
        return StoreUnavailable(f"the store did not answer for {limit}")

    def is_over(self, now: float, *, held_since: float) -> bool:
        """Whether a job that has been in hand for so long has waited long enough; asked after its write has failed."""
        return now - max(self.since, held_since) >= self.seconds
