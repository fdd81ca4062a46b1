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
from models.evaluate.corruptions import CORRUPTIONS, REVERSAL
from models.evaluate.distances import wasserstein
from models.evaluate.limits import NEUTRAL, Limit, Policy
from models.evaluate.material import Clips, Material, Refined, Refinement
from models.evaluate.report import ClassReport, CorruptionCheck, Figure, GateReport
from models.evaluate.spectrum import spectrum_error
from models.evaluate.yardstick import Yardstick

Bytes = NDArray[np.uint8]
_SYMMETRIC = "real sequences look alike both ways"


@dataclass(frozen=True)
class Geometry:
    """Where seams would lie: frames in a grid row, and the nets' patches in pixels of their frames."""

    columns: int = 4
    coarse_patch: int = 4
    refined_patch: int = 8


@dataclass(frozen=True)
class Rules:
    """By what is judged."""

    limits: Mapping[str, Limit]
    policy: Policy = Policy.FIXED
    geometry: Geometry = Geometry()
    seed: int = 0
    """The corruptions'."""


@dataclass(frozen=True)
class _Detail:
    """A figure without a yardstick, on generated, on held-out sequences, and on the reference held against these."""

    name: str
    view: str
    value: float
    real: float
    back: float


def evaluate(classes: Mapping[str, Material], *, rules: Rules) -> GateReport:
    """Judge every class."""
    return GateReport(tuple(judge(name, material, rules=rules) for name, material in classes.items()))


def judge(name: str, material: Material, *, rules: Rules) -> ClassReport:
    """One class."""
    figures: list[Figure] = []
    checks: list[CorruptionCheck] = []
    for view, reference, held_out, generated in _views(material):
        yardstick = Yardstick(reference, columns=rules.geometry.columns)
        limits = _limits(yardstick, held_out, rules)
        scale = yardstick.scale(len(generated))
        found, real = yardstick.measure(generated), yardstick.measure(held_out)
        for key, limit in limits.items():
            usual = rules.limits[key]
            figures.append(_figure(key, view, found[key], real[key], limit, usual, scale.get(key, 0.0)))
        checks += _check(view, held_out, yardstick, limits, rules)
    for one in _details(material, rules.geometry):
        usual = rules.limits[one.name]
        limit = (
            usual
            if rules.policy is Policy.FIXED
            else usual.widened([one.real, one.back], neutral=NEUTRAL.get(one.name, 0.0))
        )
        figures.append(_figure(one.name, one.view, one.value, one.real, limit, usual, 0.0))
    return ClassReport(name=name, figures=tuple(figures), corruptions=tuple(checks))


def _figure(name: str, view: str, value: float, real: float, limit: Limit, usual: Limit, reference: float) -> Figure:
    return Figure(
        name=name,
        view=view,
        value=value,
        real=real,
        bound=limit.bound,
        threshold=limit.threshold(reference),
        passed=limit.holds(value, reference=reference),
        real_passed=limit.holds(real, reference=reference),
        widened=limit != usual,
    )


def _limits(yardstick: Yardstick, held_out: Bytes, rules: Rules) -> dict[str, Limit]:
    """The limits of a yardstick's figures; of a sense of time only where real sequences have one."""
    real = yardstick.measure(held_out)
    limits = {key: rules.limits[key] for key in real}
    if rules.policy is Policy.FIXED:
        return limits
    both = ((real, yardstick.scale(len(held_out))), yardstick.measured_by(held_out))
    shares = {
        key: [limit.share(figures[key], reference=scale.get(key, 0.0)) for figures, scale in both]
        for key, limit in limits.items()
    }
    directed = yardstick.directed(held_out)
    return {
        key: limit.widened(shares[key], neutral=NEUTRAL.get(key, 0.0))
        for key, limit in limits.items()
        if directed or key != "arrow"
    }


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
    view: str, real: Bytes, yardstick: Yardstick, limits: Mapping[str, Limit], rules: Rules
) -> Iterator[CorruptionCheck]:
    scale = yardstick.scale(len(real))
    for name, corrupt in CORRUPTIONS.items():
        figures = yardstick.measure(corrupt(real, np.random.default_rng(rules.seed), rules.geometry.columns))
        exceeded = [
            key for key, limit in limits.items() if not limit.holds(figures[key], reference=scale.get(key, 0.0))
        ]
        excused = _SYMMETRIC if name == REVERSAL and "arrow" not in limits else ""
        yield CorruptionCheck(name=name, view=view, exceeded=tuple(exceeded), excused=excused)


def _details(material: Material, geometry: Geometry) -> Iterator[_Detail]:
    clips = (material.reference, material.held_out, material.generated)
    yield from _border("coarse", [one.profile for one in clips], geometry.coarse_patch)
    if refined := _refined(*clips):
        yield from _border("full size", [one.profile for one in refined], geometry.refined_patch)
        reference, held_out, generated = (_decibels(one) for one in refined)
        real = wasserstein(reference, held_out)
        yield _Detail("steadiness", "full size", wasserstein(reference, generated), real, real)
    if material.refinement is not None:
        value, real = _spectrum(material.refinement)
        yield _Detail("spectrum", "full size", value, real, real)


def _decibels(refined: Refined) -> features.Doubles:
    return np.asarray(-20.0 * np.log10(np.maximum(refined.steps, 1e-3)))


def _border(view: str, profiles: list[features.Doubles], patch: int) -> Iterator[_Detail]:
    """Nothing where no border lies inside a frame."""
    if 1 < patch < profiles[0].shape[1]:
        reference, held_out, generated = profiles
        pairs = ((generated, reference), (held_out, reference), (reference, held_out))
        value, real, back = (features.border_excess(one, other, period=patch) for one, other in pairs)
        yield _Detail("border", view, value, real, back)


def _spectrum(refinement: Refinement) -> tuple[float, float]:
    """Error of the refined frames' fine spectrum over that of bicubic ones; and of half of the real frames
    against the other half."""
    above = refinement.coarse_size // 2 + 1
    bicubic = spectrum_error(refinement.bicubic, refinement.real, above=above)
    refined = spectrum_error(refinement.refined, refinement.real, above=above)
    chance = spectrum_error(refinement.real[::2], refinement.real[1::2], above=above)
    return refined / bicubic, chance / bicubic
