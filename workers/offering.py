"""What a runner offers: its bundles and engines as the catalogue that requests are checked against.

Projections only: nothing is loaded or chosen here.
"""

from __future__ import annotations

import time
from collections.abc import Mapping

from models import devices
from models.bundle import Bundle
from models.engine import NetName
from models.engines import Choice
from models.spec import OFFICIAL_GUIDANCE, OFFICIAL_STEPS, Spacing
from workers.contracts.catalogue import CatalogueEntry, EngineInfo
from workers.contracts.job import Mode
from workers.tasks import STAGES


def engines_of(engines: Mapping[NetName, EngineInfo]) -> dict[str, EngineInfo]:
    """Those of a bundle, as they are called in the contracts."""
    return {part.value: info for part, info in engines.items()}


def entry_of(bundle: Bundle, engines: Mapping[str, EngineInfo], *, default: str, caches: bool) -> CatalogueEntry:
    """A bundle with the engines of its nets; `default` is the name of the default model."""
    spec = bundle.spec
    return CatalogueEntry(
        name=spec.name,
        hash=bundle.hash,
        description=spec.description,
        license=spec.license,
        classes=spec.classes,
        samplers=spec.samplers,
        spacings=tuple(Spacing),
        modes=tuple(Mode(mode.value) for mode in spec.modes),
        stages=tuple(STAGES[stage.value] for stage in spec.stages),
        grid=spec.grid,
        coarse_size=spec.coarse_size,
        refined_size=spec.refined_size,
        caches=caches,
        bits=spec.bits,
        value_range=spec.value_range,
        max_frames=spec.limits.num_frames,
        max_steps=spec.limits.steps,
        max_guidance_scale=spec.limits.guidance_scale,
        default_num_frames=spec.defaults.num_frames,
        default_fps=spec.defaults.fps,
        default_sampler=spec.defaults.sampler,
        default_spacing=spec.defaults.spacing,
        official_steps=OFFICIAL_STEPS,
        official_guidance_scale=OFFICIAL_GUIDANCE,
        default_steps=spec.defaults.coarse_steps,
        default_refine_steps=spec.defaults.refine_steps,
        default_guidance_scale=spec.defaults.guidance_scale,
        is_default=spec.name == default,
        engines=dict(engines),
        seen_at=time.time(),
    )


def info_of(choice: Choice) -> EngineInfo:
    """An engine as it was chosen."""
    engine = choice.engine
    return EngineInfo(
        engine=engine.name,
        precision=engine.precision.value,
        buckets=engine.buckets,
        device=devices.described(engine.device),
        reason=choice.reason,
    )
