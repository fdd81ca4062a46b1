"""What a half-trained net makes, as one picture, drawn by the very code that serves it."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
from torch import Tensor
from torch.nn import functional as F

from models import drawing
from models.data import domains
from models.data.clips import EVALUATION_SEED
from models.drawing import Frames
from models.engine import BUCKETS, Precision
from models.engines.torch import TorchEngine
from models.evaluator import Answering, Evaluator, Nets
from models.media import Frame, to_uint8, to_unit
from models.media.sheet import contact_sheet
from models.spec import BundleSpec, Codec, Stage
from models.train.assemble import spec_of
from models.train.data import Data, Reel
from models.train.recipe import Recipe
from models.train.run import Training
from models.units.refining import enlarge

_SEQUENCES = 2
_GRIDS = 4
_FRAMES = 40
"""Most frames of a sequence, if one grid has not more."""
_REFINED = 4
_TINY = 32
"""Frames up to this size are shown twice as large."""


def preview(training: Training, *, data: Data) -> Frame:
    """Coarse: sequences of each class. Refine: low-resolution, refined and real frames of each class."""
    recipe, nets = training.recipe, _nets(training, data)
    vae = data.encoding.vae.spec if data.encoding else None
    if recipe.stage is Stage.COARSE:
        spec = spec_of({Stage.COARSE: recipe}, name="preview", vae=vae)
        scale = 2 if recipe.coarse_size <= _TINY else 1
        frames = _frames(spec)
        return contact_sheet(list(_sequences(spec, nets, frames)), columns=-(-frames // 2), scale=scale)
    spec = spec_of({Stage.COARSE: _stand_in(recipe), Stage.REFINE: recipe}, name="preview", vae=vae)
    return contact_sheet(list(_refinements(spec, recipe, nets, data)), columns=_REFINED)


def _frames(spec: BundleSpec) -> int:
    """Those of a few grids."""
    first, further = spec.grid**2, spec.grid * (spec.grid - spec.overlap_rows)
    return min(first + (_GRIDS - 1) * further, max(_FRAMES, first))


def _sequences(spec: BundleSpec, nets: Nets, frames: int) -> Iterator[Frames]:
    for label in _labels(spec):
        for seed in range(_SEQUENCES):
            request = drawing.default_request(spec, seed=seed, label=label)
            request = replace(request, num_frames=frames, last=Stage.COARSE)
            yield drawing.sequence(spec, request, nets=nets)[Stage.COARSE]


def _refinements(spec: BundleSpec, recipe: Recipe, nets: Nets, data: Data) -> Iterator[Frames]:
    for index, label in enumerate(_labels(spec)):
        request = drawing.default_request(spec, seed=0, label=label)
        low, real = _seen(recipe, data.reels[index]) if recipe.content else _unseen(recipe, recipe.domains[index])
        yield to_uint8(enlarge(low, size=spec.refined_size))
        yield drawing.refined(spec, low.to(nets[Stage.REFINE].device), request=request, nets=nets)
        yield real


def _unseen(recipe: Recipe, name: str) -> tuple[Tensor, Frames]:
    """Low-resolution and real frames of a domain that it is not trained on."""
    domain = domains.load(name)
    low = domain.render(EVALUATION_SEED, frames=_REFINED, size=recipe.coarse_size)
    return to_unit(low), domain.render(EVALUATION_SEED, frames=_REFINED, size=recipe.refined_size)


def _seen(recipe: Recipe, reel: Reel) -> tuple[Tensor, Frames]:
    """Low-resolution and real frames of a user's own sequences."""
    places = np.linspace(0, len(reel.frames) - 1, _REFINED).round().astype(int)
    real = to_unit(np.stack([reel.frames[place] for place in places]))
    if reel.low is not None:
        return to_unit(np.stack([reel.low[place] for place in places])), to_uint8(real)
    low = F.interpolate(real, size=recipe.coarse_size, mode="bicubic", align_corners=False, antialias=True)
    return low.clamp(-1, 1), to_uint8(real)


def _stand_in(recipe: Recipe) -> Recipe:
    """Some coarse net that goes with one that refines: nothing is drawn with it."""
    plain = {"patch": 1, "prediction": None, "learned_variance": False}
    return recipe.model_copy(update={"stage": Stage.COARSE, **plain})


def _labels(spec: BundleSpec) -> list[int | None]:
    return [*range(len(spec.classes))] or [None]


def _nets(training: Training, data: Data) -> Nets:
    net = copy.deepcopy(training.ema)
    device = next(net.parameters()).device
    engine = TorchEngine(net, device=device, precision=Precision.FP32, buckets=BUCKETS)
    nets: dict[Stage | Codec, Answering] = {training.recipe.stage: Evaluator(copy.deepcopy(net).cpu(), engine)}
    if data.encoding is not None:
        nets |= {half: data.encoding.vae.codec(half, device=device) for half in Codec}
    return nets
