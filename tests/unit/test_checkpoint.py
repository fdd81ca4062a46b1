"""Published weights read: each form gives the same net, shapes say what it is, and what is no such net is refused."""

from __future__ import annotations

import os
import pickle
from argparse import Namespace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from models.checkpoint import parts, tables
from models.checkpoint.errors import CheckpointError, PickleRefused
from models.checkpoint.hub import Hub
from models.checkpoint.parts import Net
from models.checkpoint.places import Wanted
from models.checkpoint.tables import Kind, Order, Table
from models.nn.dit import sincos_2d
from models.spec import Stage
from tests.published import SR, STAGE1, golden, labelled_net, pixel_net, training_checkpoint


def found(path: Path, **wanted: Any) -> Net:
    return parts.find_net(Wanted(str(path), **wanted), hub=Hub(endpoint="http://127.0.0.1:1"))


def same(one: Any, other: Any) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


def saved(path: Path, content: object, **options: Any) -> Path:
    torch.save(content, path, **options)
    return path


def tensors(path: Path, state: dict[str, Tensor], **metadata: str) -> Path:
    save_file({key: tensor.contiguous() for key, tensor in state.items()}, path, metadata=metadata)
    return path


def test_every_form_of_one_net_is_read_alike(tmp_path: Path) -> None:
    state = golden()
    (tmp_path / "folder").mkdir()
    forms = [
        STAGE1,
        saved(tmp_path / "flat.pt", state),
        saved(tmp_path / "old.pth", state, _use_new_zipfile_serialization=False),
        saved(tmp_path / "wrapped.ckpt", {f"module.{key}": tensor for key, tensor in state.items()}),
        saved(tmp_path / "inside.pt", {"model": {f"_orig_mod.{key}": tensor for key, tensor in state.items()}}),
        training_checkpoint(tmp_path / "training.pt", state),
        saved(tmp_path / "folder/one.pt", state).parent,
    ]
    for form in forms:
        assert same(found(form).checkpoint.tensors, state), form


def test_heads_are_those_that_the_checkpoint_tells(tmp_path: Path) -> None:
    assert found(STAGE1).checkpoint.heads == 4  # its metadata
    assert found(saved(tmp_path / "flat.pt", golden())).checkpoint.heads is None
    with pytest.raises(CheckpointError, match=r"x.safetensors: heads: found 'four', expected a whole number"):
        found(tensors(tmp_path / "x.safetensors", golden(), heads="four"))


def test_shapes_say_what_a_net_is(tmp_path: Path) -> None:
    first, second = found(STAGE1).anatomy, found(SR).anatomy
    assert (first.width, first.depth, first.patch, first.size) == (48, 2, 2, 64)
    assert (first.seen, first.answered, first.classes, first.stage(None)) == (4, 8, 0, Stage.COARSE)
    assert (second.seen, second.answered, second.stage(None)) == (8, 8, Stage.REFINE)
    labelled = found(saved(tmp_path / "labelled.pt", labelled_net().state_dict())).anatomy
    assert (labelled.classes, labelled.size, labelled.latent()) == (5, 16, True)


@pytest.mark.parametrize(
    ("seen", "answered", "channels", "stage", "latent"),
    [
        (4, 4, None, Stage.COARSE, True),
        (4, 8, None, Stage.COARSE, True),
        (8, 4, None, Stage.REFINE, True),
        (8, 8, None, Stage.REFINE, True),
        (8, 8, 8, Stage.COARSE, True),  # the autoencoder decides
        (3, 3, None, Stage.COARSE, False),
        (3, 6, None, Stage.COARSE, False),
        (6, 3, None, Stage.REFINE, False),
        (6, 6, None, Stage.REFINE, False),
        (1, 2, None, Stage.COARSE, False),
        (2, 2, None, Stage.REFINE, False),
        (16, 16, None, Stage.COARSE, True),
        (16, 32, None, Stage.COARSE, True),
        (32, 32, 16, Stage.REFINE, True),
    ],
)
def test_channels_say_the_stage(seen: int, answered: int, channels: int | None, stage: Stage, latent: bool) -> None:
    from models.checkpoint.anatomy import Anatomy

    anatomy = Anatomy(8, 1, 2, 8, seen, answered, 0, Table(Kind.OTHER))
    assert (anatomy.stage(channels), anatomy.latent()) == (stage, latent)


