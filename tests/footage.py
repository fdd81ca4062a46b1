"""Small sequences written on the spot: videos, images and volumes whose frames a test knows."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import av
import numpy as np
from av.video.stream import VideoStream
from numpy.typing import NDArray
from PIL import Image

Frames = NDArray[np.uint8]


def moving(frames: int, *, height: int = 24, width: int = 32, seed: int = 0) -> Frames:
    """(frames, height, width, 3): a bright square on a dark ground, further right in every frame."""
    rng = np.random.default_rng(seed)
    ground = np.full((frames, height, width, 3), rng.integers(20, 80, size=3), dtype=np.uint8)
    top = int(rng.integers(0, height // 2))
    for index in range(frames):
        left = int(index * (width - height // 4) / max(1, frames - 1))
        ground[index, top : top + height // 4, left : left + height // 4] = 230
    return ground


def write_video(path: Path, frames: Frames, *, codec: str = "mpeg4", pix_fmt: str = "yuv420p") -> Path:
    """A video of these frames; with ffv1 and rgb formats without loss."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as file:
        stream = cast(VideoStream, file.add_stream(codec, rate=25))
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = pix_fmt
        stream.options = {"qscale": "2"} if codec == "mpeg4" else {}
        for frame in frames:
            file.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        file.mux(stream.encode())
    return path


def write_images(folder: Path, frames: NDArray[Any], *, names: str = "frame{}.png") -> Path:
    """Images of these frames (uint8 or uint16, colour or grey), numbered without leading zeros."""
    folder.mkdir(parents=True, exist_ok=True)
    for index, frame in enumerate(frames):
        Image.fromarray(frame).save(folder / names.format(index))
    return folder
