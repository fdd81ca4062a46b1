"""A bundle round-trips, and each way of corrupting one has an error that names the place and the remedy."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from models import bundle as bundles
from models.bundle import Bundle, BundleError
from models.nn.dit import DiT
from models.spec import Stage
from tests.tiny import awake, tiny_net, tiny_spec
from workers.contracts.settings import SHIPPED_BUNDLE

COARSE = "coarse.safetensors"


@pytest.fixture
def nets() -> dict[Stage, DiT]:
    return {stage: awake(DiT(tiny_net(stage=stage)), seed=seed) for seed, stage in enumerate(Stage)}


@pytest.fixture
def written(tmp_path: Path, nets: dict[Stage, DiT]) -> Bundle:
    tensors = {stage: net.state_dict() for stage, net in nets.items()}
    return bundles.write(tmp_path / "tiny", spec=tiny_spec(), nets=tensors)


def test_what_is_written_is_loaded(written: Bundle, nets: dict[Stage, DiT]) -> None:
    loaded = bundles.load(written.path)
    assert loaded == written
    assert bundles.read_spec(written.path) == written.spec
    assert loaded.spec.nets[Stage.COARSE].sha256 != tiny_spec().nets[Stage.COARSE].sha256
    for stage, net in nets.items():
        for key, tensor in loaded.net(stage).state_dict().items():
            assert tensor.dtype == torch.float32
            torch.testing.assert_close(tensor, net.state_dict()[key].half().float(), rtol=0, atol=0)


def test_a_net_answers_as_its_stored_weights_say(written: Bundle, nets: dict[Stage, DiT]) -> None:
    net = written.net(Stage.COARSE)
    assert not net.training
    x, times, labels = torch.randn(2, 3, 16, 16), torch.tensor([10.0, 500.0]), torch.tensor([0, 2])
    expected = nets[Stage.COARSE].half().float()(x, times, labels)
    torch.testing.assert_close(net(x, times, labels), expected, rtol=0, atol=0)


def test_the_hash_covers_what_is_drawn_and_nothing_else(written: Bundle) -> None:
    spec = written.spec
    assert bundles.hash_of(spec.model_copy(update={"description": "other", "gate": {"passed": True}})) == written.hash
    assert bundles.hash_of(spec.model_copy(update={"overlap_rows": 1})) != written.hash
    annotated = bundles.annotate(written, gate={"passed": True})
    assert bundles.load(written.path) == annotated
    assert (annotated.hash, annotated.spec.gate) == (written.hash, {"passed": True})


def test_writing_replaces_the_old_bundle_and_leaves_nothing_aside(written: Bundle, nets: dict[Stage, DiT]) -> None:
    other = {stage: awake(net, seed=9).state_dict() for stage, net in nets.items()}
    replaced = bundles.write(written.path, spec=tiny_spec(), nets=other)
    assert bundles.load(written.path).hash == replaced.hash != written.hash
    assert [path.name for path in written.path.parent.iterdir()] == ["tiny"]


def test_weights_that_the_precision_cannot_hold_are_refused(tmp_path: Path, nets: dict[Stage, DiT]) -> None:
    tensors = {stage: dict(net.state_dict()) for stage, net in nets.items()}
    tensors[Stage.REFINE]["pos_embed"] = tensors[Stage.REFINE]["pos_embed"] * 1e9
    with pytest.raises(BundleError, match=r"refine.safetensors: pos_embed: found values that torch.float16 cannot"):
        bundles.write(tmp_path / "tiny", spec=tiny_spec(), nets=tensors)
    assert list(tmp_path.iterdir()) == []


def _edit(path: Path, **fields: object) -> None:
    file = path / bundles.FILE
    file.write_text(json.dumps(json.loads(file.read_text()) | fields))


def _drop(path: Path, field: str) -> None:
    file = path / bundles.FILE
    content = json.loads(file.read_text())
    del content[field]
    file.write_text(json.dumps(content))


def _retensor(path: Path, change: Callable[[dict[str, Tensor]], object]) -> None:
    tensors = load_file(path / COARSE)
    change(tensors)
    save_file(tensors, path / COARSE)


def _damage(path: Path) -> None:
    content = bytearray((path / COARSE).read_bytes())
    content[-1] ^= 1
    (path / COARSE).write_bytes(content)


CORRUPTIONS: dict[str, tuple[Callable[[Path], object], str]] = {
    "no spec": (
        lambda p: (p / bundles.FILE).unlink(),
        "bundle.json: found no such file, expected a bundle's directory",
    ),
    "no JSON": (lambda p: (p / bundles.FILE).write_text("{"), "bundle.json: found no JSON object"),
    "JSON of another kind": (lambda p: (p / bundles.FILE).write_text("[1]"), "expected a JSON object"),
    "field missing": (lambda p: _drop(p, "license"), "bundle.json: license: found nothing, expected Field required"),
    "field unknown": (lambda p: _edit(p, colour=3), "bundle.json: colour: found 3, expected Extra inputs"),
    "field of a wrong type": (lambda p: _edit(p, grid="four"), "bundle.json: grid: found 'four', expected Input"),
    "format of another time": (lambda p: _edit(p, format=9), "format 9 is not readable here"),
    "field edited": (lambda p: _edit(p, overlap_rows=1), "bundle.json: hash: found "),
    "hash missing": (lambda p: _drop(p, "hash"), "bundle.json: hash: found nothing, expected "),
    "hash of another": (lambda p: _edit(p, hash="0" * 64), f"bundle.json: hash: found {'0' * 64}, expected "),
    "weights missing": (lambda p: (p / COARSE).unlink(), f"{COARSE}: found no such file, expected the weights"),
    "weights damaged": (_damage, f"{COARSE}: sha256: found "),
    "weights of another kind": (lambda p: (p / COARSE).write_bytes(b"{}"), f"{COARSE}: found no safetensors file"),
    "tensor missing": (
        lambda p: _retensor(p, lambda tensors: tensors.pop("pos_embed")),
        f"{COARSE}: pos_embed: found no such tensor, expected shape (1, 64, 32)",
    ),
    "tensor unknown": (
        lambda p: _retensor(p, lambda tensors: tensors.update(extra=torch.zeros(2))),
        f"{COARSE}: extra: found shape (2,), expected no such tensor",
    ),
    "tensor mis-shaped": (
        lambda p: _retensor(p, lambda tensors: tensors.update(pos_embed=torch.zeros(1, 4, 32))),
        f"{COARSE}: pos_embed: found shape (1, 4, 32), expected shape (1, 64, 32)",
    ),
}


@pytest.mark.parametrize("corruption", CORRUPTIONS)
def test_a_corrupt_bundle_says_what_is_wrong_and_what_to_do(written: Bundle, corruption: str) -> None:
    corrupt, message = CORRUPTIONS[corruption]
    corrupt(written.path)
    with pytest.raises(BundleError) as caught:
        bundles.load(written.path)
    assert message in str(caught.value)
    assert str(written.path) in str(caught.value)
    assert all(problem.remedy for problem in caught.value.problems)


def test_every_bad_tensor_is_named_at_once(written: Bundle) -> None:
    _retensor(written.path, lambda tensors: [tensors.pop("pos_embed"), tensors.pop("final_layer.linear.bias")])
    with pytest.raises(BundleError) as caught:
        bundles.load(written.path)
    named = {problem.where for problem in caught.value.problems}
    assert named == {f"{COARSE}: {key}" for key in ("pos_embed", "final_layer.linear.bias", "sha256")}


def test_loading_a_bundle_does_not_load_torchs_compiler() -> None:
    """Which would take a second of every worker's start."""
    code = (
        "import sys; from pathlib import Path; from models import bundle, spec;"
        f"bundle.load(Path({str(SHIPPED_BUNDLE)!r})).net(spec.Stage.COARSE);"
        "assert not {'torch._dynamo', 'sympy'} & sys.modules.keys()"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)