def axis(positions: Tensor, width: int) -> Tensor:
    """Sines and cosines of positions (T,) -> (T, width)."""
    angles = positions[:, None] * 10_000.0 ** -(torch.arange(width // 2) / (width / 2))
    return torch.cat([angles.sin(), angles.cos()], dim=1)


def table_3d(*, grid: int, small: int, order: Order) -> Tensor:
    """(frame, row, column) features, 16 each, for grid x grid frames of small x small tokens."""
    frame, row, column = torch.meshgrid(*(torch.arange(n) for n in (grid**2, small, small)), indexing="ij")
    if order is Order.RASTER:
        frame, row, column = (
            a.reshape(grid, grid, small, small).transpose(1, 2).reshape(-1) for a in (frame, row, column)
        )
    return torch.cat([axis(a.reshape(-1).float(), 16) for a in (frame, row, column)], dim=1)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_a_positional_table_is_told_by_its_axes(dtype: torch.dtype) -> None:
    assert tables.kind(sincos_2d(48, 32).to(dtype)) == Table(Kind.PLANE)
    for grid, order in ((2, Order.RASTER), (4, Order.FRAMES), (4, Order.RASTER), (3, Order.FRAMES)):
        table = table_3d(grid=grid, small=5, order=order).to(dtype)
        assert tables.kind(table) == Table(Kind.FRAMES, grid, order)
        assert tables.kind(table + 0.05 * sincos_2d(48, grid * 5).to(dtype)) == Table(Kind.OTHER)
    rows_first = sincos_2d(48, 32).reshape(32, 32, 48).transpose(0, 1).reshape(-1, 48)
    assert tables.kind(rows_first.to(dtype)) == Table(Kind.OTHER)
    assert tables.kind(torch.randn(64, 48, generator=torch.Generator().manual_seed(0)).to(dtype)) == Table(Kind.OTHER)


def test_the_released_recipes_tables_are_told_apart() -> None:
    assert str(found(STAGE1).anatomy.table) == "3-D, 4 x 4 frames counted frame by frame"
    assert str(found(SR).anatomy.table) == "2-D"


class Bomb:
    """Makes a folder when it is unpickled as pickles are."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[object, ...]:
        return os.mkdir, (str(self.target),)


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("where", ["alone", "beside", "within"])
def test_a_pickle_of_anything_else_is_refused_and_not_run(zipped: bool, where: str, tmp_path: Path) -> None:
    bomb = Bomb(tmp_path / "boom")
    content = {
        "alone": bomb,
        "beside": golden() | {"extra": bomb},
        "within": {"model": golden(), "args": Namespace(model=bomb)},
    }[where]
    file = saved(tmp_path / "evil.pt", content, _use_new_zipfile_serialization=zipped)
    with pytest.raises(PickleRefused, match=r"evil\.pt: found a pickle that asks for posix\.mkdir, expected tensors"):
        found(file)
    assert not bomb.target.exists()
    pickle.loads(pickle.dumps(bomb))
    assert bomb.target.exists()  # it is a bomb


def test_a_bare_pickle_is_refused_and_not_run(tmp_path: Path) -> None:
    bomb = Bomb(tmp_path / "boom")
    (tmp_path / "evil.ckpt").write_bytes(pickle.dumps(bomb))
    with pytest.raises(CheckpointError, match=r"evil\.ckpt: found"):
        found(tmp_path / "evil.ckpt")
    assert not bomb.target.exists()


def without(key: str) -> dict[str, Tensor]:
    return {name: tensor for name, tensor in golden().items() if name != key}


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.pt", b"", r"a\.pt: found no readable torch file \(EOFError\)"),
        ("a.pt", b"hello", r"a\.pt: found no readable torch file"),
        ("a.safetensors", STAGE1.read_bytes()[:-100], r"a\.safetensors: found no readable safetensors file"),
        ("a.safetensors", b"", r"a\.safetensors: found no readable safetensors file"),
        ("a.pt", [1, 2], r"a\.pt: found a list, expected a state dict"),
        ("a.pt", {1: torch.zeros(2)}, r"a\.pt: found a dict, expected a state dict"),
        ("a.pt", {"pos_embed": "text"}, r"found a str as 'pos_embed', expected a state dict of tensors"),
        ("a.pt", {"pos_embed": torch.zeros(2, dtype=torch.int8)}, r"found 'pos_embed' in torch.int8, torch.strided"),
        ("a.pt", {"ema": {}}, r"a\.pt: found no tensor x_embedder.proj.weight, expected the state dict of a DiT"),
        ("a.pt", {"conv.weight": torch.zeros(2)}, r"its tensors: conv\.weight"),
        ("a.pt", without("pos_embed"), r"found no tensor pos_embed, expected the state dict of a DiT"),
        ("a.pt", golden() | {"pos_embed": torch.zeros(1, 1000, 48)}, r"found 1000 tokens, expected a square number"),
    ],
)
def test_what_is_no_net_is_refused(name: str, content: object, message: str, tmp_path: Path) -> None:
    file = tmp_path / name
    if isinstance(content, bytes):
        file.write_bytes(content)
    else:
        torch.save(content, file)
    with pytest.raises(CheckpointError, match=message):
        found(file)


def test_a_truncated_pickle_is_refused(tmp_path: Path) -> None:
    file = saved(tmp_path / "a.pt", golden())
    file.write_bytes(file.read_bytes()[:-500])
    with pytest.raises(CheckpointError, match=r"a\.pt: found no readable torch file .*; copy it again"):
        found(file)


def test_a_folder_is_not_guessed_about(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"found no checkpoint, expected one checkpoint"):
        found(tmp_path)
    first, second = (saved(tmp_path / name, pixel_net(stage=Stage.COARSE).state_dict()) for name in ("a.pt", "b.pt"))
    with pytest.raises(CheckpointError, match=r"found 2 checkpoints.*--file NAME.*: a\.pt, b\.pt"):
        found(tmp_path)
    assert found(tmp_path, file="b.pt").place.files == (second,)
    assert found(first).place.files == (first,)
    with pytest.raises(CheckpointError, match=r"found no file 'c\.pt'"):
        found(tmp_path, file="c.pt")


@pytest.mark.parametrize("source", ["no/such/path.pt", "./none", "none", "/none/at/all"])
def test_a_source_that_is_nowhere_is_refused(source: str) -> None:
    with pytest.raises(CheckpointError, match=r"found no such path, expected a file, a folder, or an id on the hub"):
        found(Path(source))
