"""/v1/models: the bundles that are served, in OpenAI's list shape, with what a request may ask of each."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fastapi import APIRouter

from service.context import Context
from service.requests import MAX_FPS
from service.resolving import choose
from workers.contracts.catalogue import CatalogueEntry, WorkerState
from workers.contracts.errors import NotFound
from workers.contracts.job import MAX_SEED

router = APIRouter(prefix="/v1/models", tags=["models"])


@router.get("", summary="Bundles, with limits, classes, samplers and engines")
async def list_models(services: Context) -> dict[str, Any]:
    workers = await services.queue.workers()
    return {"object": "list", "data": [view(e, workers=workers) for e in (await services.queue.catalogue()).values()]}


@router.get("/{name}", summary="One bundle")
async def get_model(name: str, services: Context) -> dict[str, Any]:
    catalogue = await services.queue.catalogue()
    if name not in catalogue:
        raise NotFound(f"No model {name!r}; see /v1/models.", param="name")
    return view(choose(name, catalogue=catalogue), workers=await services.queue.workers())


def view(entry: CatalogueEntry, *, workers: Sequence[WorkerState]) -> dict[str, Any]:
    """OpenAI's `model` object and our own part of it."""
    return {
        "id": entry.name,
        "object": "model",
        "created": int(entry.seen_at),
        "owned_by": "gridit",
        "description": entry.description,
        "license": entry.license,
        "hash": entry.hash,
        "is_default": entry.is_default,
        "classes": list(entry.classes),
        "samplers": list(entry.samplers),
        "spacings": list(entry.spacings),
        "modes": [mode.value for mode in entry.modes],
        "cache": entry.caches,
        "grid": entry.grid,
        "bits": entry.bits,
        "value_range": entry.value_range,
        "sizes": {stage.value: entry.frame_size(stage) for stage in entry.stages},
        "defaults": {
            "num_frames": entry.default_num_frames,
            "fps": entry.default_fps,
            "sampler": entry.default_sampler,
            "spacing": entry.default_spacing,
            "num_inference_steps": entry.default_steps,
            "guidance_scale": entry.default_guidance_scale,
        },
        "limits": {
            "num_frames": entry.max_frames,
            "fps": MAX_FPS,
            "num_inference_steps": entry.max_steps,
            "guidance_scale": entry.max_guidance_scale,
            "slow_motion": entry.grid**2 - 1,
            "reference_frames": entry.grid**2,
            "seed": MAX_SEED,
        },
        "engines": {net: engine.model_dump() for net, engine in entry.engines.items()},
        "workers": sum(entry.name in worker.models for worker in workers),
    }
