"""Builds that failed, kept beside the engines that were built, so that a restart does not repeat them for ever.

A failure counts for one bundle, engine and precision, and for the versions of all that takes part: with another version
of any of them, or another bundle, there is nothing to hold against a build. Who asks for one by hand is not asked back.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from models.compiling import owned
from models.compiling.owned import NotOwn
from models.engine import Precision
from models.spec import Sha256

DIRECTORY = "failures"
TAKE_PART = (
    "gridit-serve",
    "nncf",
    "onnx",
    "onnxscript",
    "openvino",
    "tensorrt",
    "tensorrt-rtx-cu13-bindings",
    "tensorrt-rtx-cu13-libs",
    "torch",
)
"""Distributions whose versions may decide whether a build fails."""

_log = logging.getLogger(__name__)


class Attempt(BaseModel):
    """What was tried."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    bundle: Sha256
    """`Bundle.hash`."""
    name: str
    """The bundle's, for people."""
    engine: str
    precision: Precision

    @property
    def key(self) -> str:
        """The SHA-256 of what it is about; a bundle may change its name."""
        return hashlib.sha256(f"{self.bundle} {self.engine} {self.precision}".encode()).hexdigest()


class Failure(BaseModel):
    """How it went."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    attempt: Attempt
    reason: str
    """Of the last time."""
    count: int
    at: datetime
    """The last time."""
    versions: dict[str, str]


class Failures:
    """Those of one engine cache."""

    def __init__(self, root: Path) -> None:
        """`root` is the cache's directory; it need not exist."""
        self._root = root

    def may_try(self, attempt: Attempt, *, tries: int) -> bool:
        """Whether it failed less often than `tries` times."""
        failure = self.find(attempt)
        return (0 if failure is None else failure.count) < tries

    def find(self, attempt: Attempt) -> Failure | None:
        """What is held against it: nothing once a version has changed."""
        failure = self._read(self.path(attempt))
        return failure if failure is not None and failure.versions == versions() else None

    def record(self, attempt: Attempt, *, reason: str) -> Failure:
        """It failed, once more. `NotOwn` where others may write."""
        earlier = self.find(attempt)
        count = 1 if earlier is None else earlier.count + 1
        failure = Failure(attempt=attempt, reason=reason, count=count, at=datetime.now(UTC), versions=versions())
        for directory in (self._root, self._root / DIRECTORY):
            owned.make_directory(directory)
        owned.write(self.path(attempt), failure.model_dump_json(indent=2).encode() + b"\n")
        return failure

    def forget(self, attempt: Attempt) -> None:
        """Hold nothing against it any more; repeat-safe."""
        self.path(attempt).unlink(missing_ok=True)

    def all(self) -> Iterator[Failure]:
        """Every one that can be read, those of other versions too."""
        for path in sorted((self._root / DIRECTORY).glob("*.json")):
            if failure := self._read(path):
                yield failure

    def path(self, attempt: Attempt) -> Path:
        """Where a failure of this is kept."""
        return self._root / DIRECTORY / f"{attempt.key}.json"

    def _read(self, path: Path) -> Failure | None:
        try:
            return Failure.model_validate_json(owned.read(path))
        except FileNotFoundError:
            return None
        except (ValidationError, NotOwn, OSError) as error:
            fields = {"action": "engine_failures.skip", "path": str(path), "reason": str(error)}
            _log.warning("record of a failed build skipped", extra=fields)
            return None


def versions() -> dict[str, str]:
    """Of the distributions that take part and are installed."""
    found = {}
    for name in TAKE_PART:
        with suppress(metadata.PackageNotFoundError):
            found[name] = metadata.version(name)
    return found
