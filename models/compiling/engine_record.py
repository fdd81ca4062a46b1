"""What is known of a compiled engine: how it was made, what it is, what it did when it was run; and how that is kept.

A record is kept as JSON under a seal, the SHA-256 of its fields: an edit shows, unless it was made to deceive. Plans,
and where all this lies, are `models.compiling.engine_cache`'s.
"""

from __future__ import annotations

import hashlib
import json
import math
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from models.engine import Precision
from models.spec import Sha256

FORMAT = 3
"""Version of records and keys; entries of another are not seen."""

AMENDED = ("exported_parity", "measured", "quality")
"""Fields of a record that may become known after it was stored."""


class Fault(StrEnum):
    """What is wrong with an entry."""

    DAMAGED = "damaged"
    """Cut short, changed or gone."""
    TAMPERED = "tampered"
    """Edited, exchanged, or where others may have written it."""
    STALE = "stale"
    """Of another version."""


class PlanDamaged(RuntimeError):
    """An entry is not what was built; it is not loaded. The message says what was found, `fault` of what kind it is."""

    def __init__(self, message: str, *, fault: Fault = Fault.DAMAGED) -> None:
        super().__init__(message)
        self.fault = fault


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
    """`models.compiling.export.source_digest` of the net: finds the plan without exporting the net again."""
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

    @model_validator(mode="after")
    def _names_its_own_plan(self) -> Self:
        if self.plan != plan_name(self.recipe, self.plan_sha256):
            raise ValueError(f"plan: {self.plan} is another entry's")
        return self


def plan_name(recipe: Recipe, plan_sha256: str) -> str:
    """File name of a plan. Its own hash is in it, so builds of the same recipe at once cannot mix their files."""
    return f"{recipe.key}-{plan_sha256[:16]}.plan"


def sealed(record: Record) -> bytes:
    """A record as it is kept."""
    content = json.loads(record.model_dump_json())
    return json.dumps({"record": content, "seal": _seal(content)}, indent=2).encode() + b"\n"


def unsealed(kept: bytes, path: Path) -> Record:
    """The record that a file holds. `PlanDamaged` says what is wrong with it."""
    try:
        parts = json.loads(kept)
        content, seal = parts["record"], parts["seal"]
        made = content["recipe"]["format"]
    except (ValueError, LookupError, TypeError) as error:
        old = b'"recipe"' in kept and b'"seal"' not in kept
        raise PlanDamaged(f"{path} is no record", fault=Fault.STALE if old else Fault.DAMAGED) from error
    if seal != _seal(content):
        raise PlanDamaged(f"{path} was edited after it was written", fault=Fault.TAMPERED)
    if made != FORMAT:
        raise PlanDamaged(f"{path} has format {made}; this version writes {FORMAT}", fault=Fault.STALE)
    try:
        return Record.model_validate(content)
    except ValidationError as error:
        raise PlanDamaged(f"{path} is no record of this version: {error}", fault=Fault.TAMPERED) from error


def _seal(content: Any) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
