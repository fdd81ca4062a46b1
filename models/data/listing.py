"""Which sequences a folder holds, and of which class each is; nothing is decoded here.

A sequence is a video file, a volume file, or a folder with images in it. Sequences that lie in the folder itself have
no class; where all lie one level deeper, in subfolders, each subfolder is a class and gives it its name. Names are
sorted as people read them (frame2 before frame10); hidden files and files of other kinds are passed over.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from models.data.errors import BadData

VIDEOS = (".mp4", ".mov", ".mkv", ".webm", ".avi", ".m4v", ".mpg", ".mpeg", ".gif")
IMAGES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp")
VOLUMES = (".nii", ".nii.gz", ".npy", ".npz")

_EXPECTED = f"videos ({', '.join(VIDEOS)}), folders of images ({', '.join(IMAGES)}) or volumes ({', '.join(VOLUMES)})"


class Kind(StrEnum):
    """What a sequence is stored as."""

    VIDEO = "video"
    IMAGES = "images"
    VOLUME = "volume"


class Classes(StrEnum):
    """Where the class of a sequence comes from."""

    FOLDERS = "folders"
    """The subfolder it lies in, where there are any."""
    NONE = "none"
    """Nowhere: all sequences are of one kind, however they are sorted."""


@dataclass(frozen=True, slots=True)
class Source:
    """One sequence on disk."""

    path: Path
    """The file; of images, their folder."""
    kind: Kind
    files: tuple[Path, ...]
    """What it is read from, in order."""


@dataclass(frozen=True, slots=True)
class Listing:
    """The sequences of a folder by class."""

    folder: Path
    classes: tuple[str, ...]
    """Their names, or none."""
    sources: tuple[tuple[Source, ...], ...]
    """Of each class; without classes one group of all."""

    @property
    def every(self) -> tuple[Source, ...]:
        """All sequences, class by class."""
        return tuple(source for group in self.sources for source in group)


def survey(folder: Path, *, classes: Classes = Classes.FOLDERS) -> Listing:
    """Look through a folder, two levels deep."""
    if not folder.is_dir():
        found = "a file" if folder.exists() else "no such folder"
        raise BadData(folder, found=found, expected=f"a folder of {_EXPECTED}", remedy="check the path")
    inside = {sub: _inside(sub) for sub in _subfolders(folder)}
    plain = {sub: sources[0] for sub, sources in inside.items() if [source.path for source in sources] == [sub]}
    direct = sorted([*_direct(folder), *plain.values()], key=lambda source: natural(source.path.name))
    groups = {sub.name: sources for sub, sources in inside.items() if sub not in plain}
    if classes is Classes.NONE:
        every = (*direct, *(source for sources in groups.values() for source in sources))
        return _listing(folder, {"": every})
    if not direct:
        return _listing(folder, groups)
    if mixed := [name for name, sources in groups.items() if sources]:
        found = f"sequences beside the subfolder {mixed[0]!r}, which holds sequences too"
        remedy = "move all sequences into subfolders, one a class, or train without classes (--classes none)"
        raise BadData(folder, found=found, expected="sequences either here or in subfolders", remedy=remedy)
    return _listing(folder, {"": tuple(direct)})


def natural(name: str) -> list[tuple[int, int, str]]:
    """A sorting key that takes digits for numbers."""
    parts = re.split(r"([0-9]+)", name.casefold())
    return [(0, int(part), "") if part.isdecimal() else (1, 0, part) for part in parts if part]


def _listing(folder: Path, groups: dict[str, tuple[Source, ...]]) -> Listing:
    remedy = "put sequences there, or remove it"
    if not any(groups.values()):
        raise BadData(folder, found="no sequence", expected=_EXPECTED, remedy="check the path")
    for name, sources in groups.items():
        if not sources:
            raise BadData(folder / name, found="no sequence", expected=f"a class: {_EXPECTED}", remedy=remedy)
    return Listing(folder, tuple(name for name in groups if name), tuple(groups.values()))


def _inside(folder: Path) -> tuple[Source, ...]:
    """The sequences in a subfolder: it is one itself, or holds some."""
    direct = _direct(folder)
    nested = [source for sub in _subfolders(folder) for source in _direct(sub)]
    images = [source for source in direct if source.kind is Kind.IMAGES]
    if images and len(direct) + len(nested) > 1:
        found, expected = "images beside other sequences", "the images of one sequence, or sequences"
        raise BadData(folder, found=found, expected=expected, remedy="move the images into a subfolder of their own")
    return tuple(sorted([*direct, *nested], key=lambda source: natural(source.path.name)))


def _direct(folder: Path) -> list[Source]:
    """The sequences that a folder holds itself; its images are one."""
    files = sorted((path for path in folder.iterdir() if _is_shown(path) and path.is_file()), key=_by_name)
    sources = [Source(file, kind, (file,)) for file in files if (kind := _kind(file)) and kind is not Kind.IMAGES]
    images = tuple(file for file in files if _kind(file) is Kind.IMAGES)
    return [Source(folder, Kind.IMAGES, images), *sources] if images else sources


def _kind(file: Path) -> Kind | None:
    name = file.name.lower()
    kinds = ((VIDEOS, Kind.VIDEO), (IMAGES, Kind.IMAGES), (VOLUMES, Kind.VOLUME))
    return next((kind for suffixes, kind in kinds if name.endswith(suffixes)), None)


def _subfolders(folder: Path) -> list[Path]:
    return sorted((path for path in folder.iterdir() if _is_shown(path) and path.is_dir()), key=_by_name)


def _is_shown(path: Path) -> bool:
    return not path.name.startswith(".")


def _by_name(path: Path) -> list[tuple[int, int, str]]:
    return natural(path.name)
