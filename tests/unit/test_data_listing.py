"""Which sequences a folder holds: plain folders, folders of classes, and folders that say two things at once."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from models.data.errors import BadData
from models.data.listing import Classes, Kind, natural, survey
from tests.footage import write_images

FRAMES = np.zeros((2, 4, 4, 3), np.uint8)


def touch(folder: Path, *names: str) -> None:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def test_names_are_sorted_as_people_read_them() -> None:
    names = ["frame10", "frame2", "Frame1", "a3b10", "a3b9"]
    assert sorted(names, key=natural) == ["a3b9", "a3b10", "Frame1", "frame2", "frame10"]


def test_sequences_of_every_kind_lie_side_by_side(tmp_path: Path) -> None:
    touch(tmp_path, "b.mp4", "a.nii.gz", "c.npz", "notes.txt", ".hidden.mp4")
    write_images(tmp_path / "images", np.repeat(FRAMES, 6, axis=0))
    listing = survey(tmp_path)
    assert listing.classes == ()
    assert [(source.path.name, source.kind) for source in listing.every] == [
        ("a.nii.gz", Kind.VOLUME),
        ("b.mp4", Kind.VIDEO),
        ("c.npz", Kind.VOLUME),
        ("images", Kind.IMAGES),
    ]
    assert [file.name for file in listing.every[-1].files] == [f"frame{index}.png" for index in range(12)]


def test_a_folder_of_images_is_one_sequence(tmp_path: Path) -> None:
    write_images(tmp_path, FRAMES)
    (source,) = survey(tmp_path).every
    assert (source.path, source.kind, len(source.files)) == (tmp_path, Kind.IMAGES, 2)


def test_subfolders_of_sequences_are_classes(tmp_path: Path) -> None:
    touch(tmp_path, "cat/b.mp4", "cat/a.mp4", "ant/one.npy", "ant/.thumbs/x.png")
    write_images(tmp_path / "bee" / "first", FRAMES)
    listing = survey(tmp_path)
    assert listing.classes == ("ant", "bee", "cat")
    assert [[source.path.name for source in group] for group in listing.sources] == [
        ["one.npy"],
        ["first"],
        ["a.mp4", "b.mp4"],
    ]


def test_classes_can_be_ignored(tmp_path: Path) -> None:
    touch(tmp_path, "cat/b.mp4", "dog/a.mp4", "c.mp4")
    listing = survey(tmp_path, classes=Classes.NONE)
    assert listing.classes == ()
    assert [source.path.name for source in listing.every] == ["c.mp4", "b.mp4", "a.mp4"]
    assert len(listing.sources) == 1


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ((), r"found no sequence, expected videos \(.mp4.*\), folders of images .*; check the path"),
        (("notes.txt",), "found no sequence"),
        (("cat/a.mp4", "dog/readme.md"), r"dog: found no sequence, expected a class: .*; put sequences there"),
        (("a.mp4", "cat/b.mp4"), r"beside the subfolder 'cat'.*; move all sequences .*--classes none"),
        (("cat/0.png", "cat/b.mp4", "dog/c.mp4"), "cat: found images beside other sequences"),
    ],
)
def test_what_cannot_be_told_apart_is_refused(tmp_path: Path, names: tuple[str, ...], message: str) -> None:
    touch(tmp_path, *names)
    with pytest.raises(BadData, match=message):
        survey(tmp_path)


def test_a_path_that_is_no_folder_is_named(tmp_path: Path) -> None:
    touch(tmp_path, "a.mp4")
    with pytest.raises(BadData, match=r"a\.mp4: found a file, expected a folder"):
        survey(tmp_path / "a.mp4")
    with pytest.raises(BadData, match="none: found no such folder"):
        survey(tmp_path / "none")
