"""What a half-trained net makes, as one picture, drawn by the very code that serves it."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import replace

import torch

from models import drawing
from models.data import domains
from models.data.clips import EVALUATION_SEED
from models.drawing import Frames
from models.engines import BUCKETS, Precision
from models.engines.torch import TorchEngine
from models.evaluate.sheet import contact_sheet
from models.evaluator import Evaluator, Nets
from models.media import Frame, to_uint8
from models.spec import BundleSpec, Stage
from models.train.assemble import spec_of
from models.train.batches import enlarge, to_unit
from models.train.run import Training

_SEQUENCES = 2
_FRAMES = 40
_REFINED = 4


def preview(training: Training) -> Frame:
    """Coarse: sequences of each class. Refine: low-resolution, refined and real frames of each class."""
    recipe = training.recipe
    spec = spec_of({stage: recipe.model_copy(update={"stage": stage}) for stage in Stage}, name="preview")
    if recipe.stage is Stage.COARSE:
        return contact_sheet(list(_sequences(spec, _nets(training))), columns=_FRAMES // 2, scale=2)
    return contact_sheet(list(_refinements(spec, _nets(training))), columns=_REFINED)


def _sequences(spec: BundleSpec, nets: Nets) -> Iterator[Frames]:
    for label in range(len(spec.classes)):
        for seed in range(_SEQUENCES):
            request = drawing.default_request(spec, seed=seed, label=label)
            request = replace(request, num_frames=_FRAMES, last=Stage.COARSE)
            yield drawing.sequence(spec, request, nets=nets)[Stage.COARSE]


def _refinements(spec: BundleSpec, nets: Nets) -> Iterator[Frames]:
    for label, name in enumerate(spec.classes):
        domain, request = domains.load(name), drawing.default_request(spec, seed=0, label=label)
        low = to_unit(domain.render(EVALUATION_SEED, frames=_REFINED, size=spec.coarse_size))
        yield to_uint8(enlarge(low, spec.refined_size))
        yield drawing.refined(spec, low, request=request, nets=nets)
        yield domain.render(EVALUATION_SEED, frames=_REFINED, size=spec.refined_size)


def _nets(training: Training) -> Nets:
    net = copy.deepcopy(training.ema)
    engine = TorchEngine(net, device=torch.device("cpu"), precision=Precision.FP32, buckets=BUCKETS)
    return {training.recipe.stage: Evaluator(net, engine)}
