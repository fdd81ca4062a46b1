"""What a half-trained net makes, as one picture, drawn by the very code that serves it."""

from __future__ import annotations

import copy
from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray

from models import alone, grid
from models.data import domains
from models.data.clips import EVALUATION_SEED
from models.engines import BUCKETS, Precision
from models.engines.torch import TorchEngine
from models.evaluate.sheet import contact_sheet
from models.evaluator import Evaluator
from models.media import Frame, to_uint8
from models.noise import philox
from models.plan import Request, Unit, UnitKind
from models.spec import Stage
from models.train.assemble import spec_of
from models.train.batches import enlarge, to_unit
from models.train.recipe import Recipe
from models.train.run import Training
from models.units import start

_SEQUENCES = 2
_FRAMES = 40
_REFINED = 4


def preview(training: Training) -> Frame:
    """Coarse: sequences of each class. Refine: low-resolution, refined and real frames of each class."""
    if training.recipe.stage is Stage.COARSE:
        return contact_sheet(list(_sequences(training)), columns=_FRAMES // 2, scale=2)
    return contact_sheet(list(_refinements(training)), columns=_REFINED)


def _sequences(training: Training) -> Iterator[NDArray[np.uint8]]:
    spec, nets = spec_of(_both(training), name="preview"), _nets(training)
    for label in range(len(training.recipe.domains)):
        for seed in range(_SEQUENCES):
            drawn = alone.frames(spec, _request(label, seed, last=Stage.COARSE), nets=nets)
            yield np.concatenate([to_uint8(frames) for _, _, frames in drawn])


def _refinements(training: Training) -> Iterator[NDArray[np.uint8]]:
    recipe, nets = training.recipe, _nets(training)
    spec, frames = spec_of(_both(training), name="preview"), range(_REFINED)
    unit = Unit("refine", UnitKind.REFINE, 0, frames, ("coarse",))
    for label, name in enumerate(recipe.domains):
        seed, domain = EVALUATION_SEED, domains.load(name)
        low = to_unit(domain.render(seed, frames=recipe.grid**2, size=recipe.coarse_size))
        request, coarse = _request(label, seed, last=Stage.REFINE), {"coarse": grid.pack(low[None], k=recipe.grid)[0]}
        with torch.inference_mode():
            unit_run = start(unit, spec=spec, request=request, results=coarse, noise=philox(seed))
            refined = alone.drive(unit_run, nets)
        yield to_uint8(enlarge(low[:_REFINED], recipe.refined_size))
        yield to_uint8(refined)
        yield domain.render(seed, frames=_REFINED, size=recipe.refined_size)


def _both(training: Training) -> dict[Stage, Recipe]:
    return {stage: training.recipe.model_copy(update={"stage": stage}) for stage in Stage}


def _nets(training: Training) -> dict[Stage, Evaluator]:
    net = copy.deepcopy(training.ema)
    engine = TorchEngine(net, device=torch.device("cpu"), precision=Precision.FP32, buckets=BUCKETS)
    return {training.recipe.stage: Evaluator(net, engine)}


def _request(label: int, seed: int, *, last: Stage) -> Request:
    return Request(
        num_frames=_FRAMES, seed=seed, label=label, coarse_steps=12, refine_steps=4, sampler="euler",
        guidance_scale=1.5, last=last,
    )  # fmt: skip
