"""A net's first weights: from nothing, or from those of a DiT that was trained for something else.

Weights of published nets fit as they are, but at their ends: a net that refines has more input channels (the new ones
start at zero, so that at first it sees what it is used to), the table of classes stays only where it fits, and so does
the positional table, which is otherwise DiT's own for the new size.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from models.nn.dit import DiT, sincos_2d
from models.spec import NetSpec, Stage
from models.train.positions import frame_aware
from models.train.recipe import Recipe

_PATCHES, _POSITIONS, _CLASSES = "x_embedder.proj.weight", "pos_embed", "y_embedder.embedding_table.weight"
_OUT = ("final_layer.linear.weight", "final_layer.linear.bias")


class Misfit(ValueError):
    """Weights that are those of another net."""

    def __init__(self, key: str, found: str, expected: str) -> None:
        remedy = "choose the --preset (or --patch, --width, --depth, --heads) that the weights were trained with"
        super().__init__(f"init weights, {key}: found {found}, expected {expected}; {remedy}")


def fresh_net(recipe: Recipe) -> DiT:
    """A net that knows nothing, from the recipe's seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.seed)
        net = DiT(recipe.net)
    if recipe.stage is Stage.COARSE:
        tokens = net.spec.input_size // recipe.patch
        net.pos_embed.data = frame_aware(recipe.width, tokens=tokens, grid=recipe.grid)
    return net


def warm(net: DiT, weights: Mapping[str, Tensor]) -> tuple[str, ...]:
    """Give a fresh net the weights of another; what did not fit as it is, in words."""
    expected, found = net.state_dict(), {key: tensor.float() for key, tensor in weights.items()}
    notes: list[str] = []
    if _POSITIONS in found and found[_POSITIONS].shape != expected[_POSITIONS].shape:
        side = net.spec.input_size // net.spec.patch
        notes.append(f"positional table of {found[_POSITIONS].shape[1]} places replaced by DiT's for {side} x {side}")
        found[_POSITIONS] = sincos_2d(net.spec.width, side)[None]
    if _CLASSES in found and (_CLASSES not in expected or found[_CLASSES].shape != expected[_CLASSES].shape):
        notes.append(f"table of {len(found.pop(_CLASSES)) - 1} classes left out")
    if _CLASSES in expected:
        found.setdefault(_CLASSES, expected[_CLASSES])
    if _PATCHES in found:
        found[_PATCHES] = _widened(found[_PATCHES], net.spec, notes)
    for key in _OUT:
        if key in found:
            found[key] = _redrawn(found[key], net.spec, notes)
    _check(found, expected)
    net.load_state_dict(found)
    return tuple(notes)


def _widened(weight: Tensor, spec: NetSpec, notes: list[str]) -> Tensor:
    """(D, c, p, p) -> (D, C, p, p); channels that are new start at zero."""
    missing = spec.in_channels - weight.shape[1]
    if missing <= 0 or weight.ndim != 4:
        return weight
    notes.append(f"patch convolution widened from {weight.shape[1]} to {spec.in_channels} channels with zeros")
    return torch.cat([weight, weight.new_zeros(len(weight), missing, *weight.shape[2:])], dim=1)


def _redrawn(final: Tensor, spec: NetSpec, notes: list[str]) -> Tensor:
    """(p*p*c, ...), channel fastest, with the variance channels that the net has: dropped, or new ones at zero."""
    pixels = spec.patch**2
    drawn = spec.out_channels // 2 if spec.learned_variance else spec.out_channels
    if final.shape[0] == pixels * spec.out_channels or final.shape[0] not in (pixels * drawn, 2 * pixels * drawn):
        return final
    channels = final.reshape(pixels, -1, *final.shape[1:])
    if spec.learned_variance:
        notes.append("variance channels added at zero")
        channels = torch.cat([channels, torch.zeros_like(channels)], dim=1)
    else:
        notes.append("variance channels left out")
        channels = channels[:, :drawn]
    return channels.reshape(-1, *final.shape[1:])


def _check(found: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> None:
    for key, tensor in expected.items():
        if key not in found:
            raise Misfit(key, "no such tensor", f"shape {tuple(tensor.shape)}")
        if found[key].shape != tensor.shape:
            raise Misfit(key, f"shape {tuple(found[key].shape)}", f"{tuple(tensor.shape)}")
    if left := sorted(found.keys() - expected.keys()):
        raise Misfit(left[0], f"shape {tuple(found[left[0]].shape)}", "no such tensor")
