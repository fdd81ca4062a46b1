"""The body of POST /v1/videos: parsed once, checked against the catalogue, resolved into a frozen `JobSpec`.

`VideoRequest` says what may be asked at all; `resolve` what a given bundle can do, and fills in every default. Fields
of the contract that this version cannot serve are refused by name, never ignored.
"""

from __future__ import annotations

import hashlib
import json
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints, ValidationError

from service.invalid import InvalidFields, describe
from workers.contracts.catalogue import CatalogueEntry
from workers.contracts.errors import InvalidRequest, Unavailable, UnknownModel, Unsupported
from workers.contracts.job import MAX_SEED, JobSpec, Priority, Stage

MAX_FPS = 120
LONGEST_DEADLINE = 7 * 86400.0
FORMATS = ("mp4",)


def _not_bool(value: Any) -> Any:
    if isinstance(value, bool):
        raise ValueError(f"must be a number (got {str(value).lower()})")
    return value


N = TypeVar("N", int, float)
Number = BeforeValidator(_not_bool)
Whole = Annotated[int, Number]
Real = Annotated[float, Number, Field(allow_inf_nan=False)]
ShortText = Annotated[str, StringConstraints(max_length=64, min_length=1)]


class Output(BaseModel):
    """How the finished file is made."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    format: Annotated[str | None, Field(description="`mp4`.")] = None
    quality: Annotated[str | None, Field(description="`standard`.")] = None


class VideoRequest(BaseModel):
    """What may be asked of any bundle; a field that is absent takes the bundle's default."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    model: Annotated[str | None, Field(description="A bundle of `/v1/models`; absent: the default one.")] = None
    prompt: Annotated[str | None, Field(description="The name of one of the model's classes.")] = None
    class_label: Annotated[str | None, Field(description="The same as `prompt`.")] = None
    num_frames: Annotated[Annotated[Whole, Field(ge=1)] | None, Field(description="Exactly so many frames.")] = None
    seconds: Annotated[
        Annotated[Real, Field(gt=0)] | None,
        Field(description="Length, instead of `num_frames`: seconds x fps frames. A string is fine."),
    ] = None
    fps: Annotated[Whole, Field(ge=1, le=MAX_FPS)] | None = None
    size: Annotated[str | None, Field(description="`WxH`; a bundle has one size for each stage.")] = None
    seed: Annotated[
        Annotated[Whole, Field(ge=0, le=MAX_SEED)] | None, Field(description="Absent: drawn, and told in the job.")
    ] = None
    num_inference_steps: Annotated[
        Annotated[Whole, Field(ge=1)] | None, Field(description="Steps of each coarse grid.")
    ] = None
    sampler: str | None = None
    guidance_scale: Annotated[Real, Field(ge=1)] | None = None
    priority: Priority = Priority.NORMAL
    deadline_seconds: Annotated[
        Annotated[Real, Field(gt=0, le=LONGEST_DEADLINE)] | None, Field(description="From submission.")
    ] = None
    stages: Annotated[Stage, Field(description="The last stage to run.")] = Stage.REFINED
    metadata: Annotated[
        dict[ShortText, Annotated[str, StringConstraints(max_length=512)]] | None, Field(max_length=16)
    ] = None
    user: Annotated[ShortText | None, Field(description="Your own user's name; kept as `metadata.user`.")] = None
    output: Output | None = None
    mode: Literal["sound", "official"] = "sound"
    input_reference: Annotated[Any, Field(description="Not supported yet: refused unless null.")] = None
    spacing: Annotated[Any, Field(description="Not supported yet: refused unless null.")] = None
    cache: Annotated[Any, Field(description="Not supported yet: refused unless null or false.")] = None
    webhook_url: Annotated[Any, Field(description="Not supported yet: refused unless null.")] = None

    @property
    def digest(self) -> str:
        """The same for two bodies that ask the same in the same words, however encoded."""
        asked = self.model_dump(mode="json", exclude_unset=True, exclude_none=True)
        return hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()


@dataclass(frozen=True)
class Resolved:
    """A request that can be served."""

    spec: JobSpec
    warnings: tuple[str, ...]


def parse(fields: Mapping[str, Any]) -> VideoRequest:
    """Raises InvalidFields that names each field at fault, Unsupported for what this version cannot do."""
    try:
        request = VideoRequest.model_validate(fields)
    except ValidationError as error:
        raise InvalidFields(describe(error.errors(), known=VideoRequest.model_fields)) from None
    _refuse_unsupported(request)
    return request


