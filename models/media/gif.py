"""Looping GIFs."""

from __future__ import annotations

import io
from collections.abc import Iterable

from PIL import Image

from models.media import Frame

MEDIA_TYPE = "image/gif"


def encode(frames: Iterable[Frame], *, fps: int) -> bytes:
    """All frames, looped for ever; GIF counts in hundredths of a second."""
    first, *rest = [Image.fromarray(frame).quantize(256) for frame in frames]
    buffer = io.BytesIO()
    first.save(buffer, "GIF", save_all=True, append_images=rest, duration=round(100 / fps) * 10, loop=0)
    return buffer.getvalue()
