"""A user's own first frames, for a sequence that goes on from them: a picture, a video or a folder of pictures."""

from __future__ import annotations

from itertools import islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from models.data import pictures
from models.data.errors import BadData
from models.data.framing import Fit, cropped, resized, with_channels
from models.data.listing import IMAGES, VIDEOS, Kind, Source, natural


def first_frames(path: Path, *, most: int, size: int) -> NDArray[np.uint8]:
    """(n, size, size, 3) sRGB, n of 1..most, squares cut from the middle; `BadData` says what is wrong."""
    source = _source(path)
    every = pictures.video(path, stride=1) if source.kind is Kind.VIDEO else pictures.images(source, stride=1)
    frames = [resized(with_channels(cropped(one, fit=Fit.CROP), 3), size) for one in islice(every, most + 1)]
    if len(frames) > most:
        remedy = "give fewer: the grid is drawn on from them"
        raise BadData(path, found="more frames", expected=f"at most {most}", remedy=remedy)
    return np.stack(frames)


def _source(path: Path) -> Source:
    name = path.name.lower()
    if path.is_file() and name.endswith(VIDEOS):
        return Source(path, Kind.VIDEO, (path,))
    if path.is_file() and name.endswith(IMAGES):
        return Source(path.parent, Kind.IMAGES, (path,))
    files = [file for file in path.iterdir() if file.name.lower().endswith(IMAGES)] if path.is_dir() else []
    if not files:
        expected = "a picture, a video or a folder of pictures"
        found = "no such file" if not path.exists() else "none of these"
        raise BadData(path, found=found, expected=expected, remedy="check the path")
    return Source(path, Kind.IMAGES, tuple(sorted(files, key=lambda file: natural(file.name))))
