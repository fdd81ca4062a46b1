"""From one run or two to one bundle: the averaged nets, and what a request gets when it does not say otherwise."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from models import bundle as bundles
from models import samplers
from models.bundle import Bundle
from models.spec import AutoencoderSpec, BundleSpec, Defaults, KnownRows, Limits, ScheduleName, Spacing, Stage
from models.train.recipe import PRESETS, Recipe
from models.train.run import Training

if TYPE_CHECKING:
    from models.train.latents import Vae

OVERLAP_ROWS = 2
"""Two given rows measured better than one, and need half the grids of three."""
DEFAULTS = Defaults(
    num_frames=64,
    fps=12,
    sampler="dpmpp_2m",
    spacing=Spacing.LOG_SNR,
    coarse_steps=10,
    refine_steps=2,
    guidance_scale=1.5,
)
"""Of the bundle that ships, as measured by its gate."""
DESCRIPTION = (
    "Small nets for trying the service out: sky time-lapses and lava lamps, 16-pixel coarse frames refined to 128 "
    "pixels. Trained from nothing on procedurally drawn sequences with this repository's own training command."
)
_OWN = "Trained with gridit train: {size}-pixel frames{refined}, {classes}."


class Mismatch(ValueError):
    """Two runs do not make one bundle."""


def spec_of(
    recipes: Mapping[Stage, Recipe], *, name: str, license_: str = "Apache-2.0", vae: AutoencoderSpec | None = None
) -> BundleSpec:
    """The bundle that these recipes make, but for its file digests. There is a coarse one; one that refines may be."""
    coarse = recipes[Stage.COARSE]
    last = recipes.get(Stage.REFINE, coarse)
    for field in ("domains", "channels", "bits", "coarse_size", "value_range", "autoencoder"):
        ours, theirs = getattr(coarse, field), getattr(last, field)
        if ours != theirs:
            raise Mismatch(f"{field} is {ours} in {coarse.name}, {theirs} in {last.name}: train one of them again")
    return BundleSpec(
        name=name,
        description=_description(coarse, last),
        license=license_,
        grid=coarse.grid,
        coarse_size=coarse.coarse_size,
        refined_size=last.frame_size,
        channels=coarse.channels,
        bits=coarse.bits,
        value_range=coarse.value_range,
        classes=coarse.domains,
        known_rows=coarse.known_rows,
        overlap_rows=_overlap(coarse),
        nets={stage: recipe.net for stage, recipe in recipes.items()},
        autoencoder=vae,
        samplers=samplers.names(),
        defaults=_defaults(coarse, last),
        limits=Limits(num_frames=1024, steps=1000 if _is_linear(coarse) else 100, guidance_scale=8.0),
    )


def assemble(
    runs: Mapping[Stage, Training], path: Path, *, name: str, license_: str = "Apache-2.0", vae: Vae | None = None
) -> Bundle:
    """Write the bundle of the runs' averaged nets."""
    story: dict[str, object] = {stage: _story(training) for stage, training in runs.items()}
    recipes = {stage: training.recipe for stage, training in runs.items()}
    spec = spec_of(recipes, name=name, license_=license_, vae=vae.spec if vae else None)
    nets = {stage: training.ema.state_dict() for stage, training in runs.items()}
    tensors = vae.tensors if vae else None
    return bundles.write(path, spec=spec.model_copy(update={"recipe": story}), nets=nets, autoencoder=tensors)


def _overlap(coarse: Recipe) -> int:
    """Rows given: nets that learnt to be given any take what measured best, others as many as were published."""
    most = coarse.grid - 1
    return min(OVERLAP_ROWS, most) if coarse.known_rows is KnownRows.CLEAN_PREFIX else most


def _defaults(coarse: Recipe, last: Recipe) -> Defaults:
    if coarse.name in PRESETS:
        return DEFAULTS
    if not _is_linear(coarse):
        sampler, spacing = "dpmpp_2m", Spacing.LOG_SNR
    else:  # known rows that are noised need a sampler that draws noise too, and both need these levels
        replaced = coarse.known_rows is KnownRows.REPLACEMENT
        sampler, spacing = "sde_dpmpp_2m" if replaced else "dpmpp_2m", Spacing.LOG_SNR
    guidance = DEFAULTS.guidance_scale if coarse.classes > 1 else 1.0
    few = 25 if _is_linear(last) else 4
    return DEFAULTS.model_copy(
        update={
            "sampler": sampler,
            "spacing": spacing,
            "coarse_steps": 25,
            "refine_steps": few,
            "guidance_scale": guidance,
        }
    )


def _description(coarse: Recipe, last: Recipe) -> str:
    if coarse.name in PRESETS:
        return DESCRIPTION
    refined = f" refined to {last.frame_size}" if last is not coarse else ""
    return _OWN.format(size=coarse.coarse_size, refined=refined, classes=", ".join(coarse.domains) or "no classes")


def _is_linear(recipe: Recipe) -> bool:
    return recipe.schedule is ScheduleName.LINEAR


def _story(training: Training) -> dict[str, object]:
    samples = training.step * training.recipe.batch
    done = {"steps": training.step, "decay_from": min(training.plan.decay_from, training.step), "samples": samples}
    return {"done": done, "recipe": training.recipe.model_dump(mode="json")}
