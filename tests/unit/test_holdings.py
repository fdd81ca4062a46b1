"""What may be published when, and who may judge a lease: pure parts of the worker."""

from __future__ import annotations

from tests.twins import spec
from workers.contracts.job import Job, Stage, StoredObject, UnitRecord
from workers.holdings import Holding
from workers.queue.ledger import Claim, Published


def picture(name: str) -> StoredObject:
    return StoredObject(path=name, sha256=name, bytes=1, media_type="image/png")


def unit(stage: Stage, start: int, count: int) -> UnitRecord:
    frames = tuple(picture(f"{stage.value}{index}") for index in range(start, start + count))
    return UnitRecord(stage=stage, start=start, frames=frames)


def holding(*units: UnitRecord, frames: int = 8, coarse_done: int = 0, refined_done: int = 0) -> Holding:
    job = Job(id="j", spec=spec(frames=frames), created_at=0, coarse_done=coarse_done, refined_done=refined_done)
    return Holding.of(Claim(job, {str(index): record for index, record in enumerate(units)}))


def turns(held: Holding) -> list[tuple[str, int]]:
    return [(frame.stage.value, frame.index) for frame in held.publishable()]


def test_units_that_are_early_wait_for_their_turn() -> None:
    held = holding(unit(Stage.COARSE, 4, 4), unit(Stage.REFINED, 4, 4))
    assert turns(held) == []
    held.note(unit(Stage.COARSE, 0, 4))
    assert turns(held) == [("coarse", index) for index in range(8)]
    held.note(unit(Stage.REFINED, 0, 4))
    assert turns(held) == [(stage, index) for stage in ("coarse", "refined") for index in range(8)]


def test_no_refined_frame_before_its_coarse_one() -> None:
    held = holding(unit(Stage.REFINED, 0, 4), unit(Stage.COARSE, 0, 2))
    assert turns(held) == [("coarse", 0), ("coarse", 1), ("refined", 0), ("refined", 1)]


def test_a_resumed_job_publishes_only_what_is_new_and_nothing_behind_its_end() -> None:
    held = holding(unit(Stage.COARSE, 0, 8), unit(Stage.REFINED, 0, 8), frames=6, coarse_done=6, refined_done=4)
    assert turns(held) == [("refined", 4), ("refined", 5)]
    assert [stored.path for stored in held.last_stage] == [f"refined{index}" for index in range(6)]


def test_intervals_are_told_of_frames_this_worker_published() -> None:
    held = holding(unit(Stage.COARSE, 0, 4), coarse_done=1)
    told = list(held.published(Published(coarse_done=3, refined_done=0, at=5.0)))
    assert [(frame.index, since) for frame, since in told] == [(1, None), (2, 0.0)]
    told = list(held.published(Published(coarse_done=4, refined_done=0, at=7.0)))
    assert [(frame.index, since) for frame, since in told] == [(3, 2.0)]
    assert list(held.published(Published(coarse_done=4, refined_done=0, at=9.0))) == []