def resolve(request: VideoRequest, *, catalogue: Mapping[str, CatalogueEntry]) -> Resolved:
    """The job that a request stands for, every default filled in; raises InvalidRequest with the bundle's limit."""
    entry = choose(request.model, catalogue=catalogue)
    label, warnings = _label(request, entry=entry)
    fps = request.fps or entry.default_fps
    spec = JobSpec(
        model=entry.name,
        bundle_hash=entry.hash,
        class_label=label,
        num_frames=_num_frames(request, entry=entry, fps=fps),
        fps=fps,
        size=_size(request, entry=entry),
        seed=secrets.randbelow(MAX_SEED + 1) if request.seed is None else request.seed,
        num_inference_steps=_at_most(
            "num_inference_steps", request.num_inference_steps or entry.default_steps, limit=entry.max_steps
        ),
        refine_steps=entry.default_refine_steps,
        sampler=entry.default_sampler
        if request.sampler is None
        else _one_of("sampler", request.sampler, allowed=entry.samplers),
        guidance_scale=_at_most(
            "guidance_scale",
            entry.default_guidance_scale if request.guidance_scale is None else request.guidance_scale,
            limit=entry.max_guidance_scale,
        ),
        stages=request.stages,
        priority=request.priority,
        deadline_seconds=request.deadline_seconds,
        metadata=_metadata(request),
    )
    return Resolved(spec, warnings)


def choose(name: str | None, *, catalogue: Mapping[str, CatalogueEntry]) -> CatalogueEntry:
    """The bundle of this name, or the default one."""
    if not catalogue:
        raise Unavailable("No model is known yet: no worker has reported since this Redis was set up. Start a worker.")
    if name is not None:
        if name not in catalogue:
            raise UnknownModel(f"model must be one of {_listed(catalogue)} (got {name!r}).", param="model")
        return catalogue[name]
    return next((entry for entry in catalogue.values() if entry.is_default), next(iter(catalogue.values())))


def _refuse_unsupported(request: VideoRequest) -> None:
    if request.mode != "sound":
        raise Unsupported("mode must be 'sound' in this version; 'official' is not supported yet.", param="mode")
    if request.cache not in (None, False, "false"):
        raise Unsupported("cache is not supported by this version; leave it out or send false.", param="cache")
    for name in ("input_reference", "spacing", "webhook_url"):
        if getattr(request, name) is not None:
            raise Unsupported(f"{name} is not supported by this version; leave it out.", param=name)
    output = request.output or Output()
    if output.format not in (None, *FORMATS):
        raise Unsupported(f"output.format must be one of {_listed(FORMATS)} in this version.", param="output.format")
    if output.quality not in (None, "standard"):
        raise Unsupported("output.quality must be 'standard' in this version.", param="output.quality")


def _label(request: VideoRequest, *, entry: CatalogueEntry) -> tuple[str | None, tuple[str, ...]]:
    named = {name: value for name in ("prompt", "class_label") if (value := getattr(request, name)) is not None}
    if not entry.classes:
        return None, tuple(f"{name} was ignored: model {entry.name!r} has no classes." for name in named)
    if not named:
        raise InvalidRequest(f"prompt is required: one of {_listed(entry.classes)}.", param="prompt")
    for name, value in named.items():
        _one_of(name, value, allowed=entry.classes)
    if len(set(named.values())) > 1:
        raise InvalidRequest("prompt and class_label differ; send one of them.", param="class_label")
    return next(iter(named.values())), ()


def _num_frames(request: VideoRequest, *, entry: CatalogueEntry, fps: int) -> int:
    if request.seconds is None:
        return _at_most("num_frames", request.num_frames or entry.default_num_frames, limit=entry.max_frames)
    count = round(request.seconds * fps)
    if not 1 <= count <= entry.max_frames:
        limit = f"seconds x fps must be 1 to {entry.max_frames} frames, so at {fps} fps at most"
        longest = entry.max_frames / fps
        raise InvalidRequest(f"{limit} {longest:g} seconds (got {request.seconds:g}).", param="seconds")
    if request.num_frames not in (None, count):
        clash = f"{request.seconds:g} s at {fps} fps are {count} frames, not {request.num_frames}"
        raise InvalidRequest(f"num_frames and seconds differ: {clash}; send one of them.", param="num_frames")
    return count


def _size(request: VideoRequest, *, entry: CatalogueEntry) -> str:
    served = entry.frame_size(request.stages)
    if request.size not in (None, served):
        given = f"model {entry.name!r} with stages={request.stages.value}"
        raise InvalidRequest(f"size must be {served} for {given} (got {request.size!r}).", param="size")
    return served


def _metadata(request: VideoRequest) -> dict[str, str]:
    user = {} if request.user is None else {"user": request.user}
    return {**user, **(request.metadata or {})}


def _one_of(name: str, value: str, *, allowed: Sequence[str]) -> str:
    if value not in allowed:
        raise InvalidRequest(f"{name} must be one of {_listed(allowed)} (got {value[:64]!r}).", param=name)
    return value


def _at_most(name: str, value: N, *, limit: N) -> N:
    if value > limit:
        raise InvalidRequest(f"{name} must be at most {limit} for this model (got {value}).", param=name)
    return value


def _listed(names: Mapping[str, Any] | Sequence[str]) -> str:
    return ", ".join(repr(name) for name in names)
