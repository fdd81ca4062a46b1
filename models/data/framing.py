"""From frames of any shape to squares of one size: crop, then resize, with whole areas averaged on the way down."""

from __future__ import annotations

from enum import StrEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from models.data.pictures import Pixels

_GREY = np.array([0.299, 0.587, 0.114])
"""Shares of red, green and blue in luma (ITU-R BT.601)."""


class Fit(StrEnum):
    """How an oblong frame becomes a square."""

    CROP = "crop"
    """Its sides (or top and bottom) are cut off."""
    STRETCH = "stretch"
    """It is squeezed."""


def cropped(pixels: Pixels, *, fit: Fit, crop: int | None = None) -> Pixels:
    """The square in the middle, `crop` pixels wide where that is given; with `stretch` all there is, or that square."""
    height, width = pixels.shape[:2]
    side = crop or min(height, width)
    if fit is Fit.STRETCH and crop is None:
        return pixels
    top, left = (height - side) // 2, (width - side) // 2
    return pixels[top : top + side, left : left + side]


def resized(pixels: Pixels, size: int) -> Pixels:
    """(H, W, C) -> (size, size, C) of the same type: areas averaged where it shrinks, bicubic where it grows."""
    if pixels.shape[:2] == (size, size):
        return pixels
    how = Image.Resampling.BOX if min(pixels.shape[:2]) >= size else Image.Resampling.BICUBIC
    # One float channel at a time: the one way in which the library resizes 16 bits without loss.
    channels = [Image.fromarray(pixels[..., c].astype(np.float32)) for c in range(pixels.shape[2])]
    small = np.stack([np.asarray(channel.resize((size, size), how)) for channel in channels], axis=-1)
    return _rounded(small, pixels.dtype)


def with_channels(pixels: Pixels, channels: int) -> Pixels:
    """One channel of grey, or three of colour."""
    if pixels.shape[2] == channels:
        return pixels
    if channels == 3:
        return np.repeat(pixels, 3, axis=2)
    return _rounded((pixels @ _GREY)[..., None], pixels.dtype)


def deepened(pixels: Pixels, dtype: np.dtype[Any]) -> Pixels:
    """Bytes as 16 bits where those are wanted, 255 becoming 65535."""
    return pixels if pixels.dtype == dtype else pixels.astype(dtype) * dtype.type(257)


def _rounded(values: NDArray[Any], dtype: np.dtype[Any]) -> Pixels:
    rounded: Pixels = np.rint(values).clip(0, np.iinfo(dtype).max).astype(dtype)
    return rounded
