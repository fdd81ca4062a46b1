"""The body of POST /v1/videos, parsed once: which fields there are, and what each may hold at all.

What a given bundle can do is for `resolving` to say. Fields of the contract that this version cannot serve are refused
by name, never ignored.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints, ValidationError

from service.checks import listed
from service.invalid import InvalidFields, describe
from service.references import as_data_urls
from workers.contracts.errors import Unsupported
from workers.contracts.job import MAX_SEED, Mode, Priority, Stage

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


def parse(fields: Mapping[str, Any]) -> VideoRequest:
    """Raises InvalidFields that names each field at fault, Unsupported for what this version cannot do."""
    try:
        request = VideoRequest.model_validate(fields)
    except ValidationError as error:
        raise InvalidFields(describe(error.errors(), known=VideoRequest.model_fields)) from None
    _refuse_unsupported(request)
    return request


def _refuse_unsupported(request: VideoRequest) -> None:
    if request.webhook_url is not None:
        raise Unsupported("webhook_url is not supported by this version; leave it out.", param="webhook_url")
    output = request.output or Output()
    if output.format not in (None, *FORMATS):
        raise Unsupported(f"output.format must be one of {listed(FORMATS)} in this version.", param="output.format")
    if output.quality not in (None, "standard"):
        raise Unsupported("output.quality must be 'standard' in this version.", param="output.quality")
