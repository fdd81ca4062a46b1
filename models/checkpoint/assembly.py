"""The spec of a bundle, put together from the nets and the autoencoder that were found and from what the user says."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from models import samplers
from models.checkpoint import anatomy, autoencoders, labels
from models.checkpoint.anatomy import Told
from models.checkpoint.errors import CheckpointError
from models.checkpoint.parts import Net, Vae
from models.checkpoint.places import Place
from models.spec import BundleSpec, Defaults, KnownRows, Limits, NetSpec, Prediction, ScheduleName, Spacing, Stage

PUBLISHED_GRID = 4
OVERLAP_ROWS = 3
GUIDANCE = 4.0
UNKNOWN_LICENSE = "unknown"
LICENSES = {"snehalstomar/GriDiT": "cc-by-nc-4.0", "stabilityai/sd-vae-ft-mse": "mit"}
"""Of known repositories, for when their cards do not say."""
LIMITS = Limits(num_frames=1024, steps=1000, guidance_scale=20)
GRIDS = range(2, 9)


@dataclass(frozen=True, slots=True)
class Wishes:
    """What no file tells, or what the user knows better; None: found out, or as published."""

    name: str | None = None
    license: str | None = None
    grid: int | None = None
    heads: int | None = None
    overlap_rows: int | None = None
    prediction: Prediction = Prediction.EPSILON
    schedule: ScheduleName = ScheduleName.LINEAR
    latent_scale: float | None = None
    classes: Path | None = None
    """File with a name for each label."""


def spec_of(nets: Mapping[Stage, Net], vae: Vae | None, *, wishes: Wishes) -> BundleSpec:
    channels = vae.spec.latent_channels if vae else None
    told = Told(prediction=wishes.prediction, schedule=wishes.schedule, heads=wishes.heads)
    if (told.prediction, told.schedule) == (Prediction.EPSILON, ScheduleName.FLOW):
        expected, remedy = "v, x or flow on the flow schedule", "its first time is noise alone: say --prediction flow"
        raise CheckpointError("--prediction", found="epsilon", expected=expected, remedy=remedy)
    for stage, net in nets.items():
        _check_part(stage, net, vae)
    specs = {
        stage: anatomy.net_spec(net.checkpoint, anatomy=net.anatomy, told=told, stage=stage)
        for stage, net in nets.items()
    }
    coarse, downsample = nets[Stage.COARSE], vae.spec.downsample if vae else 1
    grid = _grid(coarse, wishes.grid)
    coarse_size = coarse.anatomy.size * downsample // grid
    classes = _classes(nets, wishes.classes)
    try:
        return BundleSpec(
            name=_name(wishes.name or coarse.place.name),
            license=wishes.license or _license(nets, vae),
            grid=grid,
            coarse_size=coarse_size,
            refined_size=specs[Stage.REFINE].input_size * downsample if Stage.REFINE in specs else coarse_size,
            channels=autoencoders.pixel_channels(vae.tensors) if vae else coarse.anatomy.drawn(channels),
            classes=classes,
            known_rows=KnownRows.REPLACEMENT,
            overlap_rows=wishes.overlap_rows or min(OVERLAP_ROWS, grid - 1),
            nets=specs,
            autoencoder=vae.spec if vae else None,
            samplers=samplers.names(),
            defaults=_defaults(specs),
            limits=LIMITS,
            source=_record(nets, vae),
        )
    except ValidationError as error:
        remedy = "check which files belong together, and the options"
        raise CheckpointError.of(error, where=coarse.place.name, expected="a bundle", remedy=remedy) from error


def _check_part(stage: Stage, net: Net, vae: Vae | None) -> None:
    """That the net is of its stage, and draws what the autoencoder decodes."""
    found = net.anatomy
    channels = vae.spec.latent_channels if vae else None
    drawn = found.drawn(channels)
    if channels is not None and drawn != channels:
        assert vae is not None
        raise CheckpointError(
            vae.place.name,
            found=f"{channels} latent channels",
            expected=f"the {drawn} that {net.place.name} draws",
            remedy="name the autoencoder that the nets were trained with"
            + ("" if found.latent() else ", or none: this net draws pixels"),
        )
    if found.stage(channels) is not stage:
        kind = {Stage.COARSE: "draws from noise alone", Stage.REFINE: "refines: it sees a low-resolution frame too"}
        raise CheckpointError(
            net.place.name,
            found=f"a net that {kind[found.stage(channels)]} ({found.seen} channels in)",
            expected=f"one that {kind[stage]}",
            remedy="SOURCE is the net that draws grids, --refine the one that refines their frames",
        )


def _grid(coarse: Net, wished: int | None) -> int:
    """K: as wished, as its file or table has it, else as published; else the only one that its size allows."""
    side = coarse.anatomy.size // coarse.anatomy.patch
    possible = [k for k in GRIDS if side % k == 0]
    likely = wished or coarse.checkpoint.grid or coarse.anatomy.table.grid
    if likely is None:
        likely = PUBLISHED_GRID if PUBLISHED_GRID in possible or len(possible) != 1 else possible[0]
    if likely not in possible:
        raise CheckpointError(
            f"{coarse.place.name}: grid",
            found=f"{likely} x {likely} frames in {side} x {side} patches",
            expected="frames of whole patches",
            remedy=f"say how many frames lie side by side: --grid {' or '.join(map(str, possible)) or 'none fits'}",
        )
    return likely


def _classes(nets: Mapping[Stage, Net], file: Path | None) -> tuple[str, ...]:
    counts = {net.anatomy.classes for net in nets.values()} - {0}
    if len(counts) > 1:
        found, remedy = f"{min(counts)} and {max(counts)} classes", "import nets that were trained on the same labels"
        raise CheckpointError("--refine", found=found, expected="as many as the coarse net's", remedy=remedy)
    told = next((net.checkpoint.classes for net in nets.values() if net.checkpoint.classes), ())
    return labels.names(max(counts, default=0), told=told, file=file)


def _defaults(specs: Mapping[Stage, NetSpec]) -> Defaults:
    coarse = specs[Stage.COARSE]
    conditional = coarse.classes > 0
    return Defaults(
        num_frames=64,
        fps=8,
        sampler="sde_dpmpp_2m",
        spacing=Spacing.LOG_SNR if coarse.schedule is ScheduleName.LINEAR else Spacing.LINEAR,
        coarse_steps=25,
        refine_steps=25,
        guidance_scale=GUIDANCE if conditional else 1,
    )


def _license(nets: Mapping[Stage, Net], vae: Vae | None) -> str:
    """Of every part; one word where they agree."""
    parts: dict[str, Place] = {stage.value: net.place for stage, net in nets.items()}
    if vae is not None:
        parts["autoencoder"] = vae.place
    found = {part: place.license or LICENSES.get(place.name, UNKNOWN_LICENSE) for part, place in parts.items()}
    if len(set(found.values())) == 1:
        return found[Stage.COARSE.value]
    return "; ".join(f"{part}: {text}" for part, text in found.items())


def _record(nets: Mapping[Stage, Net], vae: Vae | None) -> dict[str, object]:
    """What the bundle remembers of its origin."""
    record: dict[str, object] = {
        stage.value: net.place.record() | {"form": net.checkpoint.form, "positional_table": str(net.anatomy.table)}
        for stage, net in nets.items()
    }
    return record | ({"autoencoder": vae.place.record()} if vae else {})


def _name(text: str) -> str:
    """A bundle's name from a source's."""
    stem = re.sub(r"\.(safetensors|pt|pth|ckpt|bin)$", "", text.rpartition("/")[2].lower())
    return re.sub(r"[^a-z0-9._-]+", "-", stem).strip("-._")[:64] or "imported"
