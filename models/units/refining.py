"""Refinement: up to sixteen frames in lockstep, each by itself seen by the net.

One noise serves every frame of a job: what the net makes up stays put from frame to frame.
"""

from __future__ import annotations

from functools import partial

from torch import Tensor
from torch.nn import functional as F

from models import samplers
from models.noise import NoiseSource
from models.plan import Request
from models.samplers import Query
from models.schedules import levels
from models.spec import BundleSpec, Mode, Stage
from models.units.asking import Asker, Estimating, UnitRun, draw, drive
from models.units.latents import decoded, eight_bit, encoded


def refine(low: Tensor, *, spec: BundleSpec, request: Request, noise: NoiseSource) -> UnitRun:
    """Coarse frames (n, C, h, w) -> refined ones (n, C, H, W), pixels in [-1, 1] both."""
    net, official = spec.nets[Stage.REFINE], request.mode is Mode.OFFICIAL
    shape = (1, spec.net_channels, net.input_size, net.input_size)
    enlarged = enlarge(eight_bit(low) if official else low, size=spec.refined_size)
    posterior = draw(noise, "encode/refine", shape, 0) if official and spec.autoencoder else None
    condition = yield from encoded(enlarged, spec=spec, noise=posterior)
    own = partial(draw, noise, "refine", shape)
    sampling = samplers.load(request.sampler)(
        own(0).expand(len(low), -1, -1, -1),
        levels=levels(net.schedule, request.refine_steps, spacing=request.spacing),
        noise=lambda step: own(step + 1),
    )
    drawn = yield from drive(sampling, partial(_answer, Asker(Stage.REFINE, net, request, condition)))
    return (yield from decoded(drawn, spec=spec))


def enlarge(low: Tensor, *, size: int) -> Tensor:
    """(n, C, h, w) -> (n, C, size, size), bicubic, in [-1, 1]."""
    return F.interpolate(low, size=size, mode="bicubic", align_corners=False).clamp(-1, 1)


def _answer(asker: Asker, query: Query, count: int) -> Estimating:
    return (yield from asker.estimate(query.x, query.level, count))
