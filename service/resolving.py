"""From what was asked to a job: checked against what a bundle can do, every default filled in.

`requests` says what may be asked of any bundle; here the catalogue decides. Raises InvalidRequest that names the field
and the bundle's limit.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import dataclass

from service.checks import at_most, listed, one_of
from service.requests import VideoRequest
from service.sampling import sampling
from workers.contracts.catalogue import CatalogueEntry
from workers.contracts.errors import InvalidRequest, Unavailable, UnknownModel
from workers.contracts.job import MAX_SEED, JobSpec, Stage


@dataclass(frozen=True)
class Resolved:
    """A request that can be served."""

    spec: JobSpec
    entry: CatalogueEntry
    """The bundle it is for."""
    warnings: tuple[str, ...]


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
