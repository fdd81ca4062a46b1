"""What lies in an engine cache, sound or not, and why not: what `gridit engines` lists, verifies and removes.

Each entry is of one state. What is damaged or tampered with is never loaded and the next build makes it again; what is
stale or foreign is not even looked for; both only take room. Nothing is built, opened or run here.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from importlib import import_module
from pathlib import Path

from models.compiling import flavours
from models.compiling.engine_cache import EngineCache
from models.compiling.engine_failures import Failure, Failures, versions
from models.compiling.engine_record import Fault, PlanDamaged, Record
from models.compiling.owned import ASIDE
from models.engine import EngineUnavailable

CPU_ENGINES = ("openvino",)
"""Engines, by module of `models.engines`, that compile for a CPU: each has `version()` and `here()`."""


class State(StrEnum):
    """What an entry is."""

    OK = "ok"
    DAMAGED = "damaged"
    """Cut short, changed or gone."""
    TAMPERED = "tampered"
    """Edited, exchanged, or where others may have written it."""
    STALE = "stale"
    """Of another version, or never finished."""
    FOREIGN = "foreign"
    """For another device than this machine's."""
    FAILED = "failed"
    """A build that failed; it may stand in the way of the next try."""


WRONG = (State.DAMAGED, State.TAMPERED)
"""States that no machine and no version makes good."""


class Depth(StrEnum):
    """How closely to look at plans."""

    GLANCE = "glance"
    """Whether they are there, how long, and who may write them."""
    BYTES = "bytes"
    """Every byte, too."""


@dataclass(frozen=True, slots=True)
class Installed:
    """An engine that is installed."""

    version: str
    here: str | None
    """This machine's device, as plans name it; None without one."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A plan with its record, a failed build, or something left over."""

    key: str
    """The recipe's, or what is left of a file's name."""
    state: State
    reason: str
    """In words; empty when all is well."""
    files: tuple[Path, ...]
    """All that goes when it is removed, the record first."""
    record: Record | None = None
    failure: Failure | None = None

    @property
    def bundle(self) -> str:
        """The bundle's name; empty where none is known."""
        if self.record is not None:
            return self.record.bundle
        return self.failure.attempt.name if self.failure else ""

    @property
    def bytes(self) -> int:
        """Of all its files."""
        return sum(path.lstat().st_size for path in self._there)

    @property
    def written(self) -> datetime | None:
        """When its plan was, or whatever there is of it."""
        return datetime.fromtimestamp(self._there[-1].lstat().st_mtime, UTC) if self._there else None

    @property
    def _there(self) -> list[Path]:
        return [path for path in self.files if os.path.lexists(path)]


def take(cache: EngineCache, installed: Mapping[str, Installed], *, depth: Depth = Depth.GLANCE) -> Iterator[Entry]:
    """Everything there, one entry after another. `CacheUnsafe` if others may write into the directory."""
    cache.check()
    named: set[Path] = set()
    for path in cache.record_files():
        entry = _entry(cache, path, installed, depth)
        named.update(entry.files)
        yield entry
    for failure in Failures(cache.root).all():
        yield _failed(failure, Failures(cache.root))
    for path in sorted([*cache.root.glob("*.plan"), *cache.root.glob(f"{ASIDE}*")]):
        if path not in named:
            yield Entry(path.stem.removeprefix("."), State.STALE, "no record names it: it was never finished", (path,))


def remove(cache: EngineCache, entries: Iterable[Entry], installed: Mapping[str, Installed]) -> list[Entry]:
    """Remove those that are still as they were, and say which. What is being written meanwhile stays."""
    removed = []
    with cache.writing():
        there = {entry.files for entry in take(cache, installed)}
        for entry in entries:
            if entry.files in there:
                for path in entry.files:
                    path.unlink(missing_ok=True)
                removed.append(entry)
    return removed


def installed() -> dict[str, Installed]:
    """The engines there are on this machine, by flavour."""
    found: dict[str, Installed] = {}
    try:
        flavour = flavours.detect()
        found[flavour.name] = Installed(flavour.version, _or_none(flavour))
    except EngineUnavailable:
        pass
    for name in CPU_ENGINES:
        module = import_module(f"models.engines.{name}")
        try:
            found[name] = Installed(module.version(), module.here())
        except EngineUnavailable:
            continue
    return found


def _or_none(flavour: flavours.Flavour) -> str | None:
    try:
        return flavour.here()
    except EngineUnavailable:
        return None


def _entry(cache: EngineCache, path: Path, installed: Mapping[str, Installed], depth: Depth) -> Entry:
    try:
        record = cache.read(path)
    except PlanDamaged as error:
        return Entry(path.stem, _state(error.fault), str(error), (path, *_plans_of(path)))
    files = (path, cache.path(record))
    try:
        cache.glance(record) if depth is Depth.GLANCE else cache.plan(record)
    except PlanDamaged as error:
        return Entry(path.stem, _state(error.fault), str(error), files, record)
    state, reason = _fitness(record, installed.get(record.recipe.flavour))
    return Entry(path.stem, state, reason, files, record)


def _plans_of(path: Path) -> list[Path]:
    """Plans that an unreadable record may have named: a plan's name begins with its record's."""
    return sorted(path.parent.glob(f"{path.stem}-*.plan"))


def _fitness(record: Record, installed: Installed | None) -> tuple[State, str]:
    recipe = record.recipe
    if installed is None:
        return State.FOREIGN, f"{recipe.flavour} is not installed here"
    if recipe.version != installed.version:
        return State.STALE, f"built by {recipe.flavour} {recipe.version}; {installed.version} is installed"
    if installed.here not in recipe.targets:
        return State.FOREIGN, f"for {', '.join(recipe.targets)}; here is {installed.here or 'no such device'}"
    return State.OK, ""


def _failed(failure: Failure, failures: Failures) -> Entry:
    files, key = (failures.path(failure.attempt),), failure.attempt.key
    if failure.versions != versions():
        return Entry(key, State.STALE, f"failed with other versions: {failure.reason}", files, failure=failure)
    times = "once" if failure.count == 1 else f"{failure.count} times"
    return Entry(key, State.FAILED, f"tried {times}; {failure.reason}", files, failure=failure)


def _state(fault: Fault) -> State:
    return State(fault.value)
