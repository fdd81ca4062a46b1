"""From two runs to one bundle: the averaged nets, and what a request gets when it does not say otherwise."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from models import bundle as bundles
from models import samplers
from models.bundle import Bundle
from models.spec import BundleSpec, Defaults, KnownRows, Limits, Stage
from models.train.recipe import Recipe
from models.train.run import Training

OVERLAP_ROWS = 2
"""Two given rows measured better than one, and need half the grids of three."""
DEFAULTS = Defaults(num_frames=64, fps=12, sampler="euler", coarse_steps=10, refine_steps=2, guidance_scale=1.5)
DESCRIPTION = (
    "Small nets for trying the service out: sky time-lapses and lava lamps, 16-pixel coarse frames refined to 128 "
    "pixels. Trained from nothing on procedurally drawn sequences with this repository's own training command."
)


class Mismatch(ValueError):
    """Two runs do not make one bundle."""


def spec_of(recipes: Mapping[Stage, Recipe], *, name: str) -> BundleSpec:
    """The bundle that these recipes make, but for its file digests."""
    coarse, refine = recipes[Stage.COARSE], recipes[Stage.REFINE]
    for field in ("domains", "grid", "coarse_size", "refined_size"):
        ours, theirs = getattr(coarse, field), getattr(refine, field)
        if ours != theirs:
            raise Mismatch(f"{field} is {ours} in {coarse.name}, {theirs} in {refine.name}: train one of them again")
    return BundleSpec(
        name=name,
        description=DESCRIPTION,
        license="Apache-2.0",
        grid=coarse.grid,
        coarse_size=coarse.coarse_size,
        refined_size=refine.refined_size,
        classes=coarse.domains,
        known_rows=KnownRows.CLEAN_PREFIX,
        overlap_rows=min(OVERLAP_ROWS, coarse.grid - 1),
        nets={stage: recipe.net for stage, recipe in recipes.items()},
        samplers=samplers.names(),
        defaults=DEFAULTS,
        limits=Limits(num_frames=1024, steps=100, guidance_scale=8.0),
    )


def assemble(runs: Mapping[Stage, Training], path: Path, *, name: str) -> Bundle:
    """Write the bundle of two runs' averaged nets."""
    story: dict[str, object] = {stage: _story(training) for stage, training in runs.items()}
    spec = spec_of({stage: training.recipe for stage, training in runs.items()}, name=name)
    nets = {stage: training.ema.state_dict() for stage, training in runs.items()}
    return bundles.write(path, spec=spec.model_copy(update={"recipe": story}), nets=nets)


def _story(training: Training) -> dict[str, object]:
    samples = training.step * training.recipe.batch
    done = {"steps": training.step, "decay_from": min(training.plan.decay_from, training.step), "samples": samples}
    return {"done": done, "recipe": training.recipe.model_dump(mode="json")}
