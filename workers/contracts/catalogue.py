"""What is served: bundles as the workers offer them, and the workers' own state.

Workers write both to Redis; the service reads them and never loads a bundle. The catalogue outlives its workers,
so requests can be checked and queued while none is alive.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Self

from workers.contracts.job import Mode, Stage, Value


class EngineInfo(Value):
    """Which engine serves a net, and how."""

    engine: str
    precision: str
    buckets: tuple[int, ...] = ()
    device: str = "cpu"
    """For people: a GPU's place among those its process sees, its name and its identity."""
    reason: str = ""
    """Why this engine was taken."""
    building: str = ""
    """What is compiled meanwhile, or waits to be, to serve in its place: "openvino bf16"; "": nothing."""
    failed: str = ""
    """What should serve in its place and could not be made, and why; "": nothing."""

    @property
    def is_fallback(self) -> bool:
        """Whether another engine should serve, which is not there."""
        return bool(self.building or self.failed)


class CatalogueEntry(Value):
    """One bundle: what a request may ask of it."""

    name: str
    hash: str
    description: str = ""
    license: str = ""
    classes: tuple[str, ...] = ()
    """Empty: unconditional."""
    samplers: tuple[str, ...] = ()
    spacings: tuple[str, ...] = ("linear",)
    modes: tuple[Mode, ...] = (Mode.SOUND,)
    stages: tuple[Stage, ...] = tuple(Stage)
    """Those it has nets for."""
    caches: bool = False
    """Whether its engines can reuse features."""
    grid: int
    coarse_size: int
    refined_size: int
    bits: int = 8
    """Depth of a frame as it is stored."""
    value_range: tuple[float, float] | None = None
    """What the least and the greatest stored number stand for."""
    max_frames: int
    max_steps: int
    max_guidance_scale: float
    default_num_frames: int
    default_fps: int
    default_sampler: str
    default_spacing: str = "linear"
    default_steps: int
    default_refine_steps: int
    default_guidance_scale: float
    official_steps: int = 250
    """Steps of both stages in the official mode."""
    official_guidance_scale: float = 4.0
    is_default: bool = False
    engines: dict[str, EngineInfo] = {}
    """Per net: "coarse", "refine", and for the halves of an autoencoder "encoder", "decoder"."""
    seen_at: float
    """When a worker last offered it."""

    def frame_size(self, stage: Stage) -> str:
        """ "WxH" of a frame of this stage."""
        side = self.coarse_size if stage is Stage.COARSE else self.refined_size
        return f"{side}x{side}"


class WorkerState(Value):
    """A worker's own report, refreshed with each heartbeat and gone when it expires."""

    name: str
    phase: str
    """loading | ready | opening (a built engine; jobs wait for it) | draining"""
    pid: int
    host: str
    slots: int
    running: tuple[str, ...] = ()
    started_at: float
    heartbeat_at: float
    progress_at: float | None = None
    """End of the last tick."""
    models: tuple[str, ...] = ()
    hashes: dict[str, str] = {}
    """Of the bundle behind each model."""
    row_seconds: float | None = None
    """What a row of a batch has lately taken; None: nothing has run yet."""
    engines: dict[str, EngineInfo] = {}
    """By "<bundle>/<net>"."""
    device: str = ""
    """What its engines run on, once they are loaded."""

    def to_hash(self) -> dict[str, str]:
        """JSON of each field, for HSET."""
        return {name: json.dumps(value) for name, value in self.model_dump(mode="json").items()}

    @classmethod
    def from_hash(cls, fields: Mapping[str, str]) -> Self:
        """Inverse of `to_hash`."""
        return cls.model_validate({name: json.loads(value) for name, value in fields.items()})
