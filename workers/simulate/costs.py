"""Step costs: how long one run of each net takes in each bucket, recorded on a machine, and the bundle they belong to.

A table is a JSON file that is complete by itself: whoever simulates needs neither the bundle nor its engines.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from models.spec import BundleSpec, Codec, Stage
from workers.contracts.catalogue import EngineInfo
from workers.contracts.errors import SimulationInput
from workers.contracts.job import JobSpec, Mode
from workers.contracts.job import Stage as JobStage

Part = Stage | Codec
"""A net of a bundle."""

SHIPPED = Path(__file__).parent / "data" / "demo-2-cores.json"
"""The bundled model on two CPU cores."""


class Costs(BaseModel):
    """The nets of one bundle on one machine."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    bundle: BundleSpec
    bundle_hash: str
    machine: str
    """In words."""
    versions: dict[str, str] = {}
    engines: dict[str, EngineInfo] = {}
    """By net."""
    seconds: dict[str, dict[int, Annotated[float, Field(gt=0)]]]
    """By net and bucket: the median time of one run."""

    @property
    def model(self) -> str:
        """The bundle's name."""
        return self.bundle.name

    @property
    def parts(self) -> tuple[Part, ...]:
        """The nets that the bundle has."""
        return (*self.bundle.stages, *(Codec if self.bundle.autoencoder else ()))

    def buckets(self, part: Part) -> tuple[int, ...]:
        """Rows that it can be run with, ascending; an autoencoder runs row by row."""
        return tuple(sorted(self.seconds[part.value]))

    def bucket(self, part: Part, rows: int) -> float:
        """Seconds of one run of a bucket."""
        return self.seconds[part.value][rows]

    def alone(self, part: Part, rows: int) -> float:
        """Seconds of any number of rows, in as few runs as there must be."""
        sizes = self.buckets(part)
        whole, rest = divmod(rows, sizes[-1])
        last = self.bucket(part, next(size for size in sizes if size >= rest)) if rest else 0.0
        return whole * self.bucket(part, sizes[-1]) + last

    def job(self, **changes: object) -> JobSpec:
        """A job of this bundle with its defaults; raises ValidationError where `changes` are no fields of one."""
        spec, defaults = self.bundle, self.bundle.defaults
        plain: dict[str, object] = {
            "model": spec.name,
            "bundle_hash": self.bundle_hash,
            "class_label": spec.classes[0] if spec.classes else None,
            "num_frames": defaults.num_frames,
            "fps": defaults.fps,
            "size": f"{spec.refined_size}x{spec.refined_size}",
            "seed": 0,
            "num_inference_steps": defaults.coarse_steps,
            "refine_steps": defaults.refine_steps,
            "sampler": defaults.sampler,
            "spacing": defaults.spacing.value,
            "guidance_scale": defaults.guidance_scale,
            "mode": Mode.SOUND,
            "stages": JobStage.REFINED if Stage.REFINE in spec.nets else JobStage.COARSE,
        }
        return JobSpec.model_validate(plain | changes)

    @model_validator(mode="after")
    def _complete(self) -> Self:
        wanted, found = {part.value for part in self.parts}, set(self.seconds)
        if wanted != found:
            raise ValueError(f"seconds: found nets {sorted(found)}, but the bundle has {sorted(wanted)}")
        if empty := [name for name, buckets in self.seconds.items() if min(buckets, default=0) < 1]:
            raise ValueError(f"seconds: {empty[0]!r} needs buckets of one row or more")
        return self


def read(path: Path = SHIPPED) -> Costs:
    """A table from its file; SimulationInput says what is wrong with it."""
    try:
        return Costs.model_validate_json(path.read_text())
    except OSError as error:
        raise SimulationInput(f"{path}: cannot be read ({error.strerror}); name a table of step costs") from error
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "the table"
        raise SimulationInput(
            f"{path}: {where}: {first['msg']}; write it with `gridit simulate record BUNDLE`"
        ) from error


def write(costs: Costs, path: Path) -> None:
    """For `read`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(costs.model_dump(mode="json"), indent=2) + "\n")
