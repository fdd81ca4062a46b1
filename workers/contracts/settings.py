"""Settings from the environment, one reading for every process of ours.

Each field is the variable `GRIDIT_<FIELD>`. `load()` refuses a bad value and any `GRIDIT_*` variable that is no
field, and names every culprit at once; nothing starts on a guess. No file is read.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import urlsplit

from pydantic import Field, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from workers.contracts.errors import InvalidSettings

PREFIX = "GRIDIT_"
STORE_SCHEMES = ("s3", "gs", "az", "file")
SHIPPED_BUNDLE = Path(__file__).resolve().parents[2] / "models" / "bundles" / "demo"


class EngineChoice(StrEnum):
    """Which engine serves the nets; AUTO: the fastest that was measured here and computes what torch does."""

    AUTO = "auto"
    TORCH = "torch"
    TENSORRT = "tensorrt"
    OPENVINO = "openvino"


class PrecisionChoice(StrEnum):
    """Arithmetic of the nets; AUTO: what the engine does best on the device."""

    AUTO = "auto"
    FP32 = "fp32"
    FP16 = "fp16"
    BF16 = "bf16"
    FP8 = "fp8"
    INT8 = "int8"


COMPUTES: Mapping[EngineChoice, tuple[PrecisionChoice, ...]] = {
    EngineChoice.TORCH: (PrecisionChoice.FP32, PrecisionChoice.BF16),
    EngineChoice.TENSORRT: (PrecisionChoice.FP16, PrecisionChoice.BF16, PrecisionChoice.FP8),
    EngineChoice.OPENVINO: (PrecisionChoice.FP32, PrecisionChoice.BF16, PrecisionChoice.INT8),
}
"""What each engine computes in."""


class EngineBuilds(StrEnum):
    """Whether a worker compiles engines that could be faster while it serves."""

    BACKGROUND = "background"
    """In a child process; the worker goes over to them once they have proved right and faster."""
    OFF = "off"
    """It takes those that `gridit compile` has made."""


class TorchMode(StrEnum):
    """How the torch engine runs a net; AUTO: GRAPHS on a GPU, EAGER on a CPU."""

    AUTO = "auto"
    EAGER = "eager"
    GRAPHS = "graphs"
    """One CUDA graph for each bucket."""
    COMPILE = "compile"
    """By torch.compile: minutes of start-up, and a C++ compiler on the machine."""


class LogLevel(StrEnum):
    """Least level that is logged."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"
    CRITICAL = "critical"


class LogFormat(StrEnum):
    """One line a record, either way."""

    TEXT = "text"
    JSON = "json"


