"""A user's sequences on disk: decoded once, kept by what they are, whole or not at all."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from models.data.decoding import Reading
from models.data.errors import BadData
from models.data.footage import Footage, Wanted, prepare, reopen
from models.data.framing import resized
from tests.footage import moving, write_images


def decode(wanted: Wanted, cache: Path) -> tuple[Footage, int]:
    """The footage, and how many sequences were decoded for it."""
    preparing, count = prepare(wanted, cache), 0
    while True:
        try:
            next(preparing)
            count += 1
        except StopIteration as end:
            return end.value, count


@pytest.fixture
def wanted(tmp_path: Path) -> Wanted:
    for name, frames in (("cat/a", 6), ("cat/b", 9), ("dog/c", 5)):
        write_images(tmp_path / "data" / name, moving(frames, height=16, width=16, seed=frames))
    return Wanted(tmp_path / "data", Reading(), sizes=(8, 4), shortest=4)


def test_frames_are_those_of_the_sequences_in_every_size(wanted: Wanted, tmp_path: Path) -> None:
    footage, count = decode(wanted, tmp_path / "cache")
    assert (footage.classes, count) == (("cat", "dog"), 3)
    assert footage.clips == ((range(6), range(6, 15)), (range(15, 20),))
    frames = np.concatenate([moving(n, height=16, width=16, seed=n) for n in (6, 9, 5)])
    for size in (8, 4):
        np.testing.assert_array_equal(footage.frames[size], np.stack([resized(frame, size) for frame in frames]))


def test_they_are_decoded_once(wanted: Wanted, tmp_path: Path) -> None:
    first, _ = decode(wanted, tmp_path / "cache")
    again, count = decode(wanted, tmp_path / "cache")
    assert (count, again.content) == (0, first.content)
    assert reopen(first.content, tmp_path / "cache").clips == first.clips


def test_another_reading_or_another_file_makes_another_footage(wanted: Wanted, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    first, _ = decode(wanted, cache)
    strided, count = decode(replace(wanted, reading=Reading(stride=2), shortest=3), cache)
    assert (count, strided.content != first.content) == (3, True)
    write_images(wanted.folder / "dog" / "c", moving(1, height=16, width=16, seed=99))
    changed, count = decode(wanted, cache)
    assert (count, changed.content != first.content) == (3, True)


def test_a_file_of_the_same_name_and_size_is_another_one_if_it_is_newer(tmp_path: Path) -> None:
    stack, wanted = tmp_path / "data" / "a.npy", Wanted(tmp_path / "data", Reading(), sizes=(4,), shortest=1)
    stack.parent.mkdir()
    contents = []
    for time in (1, 2):
        np.save(stack, np.full((3, 4, 4), time, np.uint8))
        os.utime(stack, (time, time))
        footage, _ = decode(wanted, tmp_path / "cache")
        contents.append(footage.content)
    assert contents[0] != contents[1]


def test_equal_frames_are_the_same_content_wherever_they_lie(wanted: Wanted, tmp_path: Path) -> None:
    first, _ = decode(wanted, tmp_path / "cache")
    moved = replace(wanted, folder=wanted.folder.rename(tmp_path / "elsewhere"))
    os.utime(moved.folder / "cat" / "a" / "frame0.png", (1, 1))
    assert decode(moved, tmp_path / "cache")[0].content == first.content


def test_sequences_are_cut_into_clips(wanted: Wanted, tmp_path: Path) -> None:
    footage, _ = decode(replace(wanted, reading=Reading(clip_frames=4)), tmp_path / "cache")
    assert footage.clips == ((range(4), range(6, 10), range(10, 14)), (range(15, 19),)), "the rest is too short"


def test_a_sequence_that_is_too_short_is_named_and_nothing_is_kept(wanted: Wanted, tmp_path: Path) -> None:
    message = r"c: found 3 frames at a stride of 2, expected at least 4; remove it, or take a smaller --stride"
    with pytest.raises(BadData, match=message):
        decode(replace(wanted, reading=Reading(stride=2), shortest=4, folder=_only_dog(wanted)), tmp_path / "cache")
    assert list((tmp_path / "cache").iterdir()) == []


def test_what_a_killed_process_left_is_cleared_away(wanted: Wanted, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    preparing = prepare(wanted, cache)
    next(preparing)
    (aside,) = cache.iterdir()
    dead = aside.with_suffix(".4194304")  # above every process number
    dead.mkdir()
    (dead / "frames-8.raw").write_bytes(b"half")
    preparing.close()
    assert list(cache.iterdir()) == [dead], "an iterator that is closed leaves nothing of its own"
    decode(wanted, cache)
    assert [path.name.startswith(".") for path in cache.iterdir()] == [False]


def test_kept_frames_that_were_cut_off_are_noticed(wanted: Wanted, tmp_path: Path) -> None:
    footage, _ = decode(wanted, tmp_path / "cache")
    (kept,) = (tmp_path / "cache").iterdir()
    with (kept / "frames-8.raw").open("r+b") as file:
        file.truncate(100)
    with pytest.raises(BadData, match=r"frames-8\.raw: found 100 bytes, expected 3840 bytes; remove "):
        decode(wanted, tmp_path / "cache")
    with pytest.raises(BadData, match=r"found no decoded frames of this run, expected 0000.*--data"):
        reopen("0" * 64, tmp_path / "cache")
    assert footage.channels == 3


def _only_dog(wanted: Wanted) -> Path:
    return wanted.folder / "dog"
