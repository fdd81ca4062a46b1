"""From what a user asks for to a recipe: the usual values, then a preset's, a file's, and last the options'.

Of a run that exists already, its own recipe comes in place of the usual values, so that going on needs no option said
again; what is said again must be the same.
"""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import ValidationError

from models import presets
from models.data import domains
from models.data.footage import Footage
from models.spec import Stage
from models.train.recipe import BadRecipe, Draws, Recipe

if TYPE_CHECKING:
    from models.train.latents import Vae

Settings = dict[str, object]
"""Fields of a recipe."""

_SHARED: Settings = {"draws": Draws.ROW, "steps": 10_000, "sequences": 2_000}
_USUAL: dict[Stage, Settings] = {
    Stage.COARSE: {
        "patch": 4, "width": 160, "depth": 6, "heads": 5, "clip_frames": 64,
        "learning_rate": 1.2e-3, "time_mean": 0.8, "low_noise": 0.04,
    },
    Stage.REFINE: {
        "patch": 8, "width": 128, "depth": 4, "heads": 4, "clip_frames": 4,
        "learning_rate": 1.5e-3, "time_mean": 1.0, "smallest_time": 0.25, "low_noise": 0.1,
    },
}  # fmt: skip
"""The bundled nets' values, which suit small nets and frames."""
_OF_PRESETS: Settings = {"learning_rate": 1e-4, "betas": (0.9, 0.999), "ema": 0.9999}
"""As published for DiT."""


class BadWish(ValueError):
    """Something that was asked for cannot be had."""

    def __init__(self, field: str, found: object, expected: str) -> None:
        super().__init__(f"{field} {found!r} is not possible: {expected}")


class NoData(ValueError):
    """Nothing says what a run is to learn from."""

    def __init__(self) -> None:
        super().__init__(
            "no data: name a folder of sequences (--data), domains (--domains) or a run to go on with (--name)"
        )


def settled(
    stage: Stage, options: Mapping[str, object], *, preset: str | None = None, config: Path | None = None
) -> Settings:
    """A recipe's fields as they are wished, without those that are left to the usual."""
    of_preset: Settings = {}
    if preset is not None:
        size, patch = presets.parse(preset)
        of_preset = {"patch": patch, "width": size.width, "depth": size.depth, "heads": size.heads, **_OF_PRESETS}
    said = {name: value for name, value in options.items() if value is not None}
    return {**of_preset, **(_read(config) if config else {}), **said, "stage": stage}


def recipe(name: str, wishes: Settings, *, stored: Recipe | None = None) -> Recipe:
    """The recipe of a run. `BadRecipe` names what does not go together."""
    stage = Stage(str(wishes["stage"]))
    usual = {**_SHARED, **_USUAL[stage], "domains": (), "name": name} if stored is None else stored.model_dump()
    if stored is None and "accumulate" in wishes:
        usual["shards"] = 1
    try:
        return Recipe.model_validate({**usual, **wishes})
    except ValidationError as error:
        raise BadRecipe.of(error) from error


def of_footage(footage: Footage) -> Settings:
    """What a user's own sequences decide."""
    window = footage.window
    return {
        "domains": footage.classes,
        "channels": footage.channels,
        "bits": footage.bits,
        "content": footage.content,
        "value_range": None if window is None else (window.low, window.high),
    }


def of_vae(vae: Vae) -> Settings:
    """What an autoencoder decides."""
    spec = vae.spec
    return {"autoencoder": vae.digest, "latent_channels": spec.latent_channels, "downsample": spec.downsample}


def of_domains(names: str) -> Settings:
    """Procedural domains, by their names with commas between them."""
    chosen = tuple(sorted(name.strip() for name in names.split(",")))
    for name in chosen:
        if name not in domains.names():
            raise BadWish("domains", name, f"there are {', '.join(domains.names())}")
    return {"domains": chosen}


def run_name(text: str) -> str:
    """A name for a run and for the bundle it becomes: lower case letters, digits, dots and dashes."""
    plain = re.sub(r"[^a-z0-9._-]+", "-", text.lower()).strip("-._")[:50]
    if not plain:
        raise BadWish("name", text, "it needs a letter or a digit; take another with --name")
    return plain


def _read(config: Path) -> Settings:
    """Fields from a TOML or JSON file."""
    try:
        text = config.read_text(encoding="utf-8")
        content = json.loads(text) if config.suffix == ".json" else tomllib.loads(text)
    except (OSError, ValueError) as error:
        raise BadWish("config", str(config), f"a file of TOML or JSON ({error})") from error
    if not isinstance(content, dict):
        raise BadWish("config", str(config), "a table of a recipe's fields")
    if unknown := sorted(content.keys() - Recipe.model_fields.keys()):
        raise BadWish("config", unknown[0], f"the fields are {', '.join(Recipe.model_fields)}")
    return content
