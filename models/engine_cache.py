"""The directory of compiled engines: plans, and beside each a record that says what it is and vouches for its bytes.

A plan is code. It is handed out only as bytes whose SHA-256 is the one its record holds, and the directory is its
owner's alone. Files are written aside and renamed, the plan before its record, so a reader sees a whole entry or
none. Nothing is deleted here. Which plan to build is `models.build`'s business.
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from models.engine import Precision
from models.spec import Sha256

FORMAT = 2
"""Version of records and keys; entries of another are not seen."""

VARIABLE = "GRIDIT_ENGINE_CACHE"
"""Environment variable that names the directory."""

_log = logging.getLogger(__name__)


class PlanDamaged(RuntimeError):
    """A plan's bytes are not those its record vouches for, or are gone: changed or cut short after they were built."""


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Profile(_Frozen):
    """Batch sizes that one optimization profile serves."""

    least: Annotated[int, Field(ge=1)]
    best: int
    """The size kernels are chosen for."""
    most: int


class Recipe(_Frozen):
    """All that decides what a plan is. Two plans with the same recipe are interchangeable."""

    format: int = FORMAT
    onnx_sha256: Sha256
    """Of the graph with its weights."""
    flavour: str
    version: str
    targets: tuple[str, ...]
    """Compute capabilities, or the GPU with its driver, as `Flavour.targets` gives them."""
    profiles: tuple[Profile, ...]
    precision: Precision
    quantisation: Sha256 | None = None
    """Of all scales, where the precision needs some."""
    flags: tuple[str, ...] = ()

    @property
    def key(self) -> str:
        """The SHA-256 of all fields."""
        return hashlib.sha256(json.dumps(self.model_dump(mode="json"), sort_keys=True).encode()).hexdigest()

    def serves(self, rows: int) -> bool:
        """Whether a batch of that size has a profile."""
        return any(profile.least <= rows <= profile.most for profile in self.profiles)


class Quality(_Frozen):
    """What the bundle's quality gate said about a quantised engine."""

    accepted: bool
    """No figure fails that holds unquantised."""
    unquantised: dict[str, float]
    quantised: dict[str, float]
    """The gate's figures, by name."""


class Measured(_Frozen):
    """What a plan did when it was run, beside torch on the same device in the same run."""

    device: str
    parity: float
    """|difference| / |torch in float32|, over random rows."""
    seconds: dict[int, float]
    """Median of a run, by bucket."""
    torch_precision: Precision
    torch_seconds: dict[int, float]
    """Of the torch engine that would serve instead."""

    @property
    def speedup(self) -> float:
        """Torch's time over the plan's, in the mean over buckets (geometric)."""
        ratios = [self.torch_seconds[rows] / seconds for rows, seconds in self.seconds.items()]
        return math.exp(sum(map(math.log, ratios)) / len(ratios))


class Record(_Frozen):
    """What the JSON beside a plan says."""

    recipe: Recipe
    source: Sha256
    """`models.export.source_digest` of the net: finds the plan without exporting the net again."""
    bundle: str
    net: str
    graph: str
    """`Graph.name`."""
    plan: Annotated[str, Field(pattern=r"^[0-9a-f]+-[0-9a-f]+\.plan$")]
    """File name, in the same directory."""
    plan_sha256: Sha256
    plan_bytes: int
    onnx_bytes: int
    export_seconds: float
    build_seconds: float
    kernels: int
    """Launches of one forward."""
    fused_attentions: int
    """Of one forward."""
    depth: int
    """Attentions of the graph."""
    exported_parity: float | None = None
    """Of the exported graph in ONNX Runtime; None where that cannot run it."""
    measured: Measured | None = None
    """None: never run yet, for want of a device."""
    quality: Quality | None = None
    """None: not quantised."""


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
        """Every readable record, in the order of their keys."""
        for path in sorted(self.root.glob("*.json")):
            try:
                record = Record.model_validate_json(path.read_bytes())
            except ValidationError:
                _log.warning("engine record skipped", extra={"action": "engine_cache.skip", "path": str(path)})
                continue
            if record.recipe.format == FORMAT and record.recipe.key == path.stem:
                yield record

    def plan(self, record: Record) -> bytes:
        """The bytes of a plan, checked. `PlanDamaged` if they are not the ones that were built."""
        path = self.path(record)
        try:
            plan = path.read_bytes()
        except FileNotFoundError as error:
            raise PlanDamaged(f"{path} is gone") from error
        if hashlib.sha256(plan).hexdigest() != record.plan_sha256:
            raise PlanDamaged(f"{path} was changed after it was built; it is not loaded")
        return plan

    def store(self, record: Record, plan: bytes) -> None:
        """Write both files; an older entry of the same key gives way."""
        self.root.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._write(self.path(record), plan)
        self._write(self._record(record.recipe.key), record.model_dump_json(indent=2).encode() + b"\n")

    def path(self, record: Record) -> Path:
        """Where a record's plan is."""
        return self.root / record.plan

    def _record(self, key: str) -> Path:
        return self.root / f"{key}.json"

    def _write(self, path: Path, content: bytes) -> None:
        with tempfile.NamedTemporaryFile(dir=self.root, prefix=".aside-", delete=False) as aside:
            try:
                aside.write(content)
                aside.flush()
                os.fsync(aside.fileno())
                Path(aside.name).replace(path)
            except BaseException:
                Path(aside.name).unlink(missing_ok=True)
                raise


def plan_name(recipe: Recipe, plan_sha256: str) -> str:
    """File name of a plan. Its own hash is in it, so builds of the same recipe at once cannot mix their files."""
    return f"{recipe.key}-{plan_sha256[:16]}.plan"
