"""`input_reference`: the user's own first frames, from data URLs to small squares of the coarse size.

Pictures (PNG, JPEG, WebP, GIF with all its frames) and short videos (MP4, WebM) are decoded at the door, so that what
is wrong with them is told before anything is queued. Nothing is ever fetched: a URL of another kind is refused. An
oblong frame is cut to the square in its middle. Decoders are loaded when the first reference comes.
"""

from __future__ import annotations

import base64
import binascii
import io
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from typing import TYPE_CHECKING, Any

from workers.contracts.errors import InvalidRequest

if TYPE_CHECKING:
    from PIL.Image import Image

FIELD = "input_reference"
MOST_PIXELS = 50_000_000
"""Of one frame; a file that says it has more is not decoded."""
PICTURES = ("PNG", "JPEG", "WEBP", "GIF")
_VIDEOS = {"mp4": (4, b"ftyp"), "matroska": (0, b"\x1a\x45\xdf\xa3")}
"""Demuxer by where its magic bytes are: it is named, so that a file cannot choose one that opens other files."""
_KINDS = "PNG, JPEG, WebP, GIF, MP4 or WebM"


def as_data_urls(value: Any) -> tuple[str, ...] | None:
    """One or many references, each a data URL or an object with one as `image_url`; raises ValueError."""
    if value is None:
        return None
    given = value if isinstance(value, list | tuple) else [value]
    if not given:
        raise ValueError("must hold at least one picture")
    return tuple(_data_url(each) for each in given)


def frames_npy(references: Sequence[str], *, size: int, most: int) -> tuple[bytes, int]:
    """The references' frames as a uint8 .npy (n, size, size, 3), and n, which is 1..most."""
    import numpy as np

    frames: list[Any] = []
    for number, reference in enumerate(references, start=1):
        with _told(number, len(references)):
            images = islice(_frames(_content(reference)), most + 1)
            frames.extend(np.asarray(_square(image, size)) for image in images)
        if len(frames) > most:
            limit = f"{FIELD} must be at most {most} frames, as many as this model's grid holds"
            raise InvalidRequest(f"{limit} (got more).", param=FIELD)
    buffer = io.BytesIO()
    np.save(buffer, np.stack(frames), allow_pickle=False)
    return buffer.getvalue(), len(frames)


def _data_url(value: Any) -> str:
    if isinstance(value, dict):
        value = value.get("image_url")
    if not isinstance(value, str) or not value:
        raise ValueError("must be a picture or a video: a file part, or a data URL (data:image/png;base64,...)")
    if not value.startswith("data:"):
        raise ValueError("must be a data URL (data:image/png;base64,...): nothing is fetched from elsewhere")
    return value


def _content(reference: str) -> bytes:
    head, comma, body = reference.partition(",")
    if not comma or not head.endswith(";base64"):
        raise ValueError("it is not a base64 data URL")
    try:
        return base64.b64decode(body, validate=True)
    except binascii.Error:
        raise ValueError("its base64 is broken") from None


def _frames(content: bytes) -> Iterator[Image]:
    for demuxer, (start, magic) in _VIDEOS.items():
        if content[start : start + len(magic)] == magic:
            return _of_video(content, demuxer)
    return _of_picture(content)


def _of_picture(content: bytes) -> Iterator[Image]:
    from PIL import Image, ImageOps, ImageSequence

    try:
        opened = Image.open(io.BytesIO(content), formats=PICTURES)
    except Image.DecompressionBombError:
        raise ValueError(f"it has more than {MOST_PIXELS} pixels") from None
    with opened as image:
        _check_pixels(*image.size)
        for frame in ImageSequence.Iterator(image):
            yield ImageOps.exif_transpose(frame).convert("RGB")


def _of_video(content: bytes, demuxer: str) -> Iterator[Image]:
    import av

    with av.open(io.BytesIO(content), mode="r", format=demuxer) as container:
        if not container.streams.video:
            raise ValueError("it has no video stream")
        stream = container.streams.video[0]
        _check_pixels(stream.width, stream.height)
        for frame in container.decode(stream):
            _check_pixels(frame.width, frame.height)
            yield frame.to_image()  # type: ignore[no-untyped-call]


def _check_pixels(width: int, height: int) -> None:
    if width * height > MOST_PIXELS:
        raise ValueError(f"it has {width} x {height} pixels, and the limit is {MOST_PIXELS} in all")


def _square(image: Image, size: int) -> Image:
    from PIL import Image as images
    from PIL import ImageOps

    return ImageOps.fit(image, (size, size), method=images.Resampling.BOX)


@contextmanager
def _told(number: int, total: int) -> Iterator[None]:
    """Whatever a decoder raises, as one error that names the reference."""
    which = FIELD if total == 1 else f"{FIELD} {number} of {total}"
    try:
        yield
    except InvalidRequest:
        raise
    except Exception as error:
        reason = str(error) if type(error) is ValueError else f"it does not decode ({type(error).__name__})"
        raise InvalidRequest(f"{which} must be {_KINDS}: {reason}.", param=FIELD) from error
