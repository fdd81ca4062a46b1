"""diffusers' DiT as an oracle: its weights, read here, draw what it draws."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from models.checkpoint import anatomy, parts
from models.checkpoint.anatomy import Told
from models.checkpoint.errors import CheckpointError
from models.checkpoint.hub import Hub
from models.checkpoint.parts import Net
from models.checkpoint.places import Wanted
from models.nn.dit import DiT
from models.spec import Dialect, Stage
from tests.published import diffusers_net, save_pipeline

pytest.importorskip("diffusers")


@pytest.fixture(scope="module")
def theirs() -> Any:
    return diffusers_net()


@pytest.fixture(scope="module")
def folder(theirs: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("diffusers")
    theirs.save_pretrained(path)
    return path


def found(folder: Path) -> Net:
    return parts.find_net(Wanted(str(folder)), hub=Hub())


def drawn(net: Net, x: Tensor, t: Tensor, label: Tensor, **changes: object) -> Tensor:
    """By our net, computed in the type of `x`."""
    spec = anatomy.net_spec(net.checkpoint, anatomy=net.anatomy, told=Told(), stage=Stage.COARSE)
    ours = DiT(spec.model_copy(update=changes)).eval()
    ours.load_state_dict(dict(net.checkpoint.tensors), strict=True)
    out: Tensor = ours.to(x.dtype)(x, t, label)
    return out


def relative(ours: Tensor, theirs: Tensor) -> float:
    return float((ours - theirs).abs().max() / theirs.abs().max())


@torch.inference_mode()
def test_our_forward_is_theirs(theirs: Any, folder: Path) -> None:
    x = torch.randn(6, 4, 16, 16, generator=torch.Generator().manual_seed(1))
    t, label = torch.tensor([0, 1, 250, 500, 998, 999]), torch.tensor([0, 1, 2, 3, 4, 5])  # 5: the null label
    expected = theirs(x, timestep=t, class_labels=label).sample
    net = found(folder)
    assert float(expected.std()) > 0.1
    assert relative(drawn(net, x, t.float(), label), expected) <= 1e-5
    assert relative(drawn(net, x, t.float(), label.roll(1)), expected) > 1e-2  # the labels matter
    exact = copy.deepcopy(theirs).double()(x.double(), timestep=t, class_labels=label).sample
    assert relative(drawn(net, x.double(), t.float(), label), exact) <= 1e-12  # so the norms' eps are theirs too
    published = drawn(net, x, t.float(), label, dialect=Dialect.PUBLISHED)
    assert relative(published, expected) > 1e-3  # and so does whose arithmetic it is


def test_what_is_read_off_their_folder(folder: Path, theirs: Any) -> None:
    net = found(folder)
    assert net.checkpoint.heads == 4
    assert net.checkpoint.dialect is Dialect.DIFFUSERS
    assert str(net.anatomy.table) == "2-D"
    assert (net.anatomy.classes, net.anatomy.size, net.anatomy.stage(None)) == (5, 16, Stage.COARSE)
    assert torch.equal(net.checkpoint.tensors["pos_embed"], theirs.pos_embed.pos_embed)


@pytest.mark.parametrize("form", [{"safe_serialization": False}, {"max_shard_size": "20KB"}, {"variant": "fp16"}])
def test_each_way_that_they_save(form: dict[str, Any], theirs: Any, folder: Path, tmp_path: Path) -> None:
    theirs.save_pretrained(tmp_path, **form)
    if "max_shard_size" in form:
        assert len(list(tmp_path.glob("*-of-*.safetensors"))) > 2
    ours, expected = found(tmp_path).checkpoint.tensors, found(folder).checkpoint.tensors
    assert ours.keys() == expected.keys()
    assert all(torch.equal(ours[key], expected[key]) for key in ours)


def test_a_pipeline_has_the_net_and_its_labels(tmp_path: Path, folder: Path) -> None:
    net = found(save_pipeline(tmp_path / "pipeline"))
    assert net.checkpoint.classes == ("tench", "crane", "crane", "hen", "ostrich")
    assert net.place.layout.config == "transformer/config.json"
    assert torch.equal(net.checkpoint.tensors["pos_embed"], found(folder).checkpoint.tensors["pos_embed"])
    weights = tmp_path / "pipeline/transformer/diffusion_pytorch_model.safetensors"
    direct = found(weights)
    assert direct.checkpoint.tensors.keys() == net.checkpoint.tensors.keys()


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("_class_name", "PixArtTransformer2DModel"),
        ("norm_type", "ada_norm_single"),
        ("activation_fn", "geglu"),
        ("norm_eps", 1e-6),
        ("sample_size", "16"),
    ],
)
def test_another_net_than_dit_is_refused(field: str, value: object, theirs: Any, tmp_path: Path) -> None:
    theirs.save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {field: value}))
    with pytest.raises(CheckpointError, match=rf"{field}: found {value!r}, expected"):
        found(tmp_path)


def test_blocks_that_were_embedded_apart_are_refused(tmp_path: Path) -> None:
    net = diffusers_net()
    with torch.no_grad():
        net.transformer_blocks[1].norm1.emb.timestep_embedder.linear_2.bias[0] += 1
    net.save_pretrained(tmp_path)
    with pytest.raises(CheckpointError, match=r"blocks\.1\..*linear_2\.bias: found other values than in block 0"):
        found(tmp_path)


def test_a_config_that_is_no_object_is_refused(folder: Path, tmp_path: Path) -> None:
    weights = "diffusion_pytorch_model.safetensors"
    (tmp_path / weights).write_bytes((folder / weights).read_bytes())
    (tmp_path / "config.json").write_text("[]")
    with pytest.raises(CheckpointError, match=r"config\.json: found no JSON object"):
        found(tmp_path)
