"""The folder a result goes to: made beside its place, put there when it is whole, so nothing half-made remains."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from workers.contracts.errors import GriditError

OURS = frozenset({"video.mp4", "sequence.gif", "contact-sheet.png", "frames", "job.json", "events.jsonl"})
"""What a result consists of; a folder that holds anything else is not replaced."""


class OutputRefused(GriditError):
    """The result cannot be put where it was asked for; the message says why."""

    code = "output_refused"


@contextmanager
def replacing(place: Path) -> Iterator[Path]:
    """A new folder that takes `place` (and an older result there) when the block ends well, else is removed."""
    place = place.absolute()
    _refuse_strangers(place)
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        aside = Path(tempfile.mkdtemp(prefix=f".{place.name}-", dir=place.parent))
    except OSError as error:
        raise OutputRefused(f"{place} cannot be written: {error.strerror}; choose another place with --out") from error
    try:
        folder = aside / place.name
        folder.mkdir()
        yield folder
        if place.exists():
            place.rename(aside / "old")
        folder.rename(place)
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def _refuse_strangers(place: Path) -> None:
    if place.exists() and not place.is_dir():
        raise OutputRefused(f"{place} is a file; choose another place with --out")
    strangers = sorted(entry.name for entry in place.iterdir() if entry.name not in OURS) if place.exists() else []
    if strangers:
        raise OutputRefused(f"{place} holds other files ({strangers[0]}); choose another place with --out")
