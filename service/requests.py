"""The body of POST /v1/videos: parsed once, checked against the catalogue, resolved into a frozen `JobSpec`.

`VideoRequest` says what may be asked at all; `resolve` what a given bundle can do, and fills in every default. Fields
of the contract that this version cannot serve are refused by name, never ignored.
"""

from __future__ import annotations

import hashlib
import json
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints, ValidationError

from service.checks import at_most, listed, one_of
from service.invalid import InvalidFields, describe
from service.references import as_data_urls
from service.sampling import sampling
from workers.contracts.catalogue import CatalogueEntry
from workers.contracts.errors import InvalidRequest, Unavailable, UnknownModel, Unsupported
from workers.contracts.job import MAX_SEED, JobSpec, Mode, Priority, Stage

MAX_FPS = 120
LONGEST_DEADLINE = 7 * 86400.0
FORMATS = ("mp4",)


def _not_bool(value: Any) -> Any:
    if isinstance(value, bool):
        raise ValueError(f"must be a number (got {str(value).lower()})")
    return value


def _no_cache(value: Any) -> Any:
    return None if value is False or value == "false" else value


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
    stages: Annotated[Stage | None, Field(description="The last stage to run; absent: all that there are.")] = None
    metadata: Annotated[
        dict[ShortText, Annotated[str, StringConstraints(max_length=512)]] | None, Field(max_length=16)
    ] = None
    user: Annotated[ShortText | None, Field(description="Your own user's name; kept as `metadata.user`.")] = None
    output: Output | None = None
    mode: Annotated[
        Mode, Field(description="`official`: as the published code does it, oddities and length included.")
    ] = Mode.SOUND
    spacing: Annotated[
        Literal["linear", "trailing", "log_snr"] | None, Field(description="At which noise levels a sampler looks.")
    ] = None
    slow_motion: Annotated[
        Annotated[Whole, Field(ge=1)] | None,
        Field(description="So many frames where the motion at full speed has one; approximate."),
    ] = None
    cache: Annotated[
        Annotated[Whole, Field(ge=1)] | None,
        BeforeValidator(_no_cache),
        Field(description="n: reuse deep features, computing them at every n-th step only; false or 1: never."),
    ] = None
    input_reference: Annotated[
        tuple[str, ...] | None,
        BeforeValidator(as_data_urls),
        Field(description="Your own first frames: file parts, data URLs, or an object with `image_url`."),
    ] = None
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
    entry: CatalogueEntry
    """The bundle it is for."""
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
    last = _last_stage(request, entry=entry)
    asked = _num_frames(request, entry=entry, fps=fps)
    spec = JobSpec(
        model=entry.name,
        bundle_hash=entry.hash,
        class_label=label,
        num_frames=asked,
        fps=fps,
        size=_size(request, entry=entry, last=last),
        seed=secrets.randbelow(MAX_SEED + 1) if request.seed is None else request.seed,
        stages=last,
        priority=request.priority,
        deadline_seconds=request.deadline_seconds,
        metadata=_metadata(request),
        **sampling(request, entry=entry),
    )
    made = spec.mode.frames_made(asked)
    if made != asked:
        warnings = (*warnings, f"mode 'official' makes {made} frames where {asked} are asked for.")
    return Resolved(spec, entry, warnings)


def choose(name: str | None, *, catalogue: Mapping[str, CatalogueEntry]) -> CatalogueEntry:
    """The bundle of this name, or the default one."""
    if not catalogue:
        raise Unavailable("No model is known yet: no worker has reported since this Redis was set up. Start a worker.")
    if name is not None:
        if name not in catalogue:
            raise UnknownModel(f"model must be one of {listed(catalogue)} (got {name!r}).", param="model")
        return catalogue[name]
    return next((entry for entry in catalogue.values() if entry.is_default), next(iter(catalogue.values())))


def _refuse_unsupported(request: VideoRequest) -> None:
    if request.webhook_url is not None:
        raise Unsupported("webhook_url is not supported by this version; leave it out.", param="webhook_url")
    output = request.output or Output()
    if output.format not in (None, *FORMATS):
        raise Unsupported(f"output.format must be one of {listed(FORMATS)} in this version.", param="output.format")
    if output.quality not in (None, "standard"):
        raise Unsupported("output.quality must be 'standard' in this version.", param="output.quality")


def _label(request: VideoRequest, *, entry: CatalogueEntry) -> tuple[str | None, tuple[str, ...]]:
    named = {name: value for name in ("prompt", "class_label") if (value := getattr(request, name)) is not None}
    if not entry.classes:
        return None, tuple(f"{name} was ignored: model {entry.name!r} has no classes." for name in named)
    if not named:
        raise InvalidRequest(f"prompt is required: one of {listed(entry.classes)}.", param="prompt")
    for name, value in named.items():
        one_of(name, value, allowed=entry.classes)
    if len(set(named.values())) > 1:
        raise InvalidRequest("prompt and class_label differ; send one of them.", param="class_label")
    return next(iter(named.values())), ()


def _num_frames(request: VideoRequest, *, entry: CatalogueEntry, fps: int) -> int:
    if request.seconds is None:
        return at_most("num_frames", request.num_frames or entry.default_num_frames, limit=entry.max_frames)
    count = round(request.seconds * fps)
    if not 1 <= count <= entry.max_frames:
        limit = f"seconds x fps must be 1 to {entry.max_frames} frames, so at {fps} fps at most"
        longest = entry.max_frames / fps
        raise InvalidRequest(f"{limit} {longest:g} seconds (got {request.seconds:g}).", param="seconds")
    if request.num_frames not in (None, count):
        clash = f"{request.seconds:g} s at {fps} fps are {count} frames, not {request.num_frames}"
        raise InvalidRequest(f"num_frames and seconds differ: {clash}; send one of them.", param="num_frames")
    return count


def _last_stage(request: VideoRequest, *, entry: CatalogueEntry) -> Stage:
    last = request.stages or entry.stages[-1]
    if last not in entry.stages:
        only = f"model {entry.name!r} has no net for {last.value} frames"
        raise InvalidRequest(f"stages must be one of {listed(entry.stages)}: {only}.", param="stages")
    return last


def _size(request: VideoRequest, *, entry: CatalogueEntry, last: Stage) -> str:
    served = entry.frame_size(last)
    if request.size not in (None, served):
        given = f"model {entry.name!r} with stages={last.value}"
        raise InvalidRequest(f"size must be {served} for {given} (got {request.size!r}).", param="size")
    return served


def _metadata(request: VideoRequest) -> dict[str, str]:
    user = {} if request.user is None else {"user": request.user}
    return {**user, **(request.metadata or {})}
