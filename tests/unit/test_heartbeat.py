"""What a heartbeat makes of its own looks: how long a device stands still, and since when Redis is in reach."""

from __future__ import annotations

import pytest

from workers.heartbeat import Contact, Stillness


def test_stillness_counts_from_the_first_look_that_finds_no_movement() -> None:
    still = Stillness(longest_gap=2.0)
    looks = [(0.0, True), (1.0, False), (2.0, False), (3.0, False), (4.0, True), (5.0, False)]
    assert [still.note(now, moves=moves) for now, moves in looks] == [0.0, 0.0, 1.0, 2.0, 0.0, 0.0]


def test_a_process_that_was_stopped_itself_does_not_blame_its_device() -> None:
    still = Stillness(longest_gap=2.0)
    looks = [(0.0, True), (15.0, False), (16.0, False), (31.0, False), (32.0, True)]
    assert [still.note(now, moves=moves) for now, moves in looks] == [0.0, 0.0, 1.0, 0.0, 0.0]


@pytest.mark.parametrize(
    ("beats", "now", "steady"),
    [
        ([], 5.0, 0.0),
        ([1.0, 2.0, 3.0], 3.5, 2.5),
        ([1.0, 2.0, 9.0, 10.0], 10.5, 1.5),
        ([1.0, 2.0], 9.0, 0.0),
    ],
)
def test_contact_is_steady_since_the_last_gap(beats: list[float], now: float, steady: float) -> None:
    contact = Contact(longest_gap=2.0)
    for beat in beats:
        contact.note(beat)
    assert contact.steady(now) == steady
