"""The real sequences that generated ones are measured against: a procedural domain, or a folder of the user's own.

Each class has two parts that never meet: the reference proper, and sequences held out, which show what real ones
score. Domains are drawn from seeds that no net is trained on. A folder's sequences go to the parts in turn, whole, so
that both parts never hold pieces of one video.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import islice
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from models.data import domains
from models.data.clips import EVALUATION_SEED, source_digest
from models.data.decoding import Kinship, Reading, decode, inspect
from models.data.footage import Decoded, Footage, Wanted, prepare
from models.data.listing import Listing, Source, survey
from models.drawing import NotServed
from models.evaluate.limits import Policy
from models.evaluate.material import Drawn
from models.spec import BundleSpec, Stage

Bytes = NDArray[np.uint8]

UNCONDITIONAL = "all"
"""What the sequences of a bundle without classes are called."""
LEAST = 4
"""Sequences that a class of a folder must have: two to measure against, and two held out."""
STILLS = 96
"""Single frames that are refined, at most."""
_STILL_FRAMES = (0, 16, 32)


class Part(StrEnum):
    """Which of a class's real sequences."""

    REFERENCE = "reference"
    HELD_OUT = "held out"


class BadReference(ValueError):
    """Real sequences cannot serve as a reference; the message says what was found, what is needed and what to do."""

    def __init__(self, where: object, *, found: str, needed: str, remedy: str) -> None:
        super().__init__(f"reference {where}: {found}, but {needed}; {remedy}")


class Reference(Protocol):
    """Real sequences by class."""

    @property
    def policy(self) -> Policy:
        """What is done about limits that they do not keep."""
        ...

    def sequences(self, name: str, part: Part, *, frames: int, most: int) -> Iterator[Drawn]:
        """Up to `most` sequences of so many frames, in the bundle's sizes."""
        ...

    def longest(self, name: str, frames: int) -> int:
        """The most frames, up to `frames`, that at least two sequences of either part have."""
        ...

    def stills(self, name: str) -> Drawn:
        """Single frames that are held out, small and large: (n, H, W, 3) each."""
        ...

    def facts(self) -> dict[str, object]:
        """What it is, with a digest of what it holds."""
        ...


def class_names(spec: BundleSpec) -> tuple[str, ...]:
    """The bundle's classes; one that stands for everything where it has none."""
    return spec.classes or (UNCONDITIONAL,)


def chosen(spec: BundleSpec, wanted: Sequence[str]) -> tuple[str, ...]:
    """Those that are wanted of its classes; all if none is named."""
    there = class_names(spec)
    for name in wanted:
        if name not in there:
            raise NotServed("class", name, f"one of {', '.join(there)}")
    return tuple(dict.fromkeys(wanted)) or there


def sizes(spec: BundleSpec) -> dict[Stage, int]:
    """Side of a frame of each stage, pixels."""
    return {stage: spec.coarse_size if stage is Stage.COARSE else spec.refined_size for stage in spec.stages}


@dataclass(frozen=True)
class Procedural:
    """Domains by class."""

    spec: BundleSpec
    domains: Mapping[str, str]
    policy: Policy = Policy.FIXED

    @classmethod
    def of(cls, spec: BundleSpec, names: Sequence[str], *, mapping: Mapping[str, str]) -> Procedural:
        """Each class is the domain of its name, unless `mapping` says which."""
        chosen = {name: mapping.get(name, name) for name in names}
        known = domains.names()
        for name, domain in chosen.items():
            if domain not in known:
                needed = f"without a folder of real sequences it must be one of {', '.join(known)}"
                remedy = f"name the folder (--reference), or a domain (--class-map {name}=DOMAIN)"
                raise BadReference(
                    f"for class {name!r}", found=f"no domain is called {domain!r}", needed=needed, remedy=remedy
                )
        return cls(spec, chosen)

    def sequences(self, name: str, part: Part, *, frames: int, most: int) -> Iterator[Drawn]:
        render = domains.load(self.domains[name]).render
        first = EVALUATION_SEED if part is Part.REFERENCE else 2 * EVALUATION_SEED
        for seed in range(first, first + most):
            yield {stage: render(seed, frames=frames, size=size) for stage, size in sizes(self.spec).items()}

    def longest(self, name: str, frames: int) -> int:
        return frames

    def stills(self, name: str) -> Drawn:
        render, seeds = domains.load(self.domains[name]).render, range(STILLS // len(_STILL_FRAMES))
        places = [(3 * EVALUATION_SEED + seed, first) for seed in seeds for first in _STILL_FRAMES]
        return {
            stage: np.concatenate([render(seed, frames=1, size=size, first=first) for seed, first in places])
            for stage, size in sizes(self.spec).items()
        }

    def facts(self) -> dict[str, object]:
        digests = {domain: source_digest(domain) for domain in sorted(set(self.domains.values()))}
        return {"kind": "procedural", "domains": dict(self.domains), "digests": digests}


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
        read = {"stride": self.reading.stride, "crop": self.reading.crop, "fit": self.reading.fit.value}
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
