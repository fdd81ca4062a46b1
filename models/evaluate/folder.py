"""A folder of the user's own sequences as the reference: which serve for which class, and their frames.

They are read as training reads them (`models.data`): decoded once, cut to squares and averaged down. A class's
sequences go to its two parts in turn, whole, so that both parts never hold pieces of one video.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.data.decoding import Kinship, Reading, decode, inspect
from models.data.footage import Decoded, Footage, Wanted, prepare
from models.data.listing import Listing, Source, survey
from models.evaluate.limits import Policy
from models.evaluate.material import Bytes, Drawn
from models.evaluate.reference import STILLS, BadReference, Part, sizes
from models.spec import BundleSpec

LEAST = 4
"""Sequences that a class must have: two to measure against, and two held out."""


@dataclass(frozen=True)
class Folder:
    """Decoded sequences of a folder."""

    spec: BundleSpec
    footage: Footage
    groups: Mapping[str, int]
    """Which of the footage's groups each class is."""
    name: str
    reading: Reading
    policy: Policy = Policy.WIDENED

    def sequences(self, name: str, part: Part, *, frames: int, most: int) -> Iterator[Drawn]:
        sources = self._sources(name, part)
        windows = [source[at : at + frames] for source in sources for at in range(0, len(source) - frames + 1, frames)]
        if len(windows) < 2:
            found = f"the {part} half of class {name!r} has {len(windows)} stretches of {frames} frames"
            longest = max(map(len, sources))
            remedy = f"add sequences, or measure fewer frames (its longest sequence has {longest})"
            raise BadReference(self.name, found=found, needed="at least 2 are needed", remedy=remedy)
        # A few of each video rather than many of the first.
        spread = windows if len(windows) <= most else [windows[i * len(windows) // most] for i in range(most)]
        return (self._frames(window) for window in spread)

    def longest(self, name: str, frames: int) -> int:
        lengths = [sorted(map(len, self._sources(name, part)))[-2] for part in Part]
        return min(frames, *lengths)

    def stills(self, name: str) -> Drawn:
        places = np.concatenate([np.asarray(source) for source in self._sources(name, Part.HELD_OUT)])
        chosen = places[np.linspace(0, len(places) - 1, min(STILLS, len(places))).astype(int)]
        return self._frames(chosen)

    def facts(self) -> dict[str, object]:
        counts = {name: len(self.footage.clips[group]) for name, group in self.groups.items()}
        window = None if self.footage.window is None else asdict(self.footage.window)
        read = {
            "stride": self.reading.stride,
            "crop": self.reading.crop,
            "fit": self.reading.fit.value,
            "window": window,
        }
        return {"kind": "folder", "name": self.name, "digest": self.footage.content, "sequences": counts, **read}

    def _sources(self, name: str, part: Part) -> tuple[range, ...]:
        return self.footage.clips[self.groups[name]][0 if part is Part.REFERENCE else 1 :: 2]

    def _frames(self, which: range | NDArray[np.int_]) -> Drawn:
        index = slice(which.start, which.stop) if isinstance(which, range) else which
        return {stage: _as_bytes(self.footage.frames[size][index]) for stage, size in sizes(self.spec).items()}


def open_folder(
    spec: BundleSpec,
    folder: Path,
    *,
    names: Sequence[str],
    mapping: Mapping[str, str],
    reading: Reading,
    cache: Path,
) -> Generator[Decoded, None, Folder]:
    """Look through a folder, check that it can serve, and decode what is not in `cache` yet."""
    listing = survey(folder, classes=reading.classes)
    groups = _groups(names, listing, mapping)
    kinship = inspect(listing.every, reading)
    for group in groups.values():
        _check_size(spec, listing.sources[group], reading, kinship)
    wanted = Wanted(folder, reading, tuple(sorted(set(sizes(spec).values()))), shortest=1)
    footage = yield from prepare(wanted, cache)
    return Folder(spec, footage, groups, folder.resolve().name, reading)


def _groups(names: Sequence[str], listing: Listing, mapping: Mapping[str, str]) -> dict[str, int]:
    """The group of sequences of each class."""
    found: dict[str, int] = {}
    for name in names:
        wanted = mapping.get(name, name)
        if not listing.classes and len(names) == 1:
            found[name] = 0
        elif wanted in listing.classes:
            found[name] = listing.classes.index(wanted)
        else:
            there = f"its subfolders are {', '.join(listing.classes)}" if listing.classes else "it has no subfolders"
            remedy = f"name the subfolder with --class-map {name}=SUBFOLDER, or choose other classes with --class"
            raise BadReference(
                listing.folder, found=there, needed=f"class {name!r} needs one called {wanted!r}", remedy=remedy
            )
        if (count := len(listing.sources[found[name]])) < LEAST:
            needed, remedy = (
                f"at least {LEAST} are needed",
                "add some, or cut long ones to pieces that have little in common",
            )
            raise BadReference(
                listing.folder, found=f"class {name!r} has {count} sequences", needed=needed, remedy=remedy
            )
    return found


def _check_size(spec: BundleSpec, sources: tuple[Source, ...], reading: Reading, kinship: Kinship) -> None:
    """Frames that had to be enlarged would be no reference for detail."""
    largest = max(sizes(spec).values())
    for source in sources:
        first = next(islice(decode(source, reading, kinship=kinship), 1))
        if min(first.shape[:2]) < largest:
            found = f"{first.shape[1]} x {first.shape[0]} pixels are kept of its frames"
            needed = f"the bundle draws {largest} x {largest}"
            raise BadReference(source.path, found=found, needed=needed, remedy="bring larger ones, or remove it")


def _as_bytes(frames: NDArray[Any]) -> Bytes:
    """(n, H, W, 1 or 3) of 8 or 16 bits -> (n, H, W, 3) uint8."""
    small = frames if frames.dtype == np.uint8 else np.rint(frames / 257.0).astype(np.uint8)
    return np.array(np.broadcast_to(small, (*small.shape[:-1], 3)))  # a copy: what is mapped cannot be written to
