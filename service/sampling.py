"""How a job is sampled: steps, sampler, guidance and mode, from what was asked and what the bundle has by default.

The official mode leaves little choice: it is the published loop, whatever the bundle prefers.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from service.checks import at_most, listed, one_of
from service.requests import VideoRequest
from workers.contracts.catalogue import CatalogueEntry
from workers.contracts.errors import InvalidRequest, Unsupported
from workers.contracts.job import Mode

OFFICIAL_SAMPLER = "ddpm"
OFFICIAL_ONLY = {
    "sampler": OFFICIAL_SAMPLER,
    "spacing": "linear",
    "slow_motion": 1,
    "cache": 1,
    "input_reference": None,
}
"""What the published loop leaves no choice of."""


def sampling(request: VideoRequest, *, entry: CatalogueEntry) -> dict[str, Any]:
    """The fields of a `JobSpec` that decide how it is drawn; InvalidRequest names what the bundle does not do."""
    if request.mode not in entry.modes:
        needs = "the published loop needs nets that predict noise with a learned variance, on a 4 x 4 grid"
        raise InvalidRequest(
            f"mode must be one of {listed(entry.modes)} for model {entry.name!r}: {needs}.", param="mode"
        )
    return (_official if request.mode is Mode.OFFICIAL else _sound)(request, entry)


def _sound(request: VideoRequest, entry: CatalogueEntry) -> dict[str, Any]:
    if request.cache not in (None, 1) and not entry.caches:
        raise Unsupported(f"cache is not served by the engines of model {entry.name!r}; leave it out.", param="cache")
    scale = entry.default_guidance_scale if request.guidance_scale is None else request.guidance_scale
    return {
        "num_inference_steps": _steps(request, entry, default=entry.default_steps),
        "refine_steps": entry.default_refine_steps,
        "sampler": _chosen("sampler", request.sampler, default=entry.default_sampler, allowed=entry.samplers),
        "spacing": _chosen("spacing", request.spacing, default=entry.default_spacing, allowed=entry.spacings),
        "guidance_scale": at_most("guidance_scale", scale, limit=entry.max_guidance_scale),
        "slow_motion": at_most("slow_motion", request.slow_motion or 1, limit=entry.grid**2 - 1),
        "cache": request.cache or 1,
    }


def _chosen(name: str, asked: str | None, *, default: str, allowed: Sequence[str]) -> str:
    return default if asked is None else one_of(name, asked, allowed=allowed)


def _official(request: VideoRequest, entry: CatalogueEntry) -> dict[str, Any]:
    for name, only in OFFICIAL_ONLY.items():
        if getattr(request, name) not in (None, only):
            wanted = f"be {only!r}" if only is not None else "be left out"
            raise InvalidRequest(f"{name} must {wanted} with mode 'official'.", param=name)
    steps = _steps(request, entry, default=min(entry.official_steps, entry.max_steps))
    scale = entry.official_guidance_scale if request.guidance_scale is None else request.guidance_scale
    return {
        "mode": Mode.OFFICIAL,
        "num_inference_steps": steps,
        "refine_steps": steps,
        "sampler": OFFICIAL_SAMPLER,
        "guidance_scale": at_most("guidance_scale", scale, limit=entry.max_guidance_scale),
    }


def _steps(request: VideoRequest, entry: CatalogueEntry, *, default: int) -> int:
    return at_most("num_inference_steps", request.num_inference_steps or default, limit=entry.max_steps)
