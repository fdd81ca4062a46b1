"""What a result is made of: the tally, the pictures, and the folder that is whole or not there."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageSequence
from rich.console import Console

from service.client import Event
from service.demo.display import shown
from service.demo.folder import OutputRefused, replacing
from service.demo.pictures import contact_sheet, save_gif
from service.demo.tally import Tally
from workers.contracts.event import EventType
from workers.contracts.job import Stage

BOTH = (Stage.COARSE, Stage.REFINED)


def frame(stage: Stage) -> Event:
    return Event(1, EventType.FRAME, {"stage": stage.value, "index": 0})


def plain(count: int, side: int) -> list[Image.Image]:
    """Frames each of one colour that no other has."""
    return [Image.new("RGB", (side, side), (255, 3 * index, 0)) for index in range(count)]


def test_the_tally_counts_each_stage_and_keeps_its_first_moment() -> None:
    tally = Tally(2, BOTH)
    for seconds, event in enumerate([frame(Stage.COARSE), frame(Stage.COARSE), frame(Stage.REFINED)], start=1):
        tally = tally.after(event, seconds=seconds)
    assert tally.done == {Stage.COARSE: 2, Stage.REFINED: 1}
    assert tally.first == {Stage.COARSE: 1, Stage.REFINED: 3}
    assert tally.after(Event(5, EventType.FAILED, {}), seconds=4).line() == "failed, coarse 2/2, refined 1/2"


@pytest.mark.parametrize(("coarse", "refined"), [(64, 64), (5, 5), (20, 0), (3, 1)])
def test_the_contact_sheet_shows_every_frame(coarse: int, refined: int) -> None:
    sheet = contact_sheet(plain(coarse, 32), plain(refined, 128), title="sky")
    colours = {colour for _, colour in sheet.getcolors(sheet.width * sheet.height) or []}
    assert {(255, 3 * index, 0) for index in range(max(coarse, refined))} <= colours
    assert sheet.width < 1200


def test_the_gif_has_every_frame_at_the_right_pace(tmp_path: Path) -> None:
    save_gif(plain(10, 16), tmp_path / "a.gif", fps=10)
    with Image.open(tmp_path / "a.gif") as gif:
        frames = [frame.convert("RGB").getpixel((3, 3)) for frame in ImageSequence.Iterator(gif)]
        assert gif.info["duration"] == 100
        assert gif.info["loop"] == 0
    assert np.abs(np.asarray(frames, float) - [(255, 3 * index, 0) for index in range(10)]).max() < 4


def test_a_result_takes_the_place_of_an_older_one(tmp_path: Path) -> None:
    for text in ("old", "new"):
        with replacing(tmp_path / "out" / "demo") as folder:
            (folder / "job.json").write_text(text)
    assert (tmp_path / "out" / "demo" / "job.json").read_text() == "new"
    assert [entry.name for entry in (tmp_path / "out").iterdir()] == ["demo"]


def test_a_failure_leaves_the_older_result_and_nothing_else(tmp_path: Path) -> None:
    with replacing(tmp_path / "demo") as folder:
        (folder / "job.json").write_text("old")
    with pytest.raises(FileNotFoundError), replacing(tmp_path / "demo") as folder:
        (folder / "frames" / "missing").touch()
    assert (tmp_path / "demo" / "job.json").read_text() == "old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["demo"]


def test_other_peoples_files_are_never_replaced(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(OutputRefused, match=r"thesis\.txt"), replacing(tmp_path):
        pass
    with pytest.raises(OutputRefused, match="is a file"), replacing(tmp_path / "thesis.txt"):
        pass
    with pytest.raises(OutputRefused, match="cannot be written"), replacing(Path("/proc/demo")):
        pass
    assert (tmp_path / "thesis.txt").read_text() == "years of work"


@pytest.mark.parametrize("terminal", [True, False])
def test_the_display_tells_how_far_it_is(terminal: bool) -> None:
    written = io.StringIO()
    console = Console(file=written, force_terminal=terminal, width=100)
    tally = Tally(2, BOTH)
    with shown(console) as shower:
        shower.send(tally)
        for event in (frame(Stage.COARSE), frame(Stage.COARSE), frame(Stage.REFINED), frame(Stage.REFINED)):
            tally = tally.after(event, seconds=1.5)
            shower.send(tally)
        shower.send(tally.after(Event(9, EventType.COMPLETED, {}), seconds=2.0))
    text = written.getvalue()
    assert "2/2" in text
    assert ("first after 1.50 s" if terminal else "completed, coarse 2/2, refined 2/2") in text
