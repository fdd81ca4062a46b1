"""The tensors of a found source under the published names, and what was said beside them.

Reading decides nothing about shapes; `models.checkpoint.anatomy` does. Of a training checkpoint the averaged weights
are taken.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from models.checkpoint import pickles, transformer2d
from models.checkpoint.errors import CheckpointError
from models.checkpoint.layout import PIPELINE
from models.checkpoint.places import Place
from models.spec import Dialect

_INSIDE = ("ema", "model", "state_dict")
"""Where a training checkpoint keeps a state dict; the first that is there counts."""
_WRAPPERS = ("module.", "_orig_mod.")
"""What distributed training and compilation put before every name."""


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """One net as published: tensors, and what no shape tells."""

    name: str
    tensors: Mapping[str, Tensor]
    form: str
    """Which form it came in, for people."""
    heads: int | None = None
    grid: int | None = None
    dialect: Dialect = Dialect.PUBLISHED
    classes: tuple[str, ...] = field(default=())
    """Names of the labels, where they are told."""


def checkpoint(place: Place) -> Checkpoint:
    """Read a net; `CheckpointError` if its files are damaged or hold something else."""
    if place.layout.config is not None:
        return _by_diffusers(place)
    (file,) = place.files
    if file.suffix == ".safetensors":
        state, said = safetensors(file)
        return Checkpoint(
            place.name,
            _plain(file.name, state),
            form="safetensors",
            heads=_number(file.name, said, "heads"),
            grid=_number(file.name, said, "grid"),
        )
    return _by_torch(place, file)


def tensors(place: Place) -> dict[str, Tensor]:
    """Every tensor of a place's files, under the names they have there."""
    merged: dict[str, Tensor] = {}
    for file in place.files:
        read = safetensors(file)[0] if file.suffix == ".safetensors" else pickles.read(file)
        merged |= _plain(file.name, read)
    return merged


def json_object(file: Path) -> dict[str, object]:
    """A configuration file."""
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        content = str(error)
    if not isinstance(content, dict):
        remedy = "copy it again from where it came from"
        raise CheckpointError(file.name, found=f"no JSON object ({content})", expected="a JSON object", remedy=remedy)
    return content


def safetensors(file: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors and metadata of a safetensors file."""
    try:
        with safe_open(file, framework="pt") as stored:
            return {key: stored.get_tensor(key) for key in stored.keys()}, stored.metadata() or {}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        found, remedy = f"no readable safetensors file ({error})", "copy it again from where it came from"
        raise CheckpointError(file.name, found=found, expected="a whole safetensors file", remedy=remedy) from error


def _by_torch(place: Place, file: Path) -> Checkpoint:
    content = pickles.read(file)
    key = next((key for key in _INSIDE if isinstance(content.get(key), Mapping)), None)
    state = content if key is None else content[key]
    assert isinstance(state, Mapping)
    return Checkpoint(
        place.name,
        _plain(file.name, state),
        form="pickle" if key is None else f"pickle, {key!r} of {', '.join(sorted(content))}",
    )


def _by_diffusers(place: Place) -> Checkpoint:
    assert place.layout.config is not None
    config = json_object(place.folder / place.layout.config)
    return Checkpoint(
        place.name,
        transformer2d.published(tensors(place), config=config, where=place.name),
        form="diffusers' DiTTransformer2DModel",
        heads=transformer2d.heads(config),
        dialect=Dialect.DIFFUSERS,
        classes=_pipeline_classes(place),
    )


def _pipeline_classes(place: Place) -> tuple[str, ...]:
    """The class names of a DiTPipeline: the first of the synonyms."""
    if PIPELINE not in place.layout.beside:
        return ()
    labels = json_object(place.folder / PIPELINE).get("id2label")
    if not isinstance(labels, dict):
        return ()
    return tuple(str(labels[key]).split(",")[0].strip() for key in sorted(labels, key=int))


def _plain(where: str, state: Mapping[str, object]) -> dict[str, Tensor]:
    """A state dict of dense floating-point tensors, without what wrappers put before the names."""
    remedy = "save the net's own state_dict(), in a floating-point type"
    plain: dict[str, Tensor] = {}
    for key, value in state.items():
        if not isinstance(value, Tensor):
            found = f"a {type(value).__name__} as {key!r}"
            raise CheckpointError(where, found=found, expected="a state dict of tensors", remedy=remedy)
        if not value.is_floating_point() or value.layout is not torch.strided:
            found = f"{key!r} in {value.dtype}, {value.layout}"
            raise CheckpointError(where, found=found, expected="dense floating-point tensors", remedy=remedy)
        plain[_unwrapped(key)] = value
    return plain


def _unwrapped(key: str) -> str:
    for wrapper in _WRAPPERS:
        key = key.removeprefix(wrapper)
    return key


def _number(where: str, said: Mapping[str, str], field: str) -> int | None:
    text = said.get(field)
    if text is not None and not text.isdecimal():
        remedy = "correct the file's metadata"
        raise CheckpointError(f"{where}: {field}", found=repr(text), expected="a whole number", remedy=remedy)
    return None if text is None else int(text)
