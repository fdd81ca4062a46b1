"""diffusers' `DiTTransformer2DModel` layout under the published names.

Facts, from diffusers' own state dicts: every block has a copy of the time and label embedders, of which the net uses
the first for its last layer; queries, keys and values are apart; the positional table is not stored but made anew by
DiT's 2-D formula. What its arithmetic does differently is `models.spec.Dialect.DIFFUSERS`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
from torch import Tensor

from models.checkpoint.errors import CheckpointError
from models.nn.dit import sincos_2d

REQUIRED: Mapping[str, object] = {
    "norm_type": "ada_norm_zero",
    "activation_fn": "gelu-approximate",
    "attention_bias": True,
    "norm_elementwise_affine": False,
    "norm_eps": 1e-5,
}
"""What a config must say, or leave out: the values are the library's own defaults."""
CLASSES = ("DiTTransformer2DModel", "Transformer2DModel")

_OUTSIDE = {
    "pos_embed.proj": "x_embedder.proj",
    "proj_out_1": "final_layer.adaLN_modulation.1",
    "proj_out_2": "final_layer.linear",
}
_INSIDE = {
    "norm1.linear": "adaLN_modulation.1",
    "attn1.to_out.0": "attn.proj",
    "ff.net.0.proj": "mlp.fc1",
    "ff.net.2": "mlp.fc2",
}
_EMBEDDERS = {
    "timestep_embedder.linear_1.weight": "t_embedder.mlp.0.weight",
    "timestep_embedder.linear_1.bias": "t_embedder.mlp.0.bias",
    "timestep_embedder.linear_2.weight": "t_embedder.mlp.2.weight",
    "timestep_embedder.linear_2.bias": "t_embedder.mlp.2.bias",
    "class_embedder.embedding_table.weight": "y_embedder.embedding_table.weight",
}
_EMBEDDER = re.compile(r"transformer_blocks\.(?P<block>\d+)\.norm1\.emb\.(?P<rest>.+)")
_PROJECTION = re.compile(r"transformer_blocks\.(?P<block>\d+)\.attn1\.to_(?P<which>[qkv])\.(?P<kind>weight|bias)")
_BLOCK = re.compile(r"transformer_blocks\.(?P<block>\d+)\.(?P<layer>.+)\.(?P<kind>weight|bias)")


def published(state: Mapping[str, Tensor], *, config: Mapping[str, object], where: str) -> dict[str, Tensor]:
    """The net's tensors under the published names; `CheckpointError` if it is another net than DiT."""
    _check(config, where)
    renamed: dict[str, Tensor] = {}
    for key, tensor in state.items():
        renamed |= _renamed(key, tensor, state, where)
    if "pos_embed" not in renamed:
        renamed["pos_embed"] = _table(renamed, config, where)
    return renamed


def heads(config: Mapping[str, object]) -> int:
    """As the config has it; the library's default else."""
    return _whole(config, "num_attention_heads", 16)


def as_diffusers(state: Mapping[str, Tensor], *, classes: int) -> dict[str, Tensor]:
    """The way back: published names -> diffusers', embedders in every block.

    Where there is no table of labels, one for `classes` of them is made that adds nothing.
    """
    width = len(state["t_embedder.mlp.2.bias"])
    silent = {"y_embedder.embedding_table.weight": torch.zeros(classes + 1, width)}
    whole = {**silent, **state}
    outside = {named: theirs for theirs, named in _OUTSIDE.items()}
    found = {"pos_embed.pos_embed": whole["pos_embed"]}
    for key, tensor in whole.items():
        layer, _, kind = key.rpartition(".")
        if layer in outside:
            found[f"{outside[layer]}.{kind}"] = tensor
    for block in sorted({int(key.split(".")[1]) for key in state if key.startswith("blocks.")}):
        found |= _block_of_diffusers(whole, block)
    return found


