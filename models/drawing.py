"""Whole sequences as arrays of bytes: what the command line and the quality gate draw, by way of `models.alone`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from models import alone
from models.evaluator import Nets
from models.media import to_uint8
from models.noise import philox
from models.plan import REFINE_ROWS, Request
from models.spec import OFFICIAL_GUIDANCE, OFFICIAL_SAMPLER, OFFICIAL_STEPS, BundleSpec, Mode, Spacing, Stage
from models.units.refining import refine

Frames = NDArray[np.uint8]
"""(n, H, W, 3) sRGB."""


class NotServed(ValueError):
    """A bundle does not draw what was asked for."""

    def __init__(self, field: str, found: object, expected: str) -> None:
        super().__init__(f"{field} {found!r} is not served by this bundle: choose {expected}")


def default_request(spec: BundleSpec, *, seed: int, label: int | None, mode: Mode = Mode.SOUND) -> Request:
    """What a bundle draws when it is told nothing but the seed, the class and the mode."""
    defaults = spec.defaults
    request = Request(
        num_frames=defaults.num_frames,
        seed=seed,
        label=label,
        coarse_steps=defaults.coarse_steps,
        refine_steps=defaults.refine_steps,
        sampler=defaults.sampler,
        spacing=defaults.spacing,
        guidance_scale=defaults.guidance_scale,
        last=spec.stages[-1],
    )
    return request if mode is Mode.SOUND else _as_released(request)


def _as_released(request: Request) -> Request:
    return replace(
        request,
        mode=Mode.OFFICIAL,
        sampler=OFFICIAL_SAMPLER,
        spacing=Spacing.LINEAR,
        coarse_steps=OFFICIAL_STEPS,
        refine_steps=OFFICIAL_STEPS,
        guidance_scale=OFFICIAL_GUIDANCE,
    )


def request(
    spec: BundleSpec,
    *,
    seed: int,
    class_name: str | None,
    wishes: Mapping[str, int | float | str | None],
    mode: Mode = Mode.SOUND,
) -> Request:
    """The defaults but for what is wished; `NotServed` names the wish that the bundle does not allow."""
    if class_name is not None and class_name not in spec.classes:
        raise NotServed("class", class_name, f"one of {', '.join(spec.classes)}" if spec.classes else "none")
    if mode not in spec.modes:
        raise NotServed("mode", mode.value, f"{Mode.SOUND}; the released loop needs nets of the released kind")
    label = None if class_name is None else spec.classes.index(class_name)
    given = {field: wish for field, wish in wishes.items() if wish is not None}
    default = default_request(spec, seed=seed, label=label, mode=mode)
    for field, wish in given.items():
        _check(spec, field, wish, default)
    return replace(default, **given)  # type: ignore[arg-type]


def _check(spec: BundleSpec, field: str, wish: int | float | str, default: Request) -> None:
    if default.mode is Mode.OFFICIAL and field in _RELEASED and wish != getattr(default, field):
        raise NotServed(field, wish, f"{getattr(default, field)} in the official mode")
    if field in ("sampler", "spacing"):
        allowed = spec.samplers if field == "sampler" else tuple(Spacing)
        if wish not in allowed:
            raise NotServed(field, wish, f"one of {', '.join(allowed)}")
    elif not isinstance(wish, str) and wish > (most := _most(spec, field)):
        raise NotServed(field, wish, f"at most {most:g}")


_RELEASED = ("sampler", "spacing", "slow_motion", "cache")
"""What the official mode leaves no choice of."""


def _most(spec: BundleSpec, field: str) -> int | float:
    limits = spec.limits
    special = {
        "num_frames": limits.num_frames,
        "guidance_scale": limits.guidance_scale,
        "slow_motion": spec.grid**2 - 1,
        "reference_frames": spec.grid**2,
    }
    return special.get(field, limits.steps)


def sequence(spec: BundleSpec, request: Request, *, nets: Nets, reference: Tensor | None = None) -> dict[Stage, Frames]:
    """The frames of each stage that the request asks for, in order."""
    made: dict[Stage, dict[int, Frames]] = {}
    for stage, which, frames in alone.frames(spec, request, nets=nets, reference=reference):
        made.setdefault(stage, {})[which.start] = to_uint8(frames)
    return {stage: np.concatenate([part for _, part in sorted(parts.items())]) for stage, parts in made.items()}


@torch.inference_mode()
def refined(spec: BundleSpec, low: Tensor, *, request: Request, nets: Nets) -> Frames:
    """Coarse frames (n, C, h, w) in [-1, 1] that were not drawn here, refined as the frames of one job."""
    noise = philox(request.seed, device=nets[Stage.REFINE].device)
    parts = [refine(part, spec=spec, request=request, noise=noise) for part in torch.split(low, REFINE_ROWS)]
    return np.concatenate([to_uint8(alone.drive(part, nets)) for part in parts])