class Settings(BaseSettings):
    """Everything that can be set; keyword arguments win over the environment."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, extra="forbid", frozen=True, validate_default=False)

    redis_url: str = "redis://127.0.0.1:6379/0"
    """redis://, rediss:// or unix://<path>."""
    redis_server: Path | None = None
    """Server program that `gridit up` embeds; None: whichever is found."""
    data_dir: Path = Path("data")
    """Root of the object store (`<data_dir>/store`, unless `store` names another) and of what else a process keeps."""
    store: str | None = None
    """URL of the object store: s3://bucket/prefix, gs://, az://, file:///path; None: `<data_dir>/store`. The same for
    all processes; credentials, region and endpoint by the provider's own variables (AWS_ACCESS_KEY_ID, ...)."""
    store_bytes: Annotated[int, Field(ge=1)] | None = None
    """Bound on what jobs hold in the store: above it the oldest finished ones go before their time. None: no bound.
    Uploads and results of batches are not counted, nor deleted for it."""
    store_free_bytes: Annotated[int, Field(ge=0)] = 256 * 1024 * 1024
    """New jobs are refused while a store in a directory has less room: it is for those already accepted."""
    store_patience_seconds: Annotated[float, Field(ge=0, le=86400)] = 600.0
    """How long jobs wait for a store that is full or does not answer before they fail."""
    host: str = "127.0.0.1"
    port: Annotated[int, Field(ge=0, le=65535)] = 8000
    """0: any free port."""
    metrics_port: Annotated[int, Field(ge=1, le=65535)] | None = None
    """Where a worker that runs on its own serves its metrics; None: nowhere."""
    device: str = "auto"
    """What a worker computes on: auto (a GPU if there is one), cpu, cuda (the first GPU it sees) or cuda:<n>."""
    engine: EngineChoice = EngineChoice.AUTO
    precision: PrecisionChoice = PrecisionChoice.AUTO
    engine_cache: Path | None = None
    """Where compiled engines are kept; None: in the user's cache directory. Read by `compiling.engine_cache` itself."""
    engine_builds: EngineBuilds = EngineBuilds.BACKGROUND
    engine_build_tries: Annotated[int, Field(ge=1, le=100)] = 2
    """A build that has failed so often is not begun again, by no worker, until what it is made of or with changes."""
    torch_mode: TorchMode = TorchMode.AUTO
    """Read by `models.engines.torch` itself."""
    bundles: Annotated[tuple[Path, ...], NoDecode] = (SHIPPED_BUNDLE,)
    """Bundle directories, separated like PATH; the first is the default model."""
    threads: Annotated[int, Field(ge=1, le=1024)] | None = None
    """CPU threads of an engine; None: one a core."""
    slots: Annotated[int, Field(ge=1, le=256)] = 8
    """Jobs that one worker has in hand at once."""
    lease_seconds: Annotated[float, Field(gt=0, le=600)] = 4.0
    """A worker that has not beaten for so long has lost its jobs."""
    beat_seconds: Annotated[float, Field(gt=0, le=60)] = 0.8
    drain_seconds: Annotated[float, Field(ge=0, le=86400)] = 10.0
    """How long a stopping worker goes on with its jobs before it gives them back."""
    artifact_seconds: Annotated[float, Field(gt=0)] = 86400.0
    """How long a finished job's files are kept."""
    max_queued: Annotated[int, Field(ge=0)] = 1000
    """Admission bound: jobs that wait."""
    max_body_bytes: Annotated[int, Field(ge=1024)] = 64 * 1024 * 1024
    log_level: LogLevel = LogLevel.INFO
    log_format: LogFormat = LogFormat.TEXT

    @property
    def store_dir(self) -> Path:
        """Root of the object store that is a directory."""
        return self.data_dir / "store"

    @field_validator("bundles", mode="before")
    @classmethod
    def _split_paths(cls, value: Any) -> Any:
        if isinstance(value, str):
            return tuple(Path(part) for part in value.split(os.pathsep) if part)
        return value

    @field_validator("bundles")
    @classmethod
    def _some_bundle(cls, value: tuple[Path, ...]) -> tuple[Path, ...]:
        if not value:
            raise ValueError("name at least one bundle directory")
        return value

    @field_validator("device")
    @classmethod
    def _known_device(cls, value: str) -> str:
        if not re.fullmatch(r"auto|cpu|cuda(:\d+)?", value):
            raise ValueError(f"found {value!r}; must be auto, cpu, cuda or cuda:<number>, like cuda:1")
        return value

    @field_validator("redis_url")
    @classmethod
    def _known_scheme(cls, value: str) -> str:
        if not value.startswith(("redis://", "rediss://", "unix://")):
            raise ValueError("must start with redis://, rediss:// or unix://")
        return value

    @field_validator("store")
    @classmethod
    def _known_store(cls, value: str | None) -> str | None:
        if value is None:
            return None
        parts = urlsplit(value)
        if parts.username or parts.password or parts.query or parts.fragment:
            raise ValueError("must hold no credentials and no options; they go by the environment")
        if parts.scheme not in STORE_SCHEMES:
            raise ValueError(f"must start with {', '.join(f'{scheme}://' for scheme in STORE_SCHEMES)}")
        if parts.scheme == "file" and (parts.netloc or not parts.path.strip("/")):
            raise ValueError("must name a directory in full: file:///path")
        if parts.scheme != "file" and not parts.netloc:
            raise ValueError("must name a bucket")
        return value

    @model_validator(mode="after")
    def _engine_computes_so(self) -> Settings:
        known = COMPUTES.get(self.engine, tuple(PrecisionChoice))
        if self.precision is not PrecisionChoice.AUTO and self.precision not in known:
            raise ValueError(
                f"{PREFIX}PRECISION: {self.engine} does not compute in {self.precision}, only in {', '.join(known)}; "
                f"choose one of them, or auto, or leave {PREFIX}ENGINE to auto"
            )
        return self

    @model_validator(mode="after")
    def _beats_fit_in_lease(self) -> Settings:
        if self.beat_seconds * 2 > self.lease_seconds:
            raise ValueError(
                f"beat_seconds {self.beat_seconds} must be at most half of lease_seconds {self.lease_seconds}"
            )
        return self


def load(**overrides: Any) -> Settings:
    """The settings of this process: `overrides` (fields that are not None), else the environment, else defaults.

    Raises InvalidSettings that names every variable at fault.
    """
    problems = unknown_variables(os.environ)
    try:
        settings = Settings(**{name: value for name, value in overrides.items() if value is not None})
    except ValidationError as error:
        problems += [_describe(detail) for detail in error.errors()]
    if problems:
        raise InvalidSettings("; ".join(problems))
    return settings


def unknown_variables(environment: Mapping[str, str]) -> list[str]:
    """A complaint for each GRIDIT_* variable that is no field."""
    known = {f"{PREFIX}{name.upper()}" for name in Settings.model_fields}
    strange = sorted(name for name in environment if name.upper().startswith(PREFIX) and name.upper() not in known)
    return [f"{name}: no such setting (known: {', '.join(sorted(known))})" for name in strange]


def _describe(detail: Mapping[str, Any]) -> str:
    name = ".".join(str(part) for part in detail["loc"][:1])
    return f"{PREFIX}{name.upper()}: {detail['msg']}" if name else str(detail["msg"])
