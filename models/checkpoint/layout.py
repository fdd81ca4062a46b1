"""Which of a folder's files hold the weights: chosen by their names alone, so that a hub's list of names will do.

Known are single files (safetensors, torch pickles), and diffusers' folders: a `config.json` beside weights, at the top
or in the folder of a pipeline. A folder with several checkpoints is not guessed about.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass
from enum import StrEnum

from models.checkpoint import pickles
from models.checkpoint.errors import CheckpointError

CARD = "README.md"
PIPELINE = "model_index.json"

_SINGLE = (".safetensors", *pickles.SUFFIXES)
_DIFFUSERS = "diffusion_pytorch_model"
_SAVED = re.compile(rf"{_DIFFUSERS}(?P<variant>\.\w+)?(-\d+-of-\d+)?(?P<suffix>\.safetensors|\.bin)")


class Part(StrEnum):
    """What is looked for; the value is its folder in a diffusers pipeline."""

    NET = "transformer"
    AUTOENCODER = "vae"


@dataclass(frozen=True, slots=True)
class Layout:
    """The files that matter, by their names within the folder."""

    weights: tuple[str, ...]
    """One file, or the shards of one."""
    config: str | None = None
    """diffusers' description of the net."""
    beside: tuple[str, ...] = ()
    """The model card and the pipeline's index, where there are."""

    @property
    def names(self) -> tuple[str, ...]:
        """All of them."""
        return (*self.weights, *([self.config] if self.config else []), *self.beside)


def choose(where: str, names: Collection[str], *, part: Part, file: str | None = None) -> Layout:
    """The layout of a folder with these names; `file` settles which weights are meant."""
    beside = tuple(name for name in (CARD, PIPELINE) if name in names)
    if file is not None and file not in names:
        raise _not_there(where, names, found=f"no file {file!r}")
    for folder in ("", f"{part.value}/"):
        weights = _diffusers_weights(names if file is None else (file,), folder)
        if weights and f"{folder}config.json" in names:
            return Layout(weights, config=f"{folder}config.json", beside=beside)
    if part is Part.AUTOENCODER:
        raise _no_autoencoder(where)
    if file is not None:
        return Layout((file,), beside=beside)
    single = _checkpoints(names)
    if len(single) != 1:
        raise _not_there(where, names, found=f"{len(single)} checkpoints" if single else "no checkpoint")
    return Layout((single[0],), beside=beside)


def _diffusers_weights(names: Collection[str], folder: str) -> tuple[str, ...]:
    """One file, or the shards of one: safetensors before pickles, full precision before a variant."""
    forms: dict[tuple[str, str], list[str]] = {}
    for name in sorted(names):
        if (match := _SAVED.fullmatch(name.removeprefix(folder))) and name.startswith(folder):
            forms.setdefault((match["suffix"], match["variant"] or ""), []).append(name)
    best = min(forms, key=lambda form: (form[0] != ".safetensors", form[1]), default=None)
    return tuple(forms[best]) if best else ()


def _checkpoints(names: Collection[str]) -> list[str]:
    return sorted(name for name in names if "/" not in name and name.endswith(_SINGLE))


def _not_there(where: str, names: Collection[str], *, found: str) -> CheckpointError:
    there = ", ".join(_checkpoints(names)[:8]) or "none"
    remedy = f"name it with --file NAME, or as SOURCE:NAME; checkpoints there: {there}"
    return CheckpointError(where, found=found, expected="one checkpoint, or a folder by diffusers", remedy=remedy)


def _no_autoencoder(where: str) -> CheckpointError:
    expected = (
        f"a folder by diffusers: config.json and {_DIFFUSERS}.safetensors, or {Part.AUTOENCODER.value}/ with them"
    )
    remedy = "give the folder of an AutoencoderKL, such as stabilityai/sd-vae-ft-mse"
    return CheckpointError(where, found="no autoencoder", expected=expected, remedy=remedy)
