"""The directory of compiled engines: plans, and beside each a record that says what it is and vouches for its bytes.

A plan is code. The record holds the SHA-256 of the plan's bytes, and a seal of its own: they show any change made by
accident, and a plan that was put in another's place. They cannot show who wrote both: whoever may write here may write
a plan, its record and its seal. So nothing is read that anybody but this user (or root) can have written, and a plan
that was sent to you is as good as its sender. Files are written aside and renamed, the plan before its record, so a
reader sees a whole entry or none. Which plan to build is `build`'s business; what lies here, `stock`'s.
"""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from models.compiling import owned
from models.compiling.engine_record import (
    AMENDED,
    FORMAT,
    Fault,
    Measured,
    PlanDamaged,
    Profile,
    Quality,
    Recipe,
    Record,
    plan_name,
    sealed,
    unsealed,
)
from models.compiling.owned import NotOwn
from models.compiling.turns import Turn
from models.engine import EngineUnavailable

__all__ = [
    "FORMAT",
    "VARIABLE",
    "CacheUnsafe",
    "EngineCache",
    "Fault",
    "Measured",
    "PlanDamaged",
    "Profile",
    "Quality",
    "Recipe",
    "Record",
    "plan_name",
]

VARIABLE = "GRIDIT_ENGINE_CACHE"
"""Environment variable that names the directory."""

_log = logging.getLogger(__name__)


class CacheUnsafe(EngineUnavailable):
    """The directory cannot be used: others may write into it, or this user may not."""


class EngineCache:
    """Plans and records under one directory."""

    def __init__(self, root: Path) -> None:
        """`root` need not exist."""
        self.root = root

    @classmethod
    def default(cls) -> EngineCache:
        """`$GRIDIT_ENGINE_CACHE`, else `gridit/engines` in the user's cache directory."""
        if named := os.environ.get(VARIABLE):
            return cls(Path(named).expanduser())
        base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
        return cls(Path(base) / "gridit" / "engines")

    def records(self) -> Iterator[Record]:
        """Every record that is sound, in the order of their keys. Others are passed over, with a line in the log."""
        for path in self.record_files():
            try:
                yield self.read(path)
            except PlanDamaged as error:
                fields = {"action": "engine_cache.skip", "path": str(path), "fault": error.fault, "reason": str(error)}
                _log.warning("engine record skipped", extra=fields)

    def find(self, source: str, *, flavour: str, version: str) -> Iterator[Record]:
        """The sound records of what was made of `source`, a `compiling.export.source_digest`; nothing is exported."""
        for record in self.records():
            if (record.source, record.recipe.flavour, record.recipe.version) == (source, flavour, version):
                yield record

    def record_files(self) -> list[Path]:
        """Where records are, sound or not. None, with a line in the log, if others may write into the directory."""
        try:
            self.check()
        except CacheUnsafe as error:
            _log.warning("engine cache unused", extra={"action": "engine_cache.unsafe", "reason": str(error)})
            return []
        return sorted(self.root.glob("*.json"))

    def check(self) -> None:
        """`CacheUnsafe` if others may write into the directory."""
        try:
            if self.root.exists():
                owned.check_directory(self.root)
        except NotOwn as error:
            raise CacheUnsafe(f"{VARIABLE}: {error}") from error

    def read(self, path: Path) -> Record:
        """The record in one file of `record_files`. `PlanDamaged` says what is wrong with it."""
        with _refusing():
            content = owned.read(path)
        record = unsealed(content, path)
        if record.recipe.key != path.stem:
            raise PlanDamaged(f"{path} is not under its own key; it was renamed or edited", fault=Fault.TAMPERED)
        return record

    def plan(self, record: Record) -> bytes:
        """The bytes of a plan, checked. `PlanDamaged` if they are not the ones that were built."""
        with self._opened(record) as stream:
            plan = stream.read()
        if hashlib.sha256(plan).hexdigest() != record.plan_sha256:
            raise PlanDamaged(f"{self.path(record)} was changed after it was built; it is not loaded")
        return plan

    def glance(self, record: Record) -> None:
        """As `plan`, but its bytes are not read: only whether they are there, how many, and who may write them."""
        with self._opened(record):
            pass

    def building(self, key: str) -> Turn:
        """The turn of whoever looks for, builds and stores a plan, so that no two processes build the same one.

        `key` is a recipe's, with the source's digest in the place of the ONNX's, which is not known before the export.
        `CacheUnsafe` now rather than after the build.
        """
        return Turn(self._directory("locks") / f"{key}.lock")

    def store(self, record: Record, plan: bytes) -> None:
        """Write both files; an older entry of the same key gives way. `CacheUnsafe`."""
        with self.writing():
            owned.write(self.path(record), plan)
            owned.write(self.record_path(record), sealed(record))

    def amend(self, record: Record) -> Record:
        """Put what has become known (`AMENDED`) into the record on disk; what `record` does not know is kept.

        `PlanDamaged` if the entry is gone or was replaced by another build.
        """
        with self.writing():
            there = self.read(self.record_path(record))
            if there.plan_sha256 != record.plan_sha256:
                raise PlanDamaged(f"{self.path(record)} was replaced by another build")
            known = {name: value for name in AMENDED if (value := getattr(record, name)) is not None}
            amended = there.model_copy(update=known)
            owned.write(self.record_path(record), sealed(amended))
        return amended

    @contextmanager
    def writing(self) -> Iterator[None]:
        """While nobody else writes or removes anything. `CacheUnsafe`."""
        with Turn(self._directory("locks") / "writing.lock") as turn:
            turn.wait()
            yield

    def path(self, record: Record) -> Path:
        """Where a record's plan is."""
        return self.root / record.plan

    def record_path(self, record: Record) -> Path:
        """Where a record is."""
        return self.root / f"{record.recipe.key}.json"

    @contextmanager
    def _opened(self, record: Record) -> Iterator[BinaryIO]:
        path = self.path(record)
        with _refusing():
            owned.check_directory(self.root)
            with owned.opened(path) as stream:
                size = os.fstat(stream.fileno()).st_size
                if size != record.plan_bytes:
                    raise PlanDamaged(
                        f"{path} was changed after it was built: it has {size} bytes, not {record.plan_bytes}"
                    )
                yield stream

    def _directory(self, name: str) -> Path:
        try:
            for path in (self.root, self.root / name):
                owned.make_directory(path)
        except (NotOwn, OSError) as error:
            raise CacheUnsafe(f"{VARIABLE}: {error}") from error
        return self.root / name


@contextmanager
def _refusing() -> Iterator[None]:
    """What cannot be read or trusted is told as `PlanDamaged`."""
    try:
        yield
    except NotOwn as error:
        raise PlanDamaged(str(error), fault=Fault.TAMPERED) from error
    except FileNotFoundError as error:
        raise PlanDamaged(f"{error.filename} is gone") from error
    except OSError as error:
        raise PlanDamaged(f"{error.filename} cannot be read: {error.strerror}") from error
