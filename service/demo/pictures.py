"""A sequence as one picture: the contact sheet, and the animated GIF. Pillow only."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

COLUMNS = 8
"""Refined frames in a row; coarse ones are four times as many."""
MARGIN, GUTTER = 4, 28
GROUND, INK, FAINT = (16, 18, 22), (226, 230, 238), (128, 136, 150)
TITLE_SIZE, LABEL_SIZE = 17, 12
STRIP = 4


def decode(png: bytes) -> Image.Image:
    """As RGB."""
    return Image.open(io.BytesIO(png)).convert("RGB")


def contact_sheet(coarse: Sequence[Image.Image], refined: Sequence[Image.Image], *, title: str) -> Image.Image:
    """Every coarse frame in a strip on top, every refined one below, in reading order; rows are numbered."""
    pictures = refined or coarse
    columns = min(COLUMNS, len(pictures))
    width = GUTTER + columns * (pictures[0].width + MARGIN) + GUTTER // 2
    parts = [_label(title, width=width, size=TITLE_SIZE, ink=INK)]
    if refined and coarse:
        side = (width - GUTTER - GUTTER // 2) // (columns * STRIP) - 2
        parts += [_label(_caption("coarse", coarse), width=width), _rows(coarse, columns * STRIP, side=side, gap=2)]
    last = "refined" if refined else "coarse"
    parts += [_label(_caption(last, pictures), width=width), _rows(pictures, columns, side=pictures[0].width)]
    return _stack(parts, width=width)


def save_gif(frames: Sequence[Image.Image], path: Path, *, fps: float) -> None:
    """Endless; one palette for all frames, so that nothing flickers."""
    sample = Image.new("RGB", (frames[0].width, frames[0].height * len(frames)))
    for row, frame in enumerate(frames):
        sample.paste(frame, (0, row * frame.height))
    palette = sample.quantize(256, method=Image.Quantize.MEDIANCUT)
    indexed = [frame.quantize(palette=palette, dither=Image.Dither.FLOYDSTEINBERG) for frame in frames]
    indexed[0].save(path, save_all=True, append_images=indexed[1:], duration=round(1000 / fps), loop=0)


def _rows(frames: Sequence[Image.Image], columns: int, *, side: int, gap: int = MARGIN) -> Image.Image:
    """Frames in rows, the first frame's number left of each row."""
    rows = -(-len(frames) // columns)
    sheet = Image.new("RGB", (GUTTER + columns * (side + gap), rows * (side + gap)), GROUND)
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(LABEL_SIZE)
    for index, frame in enumerate(frames):
        row, column = divmod(index, columns)
        place = (GUTTER + column * (side + gap), row * (side + gap))
        small = frame if frame.width == side else frame.resize((side, side), Image.Resampling.LANCZOS)
        sheet.paste(small, place)
        if not column:
            draw.text((GUTTER - 6, place[1] + side // 2), str(index), fill=FAINT, font=font, anchor="rm")
    return sheet


def _caption(stage: str, frames: Sequence[Image.Image]) -> str:
    return f"{stage}: {len(frames)} frames of {frames[0].width} x {frames[0].height}"


def _label(text: str, *, width: int, size: int = LABEL_SIZE, ink: tuple[int, int, int] = FAINT) -> Image.Image:
    strip = Image.new("RGB", (width, size + 14), GROUND)
    ImageDraw.Draw(strip).text((GUTTER, size + 8), text, fill=ink, font=ImageFont.load_default(size), anchor="ls")
    return strip


def _stack(parts: Sequence[Image.Image], *, width: int) -> Image.Image:
    sheet = Image.new("RGB", (width, sum(part.height for part in parts) + 2 * MARGIN), GROUND)
    top = MARGIN
    for part in parts:
        sheet.paste(part, (0, top))
        top += part.height
    return sheet
