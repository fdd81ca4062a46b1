"""What a report's figures belong to: bundle, way of drawing, reference and versions, so that they can be had again."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from importlib import metadata

from models.bundle import Bundle
from models.evaluate.run import Subject

_LIBRARIES = ("gridit-serve", "torch", "numpy")


def provenance(bundle: Bundle, subject: Subject, *, names: Sequence[str]) -> dict[str, object]:
    """Plain values for JSON."""
    request = subject.sample.request(subject.spec, names[0], seed=0)
    return {
        "bundle": {"name": bundle.spec.name, "hash": bundle.hash},
        "drawn": {
            "classes": list(names),
            "sequences": subject.sample.sequences,
            "seeds": [0, subject.sample.sequences - 1],
            "frames": request.num_frames,
            "mode": request.mode.value,
            "sampler": request.sampler,
            "spacing": request.spacing.value,
            "cache": request.cache,
            "coarse_steps": request.coarse_steps,
            "refine_steps": request.refine_steps,
            "guidance_scale": request.guidance_scale,
            "stages": [stage.value for stage in subject.spec.stages],
            "device": subject.nets[subject.spec.stages[0]].device.type,
        },
        "reference": subject.reference.facts(),
        "feature_nets": {key: net.facts() for key, net in subject.feature_nets.items()},
        "versions": {"python": platform.python_version(), **{name: _version(name) for name in _LIBRARIES}},
    }


def _version(library: str) -> str:
    try:
        return metadata.version(library)
    except metadata.PackageNotFoundError:
        return "unknown"
