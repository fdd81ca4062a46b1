"""A tiny bundle with random, wide-awake weights: everything that the demo bundle is, in milliseconds.

Freshly initialised DiTs answer zero, which would make most laws hold vacuously; `awake` gives every layer weights.
"""

from __future__ import annotations

from pathlib import Path

import torch

from models import samplers
from models.bundle import Bundle, write
from models.nn.dit import DiT
from models.spec import BundleSpec, Defaults, KnownRows, Limits, NetSpec, Prediction, ScheduleName, Stage

CLASSES = ("lava", "sky")
DEPTH = 3
"""One block between the first and the last: the least that has deep features."""


def tiny_net(*, stage: Stage, prediction: Prediction = Prediction.X) -> NetSpec:
    """Coarse: 4x4 grid of 4-px frames; refine: 8-px frames."""
    coarse = stage is Stage.COARSE
    return NetSpec(
        file=f"{stage}.safetensors",
        sha256="0" * 64,
        input_size=16 if coarse else 8,
        patch=2,
        in_channels=3 if coarse else 6,
        out_channels=3,
        width=32,
        depth=DEPTH,
        heads=2,
        classes=len(CLASSES),
        prediction=prediction,
        schedule=ScheduleName.FLOW,
    )


def tiny_spec(
    *,
    overlap_rows: int = 3,
    known_rows: KnownRows = KnownRows.CLEAN_PREFIX,
    refine: Prediction = Prediction.X,
) -> BundleSpec:
    """A bundle of two tiny nets."""
    predictions = {Stage.COARSE: Prediction.X, Stage.REFINE: refine}
    return BundleSpec(
        name="tiny",
        license="Apache-2.0",
        grid=4,
        coarse_size=4,
        refined_size=8,
        classes=CLASSES,
        known_rows=known_rows,
        overlap_rows=overlap_rows,
        nets={stage: tiny_net(stage=stage, prediction=prediction) for stage, prediction in predictions.items()},
        samplers=samplers.names(),
        defaults=Defaults(num_frames=20, fps=8, sampler="euler", coarse_steps=3, refine_steps=2, guidance_scale=1.5),
        limits=Limits(num_frames=256, steps=50, guidance_scale=10),
    )


def released_spec(*, stages: tuple[Stage, ...] = tuple(Stage)) -> BundleSpec:
    """Like the published nets but tiny and on pixels: unconditional, epsilon and learned variance, 4 x 4 grids."""
    kind = {
        "prediction": Prediction.EPSILON,
        "schedule": ScheduleName.LINEAR,
        "learned_variance": True,
        "time_scale": 1.0,
        "out_channels": 6,
        "classes": 0,
    }
    nets = {stage: tiny_net(stage=stage).model_copy(update=kind) for stage in stages}
    return tiny_spec().model_copy(
        update={
            "name": "released" if Stage.REFINE in nets else "coarse-only",
            "classes": (),
            "known_rows": KnownRows.REPLACEMENT,
            "nets": nets,
            "samplers": samplers.names(),
            "refined_size": 8 if Stage.REFINE in nets else 4,
        }
    )


def deep_spec() -> BundleSpec:
    """Grey frames of 16 bits, as of a scanner."""
    spec = tiny_spec()
    nets = {
        stage: net.model_copy(update={"in_channels": net.in_channels // 3, "out_channels": 1, "classes": 0})
        for stage, net in spec.nets.items()
    }
    return spec.model_copy(update={"name": "deep", "classes": (), "channels": 1, "bits": 16, "nets": nets})


def awake(net: DiT, *, seed: int = 0) -> DiT:
    """Every parameter random, so that every part of the net matters."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in net.parameters():
            spread = 0.5 / max(parameter.shape[-1], 1) ** 0.5
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * spread)
    return net.eval()


def tiny_bundle(path: Path, **changes: object) -> Bundle:
    """Write the tiny bundle to `path`; `changes` go to `tiny_spec`."""
    return written(path, tiny_spec(**changes))  # type: ignore[arg-type]


def written(path: Path, spec: BundleSpec) -> Bundle:
    """A bundle of this spec, with wide-awake weights."""
    nets = {stage: awake(DiT(net), seed=index).state_dict() for index, (stage, net) in enumerate(spec.nets.items())}
    return write(path, spec=spec, nets=nets)
