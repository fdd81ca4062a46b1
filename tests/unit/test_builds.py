"""Which builds are begun, when, and how often: the queue of wishes, driven by a builder that does what it is told."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from workers.builds import AGAIN_SECONDS, TURN_SECONDS, Builds, Ended, Wish
from workers.tasks import BuildOutcome, EngineBuildEnded, EngineBuildStarted, EngineFact

FAST = Wish("tiny", Path("/tiny"), "openvino", "fp32")
SMALL = Wish("tiny", Path("/tiny"), "openvino", "bf16")


@dataclass
class Told:
    """A build that ends when it is told to."""

    end: Ended | None = None
    stopped: int = 0

    def poll(self) -> Ended | None:
        return self.end

    def stop(self) -> None:
        self.stopped += 1


@dataclass
class Yard:
    """A builder that begins what it is asked for."""

    refused: dict[Wish, str] = field(default_factory=dict)
    begun: list[tuple[Wish, Told]] = field(default_factory=list)
    busy: bool = False
    broken: Exception | None = None

    def refuses(self, wish: Wish) -> str:
        return self.refused.get(wish, "")

    def start(self, wish: Wish) -> Told | None:
        if self.broken:
            raise self.broken
        if self.busy:
            return None
        self.begun.append((wish, Told()))
        return self.begun[-1][1]


@dataclass
class Watch:
    """A clock that is set by hand."""

    now: float = 1000.0

    def __call__(self) -> float:
        return self.now


def builds(yard: Yard, *, tries: int = 2, watch: Watch | None = None) -> Builds:
    made = Builds(yard, tries=tries, clock=watch or Watch())
    made.want([FAST, SMALL])
    return made


def outcomes(facts: list[EngineFact]) -> list[tuple[str, BuildOutcome, str]]:
    return [(f.precision, f.outcome, f.reason) for f in facts if isinstance(f, EngineBuildEnded)]


def test_wishes_are_built_one_at_a_time_in_their_order() -> None:
    yard = Yard()
    queue = builds(yard)
    assert queue.look() == ([EngineBuildStarted("tiny", "openvino", "fp32")], None)
    assert queue.look() == ([], None)
    assert [wish for wish, _ in yard.begun] == [FAST]
    assert queue.is_pending(FAST)
    yard.begun[0][1].end = Ended()
    facts, built = queue.look()
    assert (outcomes(facts), built) == ([("fp32", BuildOutcome.SUCCEEDED, "")], FAST)
    assert not queue.is_pending(FAST)
    queue.look()
    assert [wish for wish, _ in yard.begun] == [FAST, SMALL]


def test_what_has_come_true_or_was_given_up_is_not_wished_for_again() -> None:
    yard = Yard(refused={SMALL: "failed 2 times"})
    queue = builds(yard)
    queue.look()
    yard.begun[0][1].end = Ended()
    queue.look()
    queue.look()
    assert queue.failed == {SMALL: "failed 2 times"}
    queue.want([FAST, SMALL])
    assert queue.look() == ([], None)
    assert [wish for wish, _ in yard.begun] == [FAST]


def test_a_failure_is_told_and_tried_again_later_and_no_more_than_allowed() -> None:
    yard, watch = Yard(refused={SMALL: "no"}), Watch()
    queue = builds(yard, watch=watch)
    for count in (1, 2):
        queue.look()
        assert len(yard.begun) == count
        assert FAST not in queue.failed, "while it is tried again nothing is held against it"
        watch.now += 7
        yard.begun[-1][1].end = Ended(f"no memory, {count}")
        facts, built = queue.look()
        assert (outcomes(facts), built) == ([("fp32", BuildOutcome.FAILED, f"no memory, {count}")], None)
        assert [f.seconds for f in facts if isinstance(f, EngineBuildEnded)] == [7]
        assert queue.failed[FAST] == f"no memory, {count}"
        assert queue.is_pending(FAST) == (count == 1)
        watch.now += AGAIN_SECONDS - 0.1
        queue.look()
        assert len(yard.begun) == count, "not at once"
        watch.now += 0.2
    queue.look()
    assert len(yard.begun) == 2


def test_what_cannot_even_begin_has_failed() -> None:
    yard = Yard(broken=OSError("no such disk"))
    queue = builds(yard, tries=1)
    facts = [*queue.look()[0], *queue.look()[0]]
    assert [reason for _, _, reason in outcomes(facts)] == ["no such disk"] * 2
    assert queue.look() == ([], None)
    assert set(queue.failed.values()) == {"no such disk"}


def test_while_another_process_builds_one_waits_ones_turn() -> None:
    yard, watch = Yard(busy=True), Watch()
    queue = builds(yard, watch=watch)
    assert queue.look() == ([], None)
    assert queue.look() == ([], None)
    assert queue.is_pending(FAST)
    yard.busy = False
    watch.now += TURN_SECONDS
    queue.look()
    assert [wish for wish, _ in yard.begun] == [FAST]


def test_stopping_ends_what_runs_and_begins_nothing_more() -> None:
    yard = Yard()
    queue = builds(yard)
    queue.look()
    assert [outcome for _, outcome, _ in outcomes(queue.stop())] == [BuildOutcome.STOPPED]
    assert queue.stop() == []
    assert queue.look() == ([], None)
    assert [(len(yard.begun), told.stopped) for _, told in yard.begun] == [(1, 1)]
