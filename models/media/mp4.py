"""MP4 video: H.264 where the library has it, else MPEG-4. One encoder thread, so equal frames give equal bytes."""

from __future__ import annotations

import io
import tempfile
from collections.abc import Iterable, Iterator
from itertools import chain
from pathlib import Path
from typing import cast

import av
import numpy as np
from av.video.stream import VideoStream

from models.media import Frame

MEDIA_TYPE = "video/mp4"
X264: dict[str, object] = {
    "crf": "16",
    "preset": "medium",
    "threads": "1",
    # Its look-ahead reads memory that nothing has written when a side is no multiple of 16, and bytes follow from it.
    "x264-params": "mbtree=0",
}


def encode(frames: Iterable[Frame], *, fps: int) -> bytes:
    """At least one frame; sides are even. The index stands at the front, for players that stream."""
    every = iter(frames)
    first = next(every)
    with tempfile.TemporaryDirectory(prefix="gridit-") as folder:
        path = Path(folder) / "video.mp4"  # the index can only be moved to the front of a real file
        _write(path, chain([first], every), size=(first.shape[1], first.shape[0]), fps=fps)
        return path.read_bytes()


def _write(path: Path, frames: Iterable[Frame], *, size: tuple[int, int], fps: int) -> None:
    options = {"movflags": "+faststart", "fflags": "+bitexact"}
    with av.open(str(path), "w", format="mp4", options=options) as file:
        stream = cast(VideoStream, file.add_stream(_codec(), rate=fps))
        stream.width, stream.height = size
        stream.pix_fmt = "yuv420p"
        stream.thread_count = 1
        stream.options = X264 if _codec() == "libx264" else {"qscale": "2"}
        stream.codec_context.flags |= av.codec.context.Flags.bitexact
        for frame in frames:
            file.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")))
        file.mux(stream.encode())


def decode(data: bytes) -> Iterator[Frame]:
    """Every frame, (H, W, 3)."""
    with av.open(io.BytesIO(data), "r") as file:
        for frame in file.decode(video=0):
            yield frame.to_ndarray(format="rgb24").astype(np.uint8, copy=False)


def _codec() -> str:
    return "libx264" if "libx264" in av.codecs_available else "mpeg4"
