"""Units as generators of network evaluations.

A unit yields `Evaluate`, is sent the net's output, and returns its result. It does tensor arithmetic only: no reading
back, encoding, files or clock, so that whoever drives it may keep everything on the device and pack the rows of many
units into one batch.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from models import grid
from models.noise import NoiseSource
from models.plan import Request, Unit, UnitKind
from models.spec import BundleSpec, Mode
from models.units import official, sound
from models.units.asking import Evaluate, UnitRun
from models.units.latents import decoded
from models.units.refining import refine

__all__ = ["Evaluate", "UnitRun", "pictures", "start"]


def start(
    unit: Unit, *, spec: BundleSpec, request: Request, results: Mapping[str, Tensor], noise: NoiseSource
) -> UnitRun:
    """The generator of a unit whose required `results` (by key) exist.

    Results: of a drawn grid (C, K*h, K*w), in [-1, 1] or latents; of a decoded one its pixels (C, K*h, K*w); of a
    refine unit its frames (n, C, H, W). Pixels are in [-1, 1].
    """
    match unit.kind:
        case UnitKind.DECODE:
            return _decode(results[unit.requires[0]], spec=spec)
        case UnitKind.REFINE:
            low = _cells(results[unit.requires[0]], unit, spec)
            return refine(low, spec=spec, request=request, noise=noise)
        case _ if request.mode is Mode.OFFICIAL:
            return official.draw_grid(unit, spec=spec, request=request, results=results, noise=noise)
        case _:
            return sound.draw_grid(unit, spec=spec, request=request, results=results, noise=noise)


def pictures(unit: Unit, result: Tensor, *, spec: BundleSpec) -> Tensor:
    """The frames that a unit's result shows: (len(unit.frames), C, h, w) in [-1, 1]."""
    return result if unit.kind is UnitKind.REFINE else _cells(result, unit, spec)


def _decode(latents: Tensor, *, spec: BundleSpec) -> UnitRun:
    pixels = yield from decoded(latents[None], spec=spec)
    return pixels[0]


def _cells(drawn: Tensor, unit: Unit, spec: BundleSpec) -> Tensor:
    return grid.unpack(drawn[None], k=spec.grid)[0, unit.cells.start : unit.cells.stop]
