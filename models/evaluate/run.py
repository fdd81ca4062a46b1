"""The gate on a bundle: draw with seeds that no net was trained on, render what is real, and judge.

The figures are only comparable between runs of one size, which is why the sizes are constants here.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np

from models import drawing
from models.bundle import Bundle
from models.data import domains
from models.data.clips import EVALUATION_SEED
from models.drawing import Frames
from models.evaluate.gate import Geometry, evaluate
from models.evaluate.limits import read_limits
from models.evaluate.material import Clips, Material, Refinement, collect, real_clips
from models.evaluate.report import GateReport
from models.evaluate.sheet import contact_sheet
from models.evaluator import Nets
from models.media import Frame, to_uint8
from models.spec import BundleSpec, Stage
from models.train.batches import enlarge, to_unit

SEQUENCES = 32
"""Sequences drawn per class, and real ones held out."""
REFERENCE = 200
"""Real sequences that both are measured against."""
FRAMES = 64
HELD_OUT_SEED, SINGLE_SEED = 2 * EVALUATION_SEED, 3 * EVALUATION_SEED
"""First seeds of the held-out sequences and of the single frames; the reference starts at `EVALUATION_SEED`."""
_SINGLE_FRAMES = (0, 16, 32)

Drawn = Mapping[Stage, Frames]
"""One sequence: (F, H, W, 3) for each stage."""


def sequences(
    spec: BundleSpec, name: str, *, nets: Nets, count: int = SEQUENCES, frames: int = FRAMES
) -> Iterator[Drawn]:
    """`count` sequences of one class with the bundle's defaults, one at a time."""
    for seed in range(count):
        request = drawing.default_request(spec, seed=seed, label=spec.classes.index(name))
        yield drawing.sequence(spec, replace(request, num_frames=frames), nets=nets)


def judge(
    bundle: Bundle, drawn: Mapping[str, Sequence[Drawn]], *, nets: Nets, reference: int = REFERENCE
) -> GateReport:
    """Hold what was drawn of each class against `reference` real sequences."""
    spec = bundle.spec
    geometry = Geometry(spec.grid, spec.nets[Stage.COARSE].patch, spec.nets[Stage.REFINE].patch)
    classes = {name: _material(spec, name, sequences, nets, reference) for name, sequences in drawn.items()}
    return evaluate(classes, limits=read_limits(), geometry=geometry)


def summary(report: GateReport, *, sequences: int, frames: int) -> dict[str, object]:
    """The figures as a bundle keeps them: by class and by "view/figure", beside their value on real sequences."""
    classes = {
        one.name: {
            f"{figure.view}/{figure.name}": [round(value, 4) for value in (figure.value, figure.real, figure.threshold)]
            for figure in one.figures
        }
        for one in report.classes
    }
    shape = {"sequences": sequences, "frames": frames, "figures": ["generated", "real", "limit"]}
    return {"passed": report.passed, **shape, "classes": classes}


def sheets(drawn: Mapping[str, Sequence[Drawn]]) -> Iterator[tuple[str, Frame]]:
    """Pictures to look at, each with its name: eight coarse sequences of each class, and two refined ones."""
    for name, every in drawn.items():
        yield f"{name}-coarse", contact_sheet([one[Stage.COARSE] for one in every[:8]], columns=32, scale=2)
        yield f"{name}-refined", contact_sheet([one[Stage.REFINE] for one in every[:2]], columns=16)


def _material(
    spec: BundleSpec, name: str, drawn: Sequence[Drawn], nets: Nets, reference: int
) -> Material:
    frames = len(drawn[0][Stage.COARSE])
    generated = collect(np.stack([one[Stage.COARSE] for one in drawn]), (one[Stage.REFINE] for one in drawn))
    return Material(
        reference=_real(spec, name, sequences=reference, frames=frames, first_seed=EVALUATION_SEED),
        held_out=_real(spec, name, sequences=SEQUENCES, frames=frames, first_seed=HELD_OUT_SEED),
        generated=generated,
        refinement=_refinement(spec, name, nets),
    )


def _real(spec: BundleSpec, name: str, *, sequences: int, frames: int, first_seed: int) -> Clips:
    return real_clips(
        name,
        sequences=sequences,
        frames=frames,
        first_seed=first_seed,
        coarse=spec.coarse_size,
        refined=spec.refined_size,
    )


def _refinement(spec: BundleSpec, name: str, nets: Nets) -> Refinement:
    """Single real frames and their coarse versions, enlarged and refined."""
    low = to_unit(_single_frames(name, spec.coarse_size))
    request = drawing.default_request(spec, seed=0, label=spec.classes.index(name))
    return Refinement(
        real=_single_frames(name, spec.refined_size),
        bicubic=to_uint8(enlarge(low, spec.refined_size)),
        refined=drawing.refined(spec, low, request=request, nets=nets),
        coarse_size=spec.coarse_size,
    )


def _single_frames(name: str, size: int) -> Frames:
    render = domains.load(name).render
    shots = [
        render(SINGLE_SEED + index, frames=1, size=size, first=first)
        for index in range(SEQUENCES)
        for first in _SINGLE_FRAMES
    ]
    return np.concatenate(shots)
