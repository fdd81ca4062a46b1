"""Decoding: lossless sources come out as they went in, 16 bits stay 16 bits, and what is broken is named."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from models.data import framing, pictures, volumes
from models.data.decoding import Reading, decode, inspect
from models.data.errors import BadData
from models.data.framing import Fit
from models.data.listing import survey
from models.data.volumes import Window
from tests.footage import moving, write_images, write_video

DEEP = np.arange(3 * 8 * 8, dtype=np.uint16).reshape(3, 8, 8) * 340


def decoded(folder: Path, reading: Reading | None = None) -> list[NDArray[Any]]:
    """Each sequence of a folder."""
    reading = Reading() if reading is None else reading
    sources = survey(folder).every
    kinship = inspect(sources, reading)
    return [np.stack(list(decode(source, reading, kinship=kinship))) for source in sources]


def test_a_video_gives_its_frames(tmp_path: Path) -> None:
    frames = moving(9, height=24, width=24)
    write_video(tmp_path / "a.mkv", frames, codec="ffv1", pix_fmt="bgr0")
    np.testing.assert_array_equal(decoded(tmp_path)[0], frames)
    np.testing.assert_array_equal(decoded(tmp_path, Reading(stride=4))[0], frames[::4])


def test_images_give_their_frames_in_natural_order(tmp_path: Path) -> None:
    frames = moving(12, height=24, width=24)
    write_images(tmp_path / "a", frames)
    np.testing.assert_array_equal(decoded(tmp_path)[0], frames)
    np.testing.assert_array_equal(decoded(tmp_path, Reading(stride=5))[0], frames[::5])


def test_sixteen_bits_are_kept_in_images_and_stacks(tmp_path: Path) -> None:
    write_images(tmp_path / "a", DEEP)
    np.save(tmp_path / "b.npy", DEEP)
    np.savez(tmp_path / "c.npz", volume=DEEP)
    for sequence in decoded(tmp_path):
        assert sequence.dtype == np.uint16
        np.testing.assert_array_equal(sequence, DEEP[..., None])


def test_bytes_among_sixteen_bits_are_deepened(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", DEEP)
    np.save(tmp_path / "b.npy", np.full((2, 8, 8), 255, np.uint8))
    assert decoded(tmp_path)[1].min() == 65535


def test_the_middle_is_kept_of_oblong_frames(tmp_path: Path) -> None:
    frames = moving(2, height=10, width=20)
    write_images(tmp_path / "a", frames)
    np.testing.assert_array_equal(decoded(tmp_path)[0], frames[:, :, 5:15])
    np.testing.assert_array_equal(decoded(tmp_path, Reading(crop=4))[0], frames[:, 3:7, 8:12])
    np.testing.assert_array_equal(decoded(tmp_path, Reading(fit=Fit.STRETCH))[0], frames)
    with pytest.raises(BadData, match="found frames of 20 x 10 pixels, expected at least 11; take a smaller --crop"):
        decoded(tmp_path, Reading(crop=11))


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_shrinking_averages_areas_and_growing_stays_in_range(dtype: type[np.unsignedinteger[Any]]) -> None:
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, np.iinfo(dtype).max, size=(12, 12, 3), endpoint=True).astype(dtype)
    small = framing.resized(pixels, 4)
    assert small.dtype == dtype
    means = pixels.reshape(4, 3, 4, 3, 3).mean(axis=(1, 3))
    np.testing.assert_allclose(small, means, atol=0.51)
    assert framing.resized(pixels, 24).shape == (24, 24, 3)


def test_grey_and_colour_become_each_other(tmp_path: Path) -> None:
    grey, colour = np.full((4, 4, 1), 90, np.uint8), np.full((4, 4, 3), (255, 0, 0), np.uint8)
    assert framing.with_channels(grey, 3).tolist() == np.full((4, 4, 3), 90).tolist()
    assert int(framing.with_channels(colour, 1)[0, 0, 0]) == 76  # luma of red
    write_images(tmp_path / "a", np.zeros((2, 4, 4), np.uint8))
    write_images(tmp_path / "b", np.zeros((2, 4, 4, 3), np.uint8))
    with pytest.raises(BadData, match=r"b: found 3 channels, expected 1 as in a; .*--channels 1 \(grey\)"):
        decoded(tmp_path)
    assert [sequence.shape[-1] for sequence in decoded(tmp_path, Reading(channels=1))] == [1, 1]


def test_a_window_says_what_becomes_black_and_white(tmp_path: Path) -> None:
    values = np.linspace(-1000, 3000, 5 * 4 * 4).reshape(5, 4, 4).round().astype(np.int16)
    np.save(tmp_path / "ct.npy", values)
    (whole,) = decoded(tmp_path)
    assert (int(whole.min()), int(whole.max())) == (0, 65535)
    np.testing.assert_allclose(whole[..., 0] / 65535 * 4000 - 1000, values, atol=4000 / 65535)
    (lungs,) = decoded(tmp_path, Reading(window=Window.around(-600, width=1500)))
    shown = (values[..., None] > -1350) & (values[..., None] < 150)
    assert ((lungs > 0) & (lungs < 65535)).tolist() == shown.tolist()


def test_all_volumes_share_one_range(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.zeros((2, 4, 4), np.float32))
    np.save(tmp_path / "b.npy", np.full((2, 4, 4), 2.0, np.float32))
    np.save(tmp_path / "c.npy", np.ones((2, 4, 4), np.float32))
    assert [int(sequence.max()) for sequence in decoded(tmp_path)] == [0, 65535, 32768]


def test_slices_of_nifti_look_as_radiologists_see_them(tmp_path: Path) -> None:
    nibabel = importlib.import_module("nibabel")
    values = np.zeros((6, 6, 3), np.uint16)  # axes of this file: to the left, to the front, up
    values[0, 5, 2] = 60_000  # the patient's right, front, top
    nibabel.save(nibabel.Nifti1Image(values, np.diag([-1.0, 1.0, 1.0, 1.0])), tmp_path / "a.nii.gz")
    (slices,) = decoded(tmp_path)
    assert (slices.shape, slices.dtype.name) == ((3, 6, 6, 1), "uint16")
    assert np.argwhere(slices[..., 0]).tolist() == [[2, 0, 0]], "the top slice, at its top left"


@pytest.mark.parametrize(
    ("name", "stack", "message"),
    [
        ("a.npy", np.zeros((2, 3, 4, 4, 1)), r"found shape \(2, 3, 4, 4, 1\), expected a volume of 3 dimensions"),
        ("a.npy", np.zeros((0, 4, 4)), r"found shape \(0, 4, 4, 1\)"),
        ("a.npy", np.full((2, 4, 4), np.nan), "found values that are not finite"),
        ("a.npy", np.zeros((2, 4, 4), np.complex64), "found values of type complex64"),
        ("a.npz", {"x": np.zeros((2, 4, 4)), "y": np.zeros(1)}, "found arrays x, y, expected one array"),
    ],
)
def test_stacks_that_are_no_volumes_are_named(tmp_path: Path, name: str, stack: Any, message: str) -> None:
    path = tmp_path / name
    np.savez(path, **stack) if isinstance(stack, dict) else np.save(path, stack)
    with pytest.raises(BadData, match=f"{name}: {message}"):
        volumes.read(path)


def test_an_array_of_objects_is_not_unpickled(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.array([[["x"]]], dtype=object), allow_pickle=True)
    with pytest.raises(BadData, match=r"a\.npy: found data that does not read"):
        volumes.read(tmp_path / "a.npy")


@pytest.mark.parametrize("name", ["a.mp4", "a.nii", "a.nii.gz", "a.npy", "a.npz", "a/0.png"])
def test_files_that_do_not_decode_are_named(tmp_path: Path, name: str) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / name).write_bytes(b"neither one nor the other" * 40)
    with pytest.raises(BadData, match=rf"{name}: found data that does not .*; \w+"):
        decoded(tmp_path)


def test_a_size_that_changes_midway_is_told_with_its_place(tmp_path: Path) -> None:
    small = write_video(tmp_path / "small.mpg", moving(10), codec="mpeg1video").read_bytes()
    large = write_video(tmp_path / "large.mpg", moving(10, height=32, width=48), codec="mpeg1video").read_bytes()
    (tmp_path / "both.mpg").write_bytes(small + large)
    message = r"both\.mpg: found 48 x 32 pixels from frame \d+ on, expected 32 x 24 pixels as in its first frame; split"
    with pytest.raises(BadData, match=message):
        list(pictures.video(tmp_path / "both.mpg"))
    write_images(tmp_path / "a", moving(2))
    write_images(tmp_path / "a", moving(1, height=12), names="large{}.png")
    with pytest.raises(BadData, match=r"large0\.png: found 32 x 12 pixels of 3 channels"):
        list(pictures.images(survey(tmp_path).every[0]))


def test_a_window_without_volumes_is_refused(tmp_path: Path) -> None:
    write_images(tmp_path / "a", moving(2))
    with pytest.raises(BadData, match="found a window and no volume, expected volumes; leave --window out"):
        decoded(tmp_path, Reading(window=Window(0, 1)))
