"""A user's sequences, decoded once into frames of the sizes that training needs, and mapped from disk from then on.

What is kept is a folder: the frames of each size in one file, and `index.json`. Its name holds a digest of what it was
made of (names, sizes and times of the files, and how they were read), so a change of either makes another one; it is
written aside, then renamed. `content` is the digest of the frames themselves: runs with equal content saw equal data.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Generator, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from models.data.decoding import Kinship, Reading, decode, inspect
from models.data.errors import BadData
from models.data.framing import resized
from models.data.listing import Listing, Source, survey
from models.data.pictures import Pixels
from models.data.volumes import Window

FORMAT = 1
"""Version of what is kept; an older one is made again."""
_INDEX = "index.json"


@dataclass(frozen=True, slots=True)
class Footage:
    """Clips by class, in one row of frames."""

    classes: tuple[str, ...]
    """Their names, or none."""
    clips: tuple[tuple[range, ...], ...]
    """Of each class, which frames each clip is; without classes one group of all."""
    frames: Mapping[int, NDArray[Any]]
    """By size: (n, size, size, channels) uint8 or uint16, read-only."""
    content: str
    """SHA-256 of frames, clips and classes."""
    window: Window | None
    """The one that volumes were seen through."""

    @property
    def channels(self) -> int:
        """1 or 3."""
        return int(next(iter(self.frames.values())).shape[-1])

    @property
    def bits(self) -> int:
        """Of what frames are kept as: 16 for grey ones of that depth."""
        deep = next(iter(self.frames.values())).dtype == np.uint16
        return 16 if deep and self.channels == 1 else 8


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which frames, read how, in which sizes."""

    folder: Path
    reading: Reading
    sizes: tuple[int, ...]
    shortest: int
    """Fewest frames of a clip that are of use."""


@dataclass(frozen=True, slots=True)
class Decoded:
    """One more sequence is done."""

    source: Source
    done: int
    total: int


def prepare(wanted: Wanted, cache: Path) -> Generator[Decoded, None, Footage]:
    """Decode what is not in `cache` yet, a sequence at a time."""
    listing = survey(wanted.folder, classes=wanted.reading.classes)
    kept = cache / _name(wanted, listing)
    if not kept.exists():
        cache.mkdir(parents=True, exist_ok=True)
        _forget_the_dead(kept)
        aside = kept.with_name(f".{kept.name}.{os.getpid()}")
        try:
            yield from _write(aside, wanted, listing)
            aside.rename(kept)
        finally:
            shutil.rmtree(aside, ignore_errors=True)
    return _open(kept)


def reopen(content: str, cache: Path) -> Footage:
    """What was decoded before, by its digest; the sequences themselves may be gone."""
    for index in sorted(cache.glob(f"[!.]*/{_INDEX}")):
        if json.loads(index.read_text(encoding="utf-8")).get("content") == content:
            return _open(index.parent)
    remedy = "name the folder of sequences again (--data)"
    raise BadData(cache, found="no decoded frames of this run", expected=content[:12], remedy=remedy)


def _name(wanted: Wanted, listing: Listing) -> str:
    files = [(file, file.stat()) for source in listing.every for file in source.files]
    facts = [(file.relative_to(listing.folder).as_posix(), stat.st_size, stat.st_mtime_ns) for file, stat in files]
    made_of = [FORMAT, facts, asdict(wanted.reading), wanted.sizes, wanted.shortest]
    digest = hashlib.sha256(json.dumps(made_of).encode()).hexdigest()
    return f"{wanted.folder.resolve().name}-{'+'.join(map(str, wanted.sizes))}px-{digest[:12]}"


def _write(aside: Path, wanted: Wanted, listing: Listing) -> Generator[Decoded, None, None]:
    kinship = inspect(listing.every, wanted.reading)
    aside.mkdir()
    digest, total = hashlib.sha256(), 0
    clips: list[list[list[int]]] = [[] for _ in listing.sources]
    labelled = [(label, source) for label, group in enumerate(listing.sources) for source in group]
    with ExitStack() as stack:
        files = {size: stack.enter_context((aside / _file(size)).open("wb")) for size in wanted.sizes}
        for done, (label, source) in enumerate(labelled, start=1):
            first, total = total, total + _append(decode(source, wanted.reading, kinship=kinship), files, digest)
            clips[label].extend(_cut(source, range(first, total), wanted))
            yield Decoded(source, done, len(labelled))
    facts = {"classes": list(listing.classes), "clips": clips, "frames": total, **_kinship(kinship, wanted.sizes)}
    digest.update(json.dumps(facts, sort_keys=True).encode())
    (aside / _INDEX).write_text(json.dumps({**facts, "content": digest.hexdigest()}), encoding="utf-8")


def _append(frames: Iterator[Pixels], files: Mapping[int, BinaryIO], digest: hashlib._Hash) -> int:
    """Write each frame in each size; how many there were."""
    count = 0
    for frame in frames:
        for size, file in files.items():
            data = resized(frame, size).tobytes()
            file.write(data)
            digest.update(data)
        count += 1
    return count


def _cut(source: Source, frames: range, wanted: Wanted) -> Iterator[list[int]]:
    """[start, stop] of each clip of a sequence; what is left over counts where it is long enough."""
    if len(frames) < wanted.shortest:
        stride = wanted.reading.stride
        found = f"{len(frames)} frames" + (f" at a stride of {stride}" if stride > 1 else "")
        remedy = "remove it, or take a smaller --stride or --grid"
        raise BadData(source.path, found=found, expected=f"at least {wanted.shortest}", remedy=remedy)
    step = wanted.reading.clip_frames or len(frames)
    starts = range(frames.start, frames.stop, step)
    return ([start, stop] for start in starts if (stop := min(start + step, frames.stop)) - start >= wanted.shortest)


def _kinship(kinship: Kinship, sizes: tuple[int, ...]) -> dict[str, object]:
    window = asdict(kinship.window) if kinship.window else None
    return {"channels": kinship.channels, "dtype": kinship.dtype.name, "sizes": list(sizes), "window": window}


def _open(kept: Path) -> Footage:
    facts = json.loads((kept / _INDEX).read_text(encoding="utf-8"))
    total, channels, dtype = facts["frames"], facts["channels"], np.dtype(facts["dtype"])
    frames = {}
    for size in facts["sizes"]:
        file, shape = kept / _file(size), (total, size, size, channels)
        expected = int(np.prod(shape)) * dtype.itemsize
        if not file.is_file() or file.stat().st_size != expected:
            found = f"{file.stat().st_size} bytes" if file.is_file() else "no such file"
            raise BadData(file, found=found, expected=f"{expected} bytes", remedy=f"remove {kept} and start again")
        frames[size] = np.memmap(file, dtype=dtype, mode="r", shape=shape)
    clips = tuple(tuple(range(*clip) for clip in group) for group in facts["clips"])
    window = Window(**facts["window"]) if facts["window"] else None
    return Footage(tuple(facts["classes"]), clips, frames, facts["content"], window)


def _file(size: int) -> str:
    return f"frames-{size}.raw"


def _forget_the_dead(kept: Path) -> None:
    """Remove what processes that were killed had half written."""
    for aside in kept.parent.glob(f".{kept.name}.*"):
        if not _lives(int(aside.suffix[1:])):
            shutil.rmtree(aside, ignore_errors=True)


def _lives(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True
