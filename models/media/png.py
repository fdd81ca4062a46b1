"""PNG frames."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image

from models.media import Frame, Pixels, viewable

MEDIA_TYPE = "image/png"


def encode(frame: Pixels) -> bytes:
    """One lossless frame, of 8 bits (H, W, 3) or of 16 (H, W)."""
    buffer = io.BytesIO()
    Image.fromarray(frame).save(buffer, "PNG", compress_level=6)
    return buffer.getvalue()


def decode(data: bytes) -> Frame:
    """(H, W, 3) of 8 bits, whatever the depth of the file."""
    return viewable(decode_deep(data))


def decode_deep(data: bytes) -> Pixels:
    """(H, W, 3) of 8 bits or (H, W) of 16, as the file is."""
    image = Image.open(io.BytesIO(data))
    if image.mode.startswith("I"):
        return np.asarray(image).astype(np.uint16)
    return np.asarray(image.convert("RGB"))
