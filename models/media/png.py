"""PNG frames."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image

from models.media import Frame

MEDIA_TYPE = "image/png"


def encode(frame: Frame) -> bytes:
    """One lossless frame."""
    buffer = io.BytesIO()
    Image.fromarray(frame).save(buffer, "PNG", compress_level=6)
    return buffer.getvalue()


def decode(data: bytes) -> Frame:
    """(H, W, 3)."""
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))
