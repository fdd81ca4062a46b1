"""What a job gives undisturbed: every frame and the video as bytes, made in this process by the plainest driver."""

from __future__ import annotations

import hashlib
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models import alone
from models import bundle as bundles
from models.bundle import Bundle
from models.evaluator import Nets
from models.media import mp4, png, to_pixels
from service.client import Client
from tests.integration.following import expected_frames
from workers.contracts.job import JobSpec, Stage
from workers.inhand import request_of
from workers.tasks import STAGES

Digests = dict[str, str]
"""SHA-256 by "<stage>:<index>", and of "video"."""


def undisturbed(spec: JobSpec, bundle: Path | None) -> Digests:
    """By the tiny bundle at that path, else by the twin; the same job is made once."""
    return _made(spec.model_dump_json(), bundle)


def delivered(client: Client, job_id: str) -> Digests:
    """What the service hands out of a finished job."""
    count = client.get(job_id).num_frames
    made = {
        f"{stage.value}:{index}": _digest(client.frame(job_id, index, stage=stage))
        for stage in Stage
        for index in range(count)
    }
    return made | {"video": _digest(client.content(job_id))}


@cache
def _made(text: str, bundle: Path | None) -> Digests:
    spec = JobSpec.model_validate_json(text)
    frames = expected_frames(spec) if bundle is None else _alone(spec, bundle)
    made = {f"{stage.value}:{index}": _digest(png.encode(frame)) for (stage, index), frame in frames.items()}
    refined = [frame for (stage, _), frame in sorted(frames.items()) if stage is spec.stages]
    return made | {"video": _digest(mp4.encode(refined, fps=spec.fps))}


def _alone(spec: JobSpec, path: Path) -> dict[tuple[Stage, int], NDArray[Any]]:
    bundle, nets = _loaded(path)
    made: dict[tuple[Stage, int], NDArray[Any]] = {}
    for stage, which, frames in alone.frames(bundle.spec, request_of(spec, bundle), nets=nets):
        made |= {
            (STAGES[stage.value], index): np.asarray(frame)
            for index, frame in zip(which, to_pixels(frames, bits=bundle.spec.bits), strict=True)
        }
    return made


@cache
def _loaded(path: Path) -> tuple[Bundle, Nets]:
    bundle = bundles.load(path)
    return bundle, alone.evaluators(bundle)


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
