"""The gate: may these weights ship?

Every class of a bundle is measured against real sequences of the same class and held to the
limits. In the same run real sequences that are not in the reference have to pass, and each corruption of
them has to fail: a gate that real data does not pass, or noise does, says nothing about a net.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from models.evaluate import features
from models.evaluate.corruptions import CORRUPTIONS
from models.evaluate.distances import wasserstein
from models.evaluate.limits import Limit
from models.evaluate.material import Clips, Material, Refined, Refinement
from models.evaluate.report import ClassReport, CorruptionCheck, Figure, GateReport
from models.evaluate.spectrum import spectrum_error
from models.evaluate.yardstick import Yardstick

Bytes = NDArray[np.uint8]


@dataclass(frozen=True)
class Geometry:
    """Where seams would lie: frames in a grid row, and the nets' patches in pixels of their frames."""

    columns: int = 4
    coarse_patch: int = 4
    refined_patch: int = 8


def evaluate(
    classes: Mapping[str, Material], *, limits: Mapping[str, Limit], geometry: Geometry | None = None, seed: int = 0
) -> GateReport:
    """Judge every class; `seed` is the corruptions'."""
    geometry = geometry or Geometry()
    return GateReport(tuple(_judge(name, material, limits, geometry, seed) for name, material in classes.items()))


def _judge(name: str, material: Material, limits: Mapping[str, Limit], geometry: Geometry, seed: int) -> ClassReport:
    figures: list[Figure] = []
    checks: list[CorruptionCheck] = []
    for view, reference, held_out, generated in _views(material):
        yardstick = Yardstick(reference, columns=geometry.columns)
        scale = yardstick.scale(len(generated))
        found, real = yardstick.measure(generated), yardstick.measure(held_out)
        figures += [_figure(key, view, found[key], real[key], limits[key], scale.get(key, 0.0)) for key in found]
        checks += _check(view, held_out, yardstick, limits, seed)
    figures += [
        _figure(key, view, value, real, limits[key], 0.0) for key, view, value, real in _details(material, geometry)
    ]
    return ClassReport(name=name, figures=tuple(figures), corruptions=tuple(checks))


def _figure(name: str, view: str, value: float, real: float, limit: Limit, reference: float) -> Figure:
    return Figure(
        name=name,
        view=view,
        value=value,
        real=real,
        bound=limit.bound,
        threshold=limit.threshold(reference),
        passed=limit.holds(value, reference=reference),
        real_passed=limit.holds(real, reference=reference),
    )


def _views(material: Material) -> Iterator[tuple[str, Bytes, Bytes, Bytes]]:
    """Name, reference, held-out and generated sequences: the coarse ones, and refined ones reduced."""
    clips = (material.reference, material.held_out, material.generated)
    yield "coarse", clips[0].coarse, clips[1].coarse, clips[2].coarse
    if refined := _refined(*clips):
        yield "refined", refined[0].reduced, refined[1].reduced, refined[2].reduced


def _refined(*clips: Clips) -> list[Refined]:
    """The refinements of all clips, or nothing if one of them has none."""
    found = [one.refined for one in clips if one.refined is not None]
    return found if len(found) == len(clips) else []


def _check(
    view: str, real: Bytes, yardstick: Yardstick, limits: Mapping[str, Limit], seed: int
) -> Iterator[CorruptionCheck]:
    scale = yardstick.scale(len(real))
    for name, corrupt in CORRUPTIONS.items():
        figures = yardstick.measure(corrupt(real, np.random.default_rng(seed)))
        exceeded = [key for key in figures if not limits[key].holds(figures[key], reference=scale.get(key, 0.0))]
        yield CorruptionCheck(name=name, view=view, exceeded=tuple(exceeded))


def _details(material: Material, geometry: Geometry) -> Iterator[tuple[str, str, float, float]]:
    """Figures without a yardstick: name, view, and the value on generated and on held-out sequences."""
    clips = (material.reference, material.held_out, material.generated)
    reference, held_out, generated = (_profile(one.coarse) for one in clips)
    yield _border("coarse", (reference, held_out, generated), geometry.coarse_patch)
    if refined := _refined(*clips):
        yield _border("full size", tuple(one.profile for one in refined), geometry.refined_patch)
        steady = [wasserstein(_decibels(refined[0]), _decibels(one)) for one in (refined[2], refined[1])]
        yield "steadiness", "full size", steady[0], steady[1]
    if material.refinement is not None:
        yield "spectrum", "full size", *_spectrum(material.refinement)


def _profile(sequences: Bytes) -> features.Doubles:
    return np.asarray(np.mean([features.gradient_profile(sequence) for sequence in sequences], axis=0))


def _decibels(refined: Refined) -> features.Doubles:
    return np.asarray(-20.0 * np.log10(np.maximum(refined.steps, 1e-3)))


def _border(view: str, profiles: tuple[features.Doubles, ...], patch: int) -> tuple[str, str, float, float]:
    reference, held_out, generated = profiles
    value, real = (features.border_excess(one, reference, period=patch) for one in (generated, held_out))
    return "border", view, value, real


def _spectrum(refinement: Refinement) -> tuple[float, float]:
    """Error of the refined frames' fine spectrum over that of bicubic ones; and of half of the real frames
    against the other half."""
    above = refinement.coarse_size // 2 + 1
    bicubic = spectrum_error(refinement.bicubic, refinement.real, above=above)
    refined = spectrum_error(refinement.refined, refinement.real, above=above)
    chance = spectrum_error(refinement.real[::2], refinement.real[1::2], above=above)
    return refined / bicubic, chance / bicubic
