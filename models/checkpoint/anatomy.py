"""A net read off the names and shapes of its tensors.

Width, depth, patch, size, channels, classes, learned variance and stage follow from shapes; heads do not, and come from
what the checkpoint says, from the user, or from the preset of that width and depth. Then every tensor is checked
against the net that was found.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from pydantic import ValidationError
from torch import Tensor

from models import presets
from models.checkpoint import tables
from models.checkpoint.errors import CheckpointError
from models.checkpoint.reading import Checkpoint
from models.nn.dit import TIME_FEATURES, DiT
from models.spec import NetSpec, Prediction, ScheduleName, Stage

PATCH, TABLE, LAST = "x_embedder.proj.weight", "pos_embed", "final_layer.linear.weight"
LABELS = "y_embedder.embedding_table.weight"

_RANKS = {PATCH: 4, TABLE: 3, LAST: 2}
_NO_FILE_YET = "0" * 64
_SHOWN = 3
_PIXEL_CHANNELS = (1, 3)
_USUAL_CHANNELS = (1, 3, 4)


@dataclass(frozen=True, slots=True)
class Anatomy:
    """What the shapes say."""

    width: int
    depth: int
    patch: int
    size: int
    """Side of the input, in pixels or latents."""
    seen: int
    """Channels of the input."""
    answered: int
    """Channels of the output."""
    classes: int
    table: tables.Table

    def drawn(self, channels: int | None) -> int:
        """Channels of what the net draws; `channels`: those of the latents, where known."""
        halves = self.seen % 2 == 0
        if channels is not None and channels in (self.seen, self.seen // 2 if halves else 0):
            return channels
        if 2 * self.answered == self.seen:
            return self.answered
        same = self.answered == self.seen
        return self.seen // 2 if same and halves and self.seen // 2 in _USUAL_CHANNELS else self.seen

    def stage(self, channels: int | None) -> Stage:
        """A net that sees twice what it draws sees the low-resolution frame too."""
        return Stage.REFINE if self.seen == 2 * self.drawn(channels) else Stage.COARSE

    def latent(self) -> bool:
        """Whether what it draws can be no picture of pixels."""
        return self.drawn(None) not in _PIXEL_CHANNELS


@dataclass(frozen=True, slots=True)
class Told:
    """What no shape tells, of every net of a bundle."""

    prediction: Prediction = Prediction.EPSILON
    schedule: ScheduleName = ScheduleName.LINEAR
    heads: int | None = None


def read(checkpoint: Checkpoint) -> Anatomy:
    """The anatomy of a net; `CheckpointError` if it is no DiT."""
    tensors = checkpoint.tensors
    for key, rank in _RANKS.items():
        if key not in tensors or tensors[key].ndim != rank:
            raise _no_dit(checkpoint, key)
    width, seen, patch, _ = tensors[PATCH].shape
    tokens = tensors[TABLE].shape[1]
    side = math.isqrt(tokens)
    if side**2 != tokens:
        found, remedy = f"{tokens} tokens", "only square pictures are drawn here: take a net that was trained on them"
        raise CheckpointError(f"{checkpoint.name}: {TABLE}", found=found, expected="a square number", remedy=remedy)
    return Anatomy(
        width=width,
        depth=_depth(tensors),
        patch=patch,
        size=side * patch,
        seen=seen,
        answered=len(tensors[LAST]) // patch**2,
        classes=len(tensors[LABELS]) - 1 if LABELS in tensors else 0,
        table=tables.kind(tensors[TABLE][0]),
    )


def net_spec(checkpoint: Checkpoint, *, anatomy: Anatomy, told: Told, stage: Stage) -> NetSpec:
    """The spec of a net for a stage; its digest is that of no file yet. Every tensor is checked against it."""
    drawn = anatomy.seen if stage is Stage.COARSE else anatomy.seen // 2
    try:
        spec = NetSpec(
            file=f"{stage}.safetensors",
            sha256=_NO_FILE_YET,
            input_size=anatomy.size,
            patch=anatomy.patch,
            in_channels=anatomy.seen,
            out_channels=anatomy.answered,
            width=anatomy.width,
            depth=anatomy.depth,
            heads=_heads(checkpoint, anatomy, told.heads),
            classes=anatomy.classes,
            prediction=told.prediction,
            learned_variance=_learned_variance(checkpoint, anatomy, drawn),
            schedule=told.schedule,
            time_scale=presets.time_scale(told.schedule),
            dialect=checkpoint.dialect,
        )
    except ValidationError as error:
        remedy = "check which file it is"
        raise CheckpointError.of(error, where=checkpoint.name, expected="a DiT of usual size", remedy=remedy) from error
    _check(checkpoint, spec)
    return spec


def _depth(tensors: Mapping[str, Tensor]) -> int:
    blocks = {key.split(".")[1] for key in tensors if key.startswith("blocks.")}
    return 1 + max((int(block) for block in blocks if block.isdecimal()), default=0)


def _heads(checkpoint: Checkpoint, anatomy: Anatomy, wished: int | None) -> int:
    size = next((s for s in presets.SIZES.values() if (s.width, s.depth) == (anatomy.width, anatomy.depth)), None)
    heads = wished or checkpoint.heads or (size.heads if size else None)
    if heads is None:
        known = ", ".join(f"DiT-{name} {size.width}/{size.depth}" for name, size in presets.SIZES.items())
        found, remedy = f"{anatomy.width}/{anatomy.depth}", "say how many heads its attention has: --heads N"
        where = f"{checkpoint.name}: width/depth"
        raise CheckpointError(where, found=found, expected=f"those of a preset ({known})", remedy=remedy)
    if anatomy.width % heads:
        found, remedy = f"{heads} heads", "correct --heads"
        raise CheckpointError(
            checkpoint.name, found=found, expected=f"a divisor of its width {anatomy.width}", remedy=remedy
        )
    return heads


def _learned_variance(checkpoint: Checkpoint, anatomy: Anatomy, drawn: int) -> bool:
    if anatomy.answered not in (drawn, 2 * drawn):
        found = f"{anatomy.answered} channels drawn from {anatomy.seen}"
        expected = "as many as it draws, or twice as many (learned variance)"
        remedy = "only image nets and those that refine are drawn with here: check which file it is"
        raise CheckpointError(f"{checkpoint.name}: {LAST}", found=found, expected=expected, remedy=remedy)
    return anatomy.answered == 2 * drawn


def _check(checkpoint: Checkpoint, spec: NetSpec) -> None:
    """Every name and shape against the plain DiT of that spec."""
    with torch.device("meta"):
        expected = {key: tuple(tensor.shape) for key, tensor in DiT(spec).state_dict().items()}
    found = {key: tuple(tensor.shape) for key, tensor in checkpoint.tensors.items()}
    wrong = sorted(key for key in expected.keys() | found.keys() if expected.get(key) != found.get(key))
    if wrong:
        told = [f"{key} {found.get(key, 'missing')}, not {expected.get(key, 'there')}" for key in wrong[:_SHOWN]]
        more = f" and {len(wrong) - _SHOWN} more" if len(wrong) > _SHOWN else ""
        raise CheckpointError(
            checkpoint.name,
            found="; ".join(told) + more,
            expected=f"the {len(expected)} tensors of a DiT of width {spec.width} and depth {spec.depth}",
            remedy="only plain DiTs are drawn with here: check which file it is",
        )


def _no_dit(checkpoint: Checkpoint, key: str) -> CheckpointError:
    tensor = checkpoint.tensors.get(key)
    found = f"no tensor {key}" if tensor is None else f"{key} of shape {tuple(tensor.shape)}"
    some = ", ".join(sorted(checkpoint.tensors)[:_SHOWN]) or "none"
    remedy = f"check which file it is (its tensors: {some}, ...)"
    return CheckpointError(
        checkpoint.name,
        found=found,
        expected=f"the state dict of a DiT ({TIME_FEATURES} time features, adaLN-Zero)",
        remedy=remedy,
    )