def _block_of_diffusers(state: Mapping[str, Tensor], block: int) -> dict[str, Tensor]:
    theirs, ours = f"transformer_blocks.{block}", f"blocks.{block}"
    found = {f"{theirs}.norm1.emb.{key}": state[named] for key, named in _EMBEDDERS.items()}
    for kind in ("weight", "bias"):
        parts = state[f"{ours}.attn.qkv.{kind}"].chunk(3)
        found |= {f"{theirs}.attn1.to_{which}.{kind}": part for which, part in zip("qkv", parts, strict=True)}
        found |= {f"{theirs}.{layer}.{kind}": state[f"{ours}.{named}.{kind}"] for layer, named in _INSIDE.items()}
    return found


def _check(config: Mapping[str, object], where: str) -> None:
    kind = config.get("_class_name")
    remedy = "only plain DiTs are drawn with here: take a DiTTransformer2DModel"
    if kind not in CLASSES:
        raise CheckpointError(f"{where}: _class_name", found=repr(kind), expected=repr(CLASSES[0]), remedy=remedy)
    for field, expected in REQUIRED.items():
        found = config.get(field, expected)
        if found != expected:
            raise CheckpointError(f"{where}: {field}", found=repr(found), expected=repr(expected), remedy=remedy)


def _renamed(key: str, tensor: Tensor, state: Mapping[str, Tensor], where: str) -> dict[str, Tensor]:
    """One of diffusers' tensors under its published name; nothing for what goes into another one."""
    if match := _EMBEDDER.fullmatch(key):
        return _embedder(key, tensor, state, where) if match["rest"] in _EMBEDDERS else {key: tensor}
    if match := _PROJECTION.fullmatch(key):
        parts = [state.get(re.sub(r"to_[qkv]", f"to_{which}", key)) for which in "qkv"]
        whole = [part for part in parts if part is not None]
        name = f"blocks.{match['block']}.attn.qkv.{match['kind']}"
        return {name: torch.cat(whole)} if match["which"] == "q" and len(whole) == 3 else {}
    if (match := _BLOCK.fullmatch(key)) and match["layer"] in _INSIDE:
        return {f"blocks.{match['block']}.{_INSIDE[match['layer']]}.{match['kind']}": tensor}
    if key == "pos_embed.pos_embed":
        return {"pos_embed": tensor}
    layer, _, kind = key.rpartition(".")
    return {f"{_OUTSIDE[layer]}.{kind}" if layer in _OUTSIDE else key: tensor}


def _embedder(key: str, tensor: Tensor, state: Mapping[str, Tensor], where: str) -> dict[str, Tensor]:
    """The first block's embedders, which every other block's must equal."""
    match = _EMBEDDER.fullmatch(key)
    assert match is not None
    first = state.get(f"transformer_blocks.0.norm1.emb.{match['rest']}")
    if first is None or not torch.equal(tensor, first):
        raise CheckpointError(
            f"{where}: {key}",
            found="other values than in block 0",
            expected="one embedding of time and label for all blocks, as DiT has",
            remedy="nets whose blocks were embedded apart cannot be imported",
        )
    return {_EMBEDDERS[match["rest"]]: tensor} if match["block"] == "0" else {}


def _table(renamed: Mapping[str, Tensor], config: Mapping[str, object], where: str) -> Tensor:
    side = _whole(config, "sample_size", 32) // _whole(config, "patch_size", 2)
    projection = renamed.get("x_embedder.proj.weight")
    if projection is None:
        remedy = "the weights do not belong to the config: copy both again"
        raise CheckpointError(where, found="no pos_embed.proj.weight", expected="the patch embedding", remedy=remedy)
    return sincos_2d(len(projection), side)[None].to(projection.dtype)


def _whole(config: Mapping[str, object], field: str, default: int) -> int:
    found = config.get(field, default)
    if not isinstance(found, int) or found < 1:
        remedy = "copy the config again from where it came from"
        raise CheckpointError(f"config: {field}", found=repr(found), expected="a whole number", remedy=remedy)
    return found
