"""Where weights are: a source as the user writes it, and the files that were found for it.

A source is a path (a file or a folder), or an id on the hub: `owner/name`, with `@REVISION` and `:FILE` where wanted.
A path that exists is a path.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from pathlib import Path

from models.checkpoint import layout
from models.checkpoint.errors import CheckpointError
from models.checkpoint.hub import Hub
from models.checkpoint.layout import CARD, Layout, Part

_ID = re.compile(r"(?P<repository>[\w.-]+/[\w.-]+)(@(?P<revision>[^:\s]+))?(:(?P<file>[^\s]+))?")
_FRONT_MATTER = re.compile(r"\A---\s*\n(.*?)\n---\s*$", re.DOTALL | re.MULTILINE)
_LICENSE = re.compile(r"^license(?P<name>_name)?:(?:\s*\n\s*-)?[ \t]*['\"]?(?P<text>[^'\"\n#]+)", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Wanted:
    """What the user asked for."""

    source: str
    part: Part = Part.NET
    revision: str | None = None
    file: str | None = None


@dataclass(frozen=True, slots=True)
class Place:
    """Files on this machine, and where they came from."""

    folder: Path
    layout: Layout
    name: str
    """Of the source, for messages and for a bundle's name: no machine's paths."""
    revision: str | None = None
    """The hub's commit."""

    @property
    def files(self) -> tuple[Path, ...]:
        """Of the weights."""
        return tuple(self.folder / name for name in self.layout.weights)

    @property
    def license(self) -> str | None:
        """As its model card has it."""
        card = self.folder / CARD
        return _license(card.read_text(encoding="utf-8", errors="replace")) if card.is_file() else None

    def record(self) -> dict[str, object]:
        """What a bundle remembers of it."""
        kept = {"from": self.name, "revision": self.revision, "files": list(self.layout.weights)}
        return {key: value for key, value in kept.items() if value is not None}


def find(wanted: Wanted, *, hub: Hub) -> Place:
    """The files of a source, fetched if need be; `CheckpointError` if there are none, `HubError` by the hub's fault."""
    path = Path(wanted.source).expanduser()
    if path.exists():
        return _local(path, wanted)
    there = _ID.fullmatch(wanted.source)
    if there is None or wanted.source.startswith((".", "/")):
        raise CheckpointError(
            wanted.source,
            found="no such path",
            expected="a file, a folder, or an id on the hub",
            remedy="check the spelling; an id is OWNER/NAME, with @REVISION and :FILE where wanted",
        )
    revision, file = wanted.revision or there["revision"], wanted.file or there["file"]
    return _remote(there["repository"], replace(wanted, revision=revision, file=file), hub=hub)


def _local(path: Path, wanted: Wanted) -> Place:
    if path.is_file():
        names = [file.name for file in path.parent.iterdir()] if path.name.startswith("diffusion_") else [path.name]
        return Place(path.parent, layout.choose(path.name, names, part=wanted.part, file=path.name), path.name)
    names = [file.relative_to(path).as_posix() for level in ("*", "*/*") for file in path.glob(level) if file.is_file()]
    chosen = layout.choose(path.name, names, part=wanted.part, file=wanted.file)
    return Place(path, chosen, path.resolve().name)


def _remote(repository: str, wanted: Wanted, *, hub: Hub) -> Place:
    names = hub.names(repository, revision=wanted.revision)
    known = hub.known_file(repository)
    file = wanted.file or (known if known in names else None)
    chosen = layout.choose(repository, names, part=wanted.part, file=file)
    folder = hub.fetch(repository, chosen.names, revision=wanted.revision)
    return Place(folder, chosen, repository, revision=folder.name)


def _license(card: str) -> str | None:
    """From the front matter; the name that goes with "other" counts more."""
    front = _FRONT_MATTER.search(card)
    found = {match["name"]: match["text"].strip() for match in _LICENSE.finditer(front[1])} if front else {}
    text = found.get("_name") or found.get(None)
    return text if text and text != "other" else None
