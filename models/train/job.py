"""One call of `gridit train`: what is asked for, the data it needs, the run it opens, the bundle it makes.

Here is no loop and no terminal; `commands` has both.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from models.bundle import Bundle
from models.data import footage as footages
from models.data.decoding import Reading
from models.data.footage import Footage, Wanted
from models.data.framing import Fit
from models.data.listing import Classes
from models.data.volumes import Window
from models.spec import Stage
from models.train import data as material
from models.train import wishes
from models.train.assemble import assemble
from models.train.data import Data
from models.train.latents import Encoding, Vae
from models.train.recipe import PRESETS, Recipe
from models.train.run import Training
from models.train.session import Session
from models.train.team import Team
from models.train.wishes import BadWish, NoData, Settings

KNOWN = (*Stage, *PRESETS)
"""What can be trained: a net of the user's own, or one that ships."""

OPTIONS = (
    "mirror", "degradation", "grid", "coarse_size", "refined_size", "patch", "width", "depth", "heads", "prediction",
    "schedule", "learned_variance", "batch", "accumulate", "learning_rate", "warm_up", "clip", "ema", "prefix_share",
    "seed", "precision",
)  # fmt: skip
"""Options that are fields of a recipe by the same name."""


@dataclass(frozen=True, slots=True)
class Asked:
    """What is asked for, before any data is looked at."""

    session: Session
    family: str
    """What the coarse run and the one that refines have their names from, and the bundle."""
    stage: Stage
    settings: Settings
    stored: Recipe | None
    """That of the run which exists already, or one that ships."""
    data: Path | None
    reading: Reading
    init: str | None
    vae: Vae | None

    @property
    def clips(self) -> Path:
        """Where rendered and decoded frames are kept."""
        return self.session.folder.parent / "clips"

    def wanted(self) -> Wanted | None:
        """The frames that have to be decoded, of what folder; None where the run's are known or rendered."""
        if self.data is None:
            return None
        probe = wishes.recipe(self.session.folder.name, self.settings, stored=self.stored)
        shortest = probe.grid**2 if self.stage is Stage.COARSE else 1
        return Wanted(self.data, self.reading, probe.sizes, shortest)

    def open(self, footage: Footage | None) -> Job:
        """The run, as it was saved last or fresh."""
        found = wishes.of_footage(footage) if footage else {}
        recipe = wishes.recipe(self.session.folder.name, {**self.settings, **found}, stored=self.stored)
        if not recipe.content and not recipe.domains:
            raise NoData
        if self.vae is not None:
            if self.vae.channels != recipe.channels:
                raise BadWish(
                    "vae", f"of {self.vae.channels} channels", f"frames have {recipe.channels}; see --channels"
                )
            if self.session.team.leads:
                self.vae.keep(self.clips)
        weights = None
        if self.init is not None:
            weights, digest = _weights(self.init)
            recipe = recipe.model_copy(update={"init": digest})
        return Job(self.session, self.family, self.session.open(recipe, weights=weights), footage, self.clips)


@dataclass(frozen=True, slots=True)
class Job:
    """An opened run."""

    session: Session
    family: str
    training: Training
    footage: Footage | None
    clips: Path

    def data(self) -> Data:
        """The frames it draws from."""
        recipe, vae = self.training.recipe, self.vae()
        if recipe.content:
            data = material.of(recipe, self.footage or footages.reopen(recipe.content, self.clips))
        else:
            data = material.load(recipe, self.clips)
        return data if vae is None else replace(data, encoding=Encoding(vae, device=self.session.team.device))

    def vae(self) -> Vae | None:
        """Its autoencoder, where it works on latents."""
        digest = self.training.recipe.autoencoder
        return Vae.reopen(digest, self.clips) if digest else None

    def bundle(self, path: Path, *, license_: str) -> Bundle:
        """Write the bundle of the family's runs: the coarse one, and the one that refines where there is one."""
        sessions = {stage: Session(self.session.folder.parent / f"{self.family}-{stage}") for stage in Stage}
        there = {stage: each for stage, each in sessions.items() if stage is Stage.COARSE or each.state.exists()}
        shipped = self.training.recipe.name in PRESETS
        runs = {stage: each.reopen() for stage, each in there.items()}
        return assemble(runs, path, name=self.family, license_="Apache-2.0" if shipped else license_, vae=self.vae())


def asked(what: str, options: Mapping[str, Any], *, runs: Path, team: Team) -> Asked:
    """Options as the command line has them; `BadWish` names what cannot be."""
    if what in PRESETS:
        return _shipped(PRESETS[what], options, runs=runs, team=team)
    stage, family = Stage(what), _family(options)
    session = Session(runs / f"{family}-{stage}", team)
    said = {name: options[name] for name in OPTIONS} | {"steps": options["total_steps"]}
    settings = wishes.settled(stage, said, preset=options["preset"], config=options["config"])
    if options["domains"]:
        settings |= wishes.of_domains(options["domains"])
    vae = Vae.read(options["vae"]) if options["vae"] else None
    if vae is not None:
        settings |= wishes.of_vae(vae)
    reading, stored = _reading(options), session.recipe()
    return Asked(session, family, stage, settings, stored, options["data"], reading, options["init"], vae)


def settle_torch() -> None:
    """One thread an operation, since the loop has threads of its own; the same bits from the same step on a GPU too."""
    torch.set_num_threads(1)
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    if torch.cuda.is_available():
        torch.use_deterministic_algorithms(True, warn_only=True)


def _shipped(recipe: Recipe, options: Mapping[str, Any], *, runs: Path, team: Team) -> Asked:
    """A recipe that ships: nothing but the precision can be chosen."""
    fixed = (*OPTIONS, "total_steps", "preset", "config", "data", "domains", "name", "init", "vae")
    for name in fixed:
        if name != "precision" and options[name] is not None:
            raise BadWish(name, options[name], f"{recipe.name} is fixed; train {recipe.stage} with options of your own")
    settings: Settings = {"stage": recipe.stage, "precision": options["precision"] or recipe.precision}
    session = Session(runs / recipe.name, team)
    family = recipe.name.removesuffix(f"-{recipe.stage}")
    return Asked(session, family, recipe.stage, settings, recipe, None, Reading(), None, None)


def _family(options: Mapping[str, Any]) -> str:
    data, domains = options["data"], options["domains"]
    if data is not None and domains is not None:
        raise BadWish("domains", domains, "choose --data or --domains")
    text = options["name"] or (data.resolve().name if data else domains)
    if text is None:
        raise NoData
    return wishes.run_name(text)


def _reading(options: Mapping[str, Any]) -> Reading:
    return Reading(
        classes=Classes(options["classes"]),
        stride=options["stride"],
        clip_frames=options["clip_frames"],
        fit=Fit(options["fit"]),
        crop=options["crop"],
        channels=_channels(options["channels"]),
        window=Window.parse(options["window"]) if options["window"] else None,
    )


def _channels(wish: int | None) -> int | None:
    if wish == 2:
        raise BadWish("channels", wish, "1 (grey) or 3 (colour)")
    return wish


def _weights(source: str) -> tuple[Mapping[str, Tensor], str]:
    """A published net's tensors, and the digest of its files."""
    from models.checkpoint import places, reading
    from models.checkpoint.hub import Hub

    place = places.find(places.Wanted(source), hub=Hub())
    digest = hashlib.sha256()
    for file in place.files:
        with file.open("rb") as stream:
            digest.update(hashlib.file_digest(stream, "sha256").digest())
    return reading.checkpoint(place).tensors, digest.hexdigest()
