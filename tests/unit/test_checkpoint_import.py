"""Bundles made from published weights: what they say, what is refused, and that nothing half-made is left."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from models import bundle as bundles
from models.bundle import Bundle, BundleError
from models.checkpoint import importing
from models.checkpoint.assembly import Wishes
from models.checkpoint.errors import CheckpointError
from models.checkpoint.hub import Hub
from models.checkpoint.importing import Sources
from models.checkpoint.layout import Part
from models.checkpoint.places import Wanted
from models.nn.dit import DiT
from models.presets import net_spec
from models.spec import Codec, KnownRows, Mode, Prediction, ScheduleName, Stage
from tests.published import SR, STAGE1, golden, labelled_net, pixel_net, save_pipeline, save_vae, training_checkpoint

pytest.importorskip("diffusers")

NOWHERE = Hub(endpoint="http://127.0.0.1:1")


@pytest.fixture(scope="module")
def vae(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_vae(tmp_path_factory.mktemp("made") / "vae")


def imported(to: Path, source: Path, *, refine: Path | None = None, vae: Path | None = None, **wishes: Any) -> Bundle:
    sources = Sources(
        Wanted(str(source)),
        Wanted(str(refine)) if refine else None,
        Wanted(str(vae), Part.AUTOENCODER) if vae else None,
    )
    return importing.import_bundle(sources, to, wishes=Wishes(**wishes), hub=NOWHERE)


def refused(to: Path, *given: Path, match: str, **wishes: Any) -> None:
    """The import is refused, and leaves nothing at all."""
    to.parent.mkdir(exist_ok=True)
    before = sorted(to.parent.iterdir())
    with pytest.raises((CheckpointError, BundleError), match=match):
        imported(to, *given, **wishes)
    assert sorted(to.parent.iterdir()) == before


def pixels(path: Path, *, stage: Stage = Stage.COARSE, size: int = 16) -> Path:
    torch.save(pixel_net(stage=stage, size=size).state_dict(), path)
    return path


def test_the_published_nets_make_a_bundle_as_they_are(vae: Path, tmp_path: Path) -> None:
    made = imported(tmp_path / "b", training_checkpoint(tmp_path / "sky.pt", golden()), refine=SR, vae=vae, heads=4)
    spec = bundles.load(tmp_path / "b").spec
    assert spec == made.spec
    assert (spec.name, spec.grid, spec.coarse_size, spec.refined_size, spec.channels) == ("sky", 4, 32, 128, 3)
    assert (spec.known_rows, spec.overlap_rows) == (KnownRows.REPLACEMENT, 3)
    assert spec.modes == (Mode.SOUND, Mode.OFFICIAL)
    assert all(net.ancestral and net.time_scale == 1 and net.heads == 4 for net in spec.nets.values())
    for stage, file in ((Stage.COARSE, STAGE1), (Stage.REFINE, SR)):
        stored = made.state_dict(stage)
        assert all(torch.equal(stored[key], tensor) for key, tensor in golden(file).items())  # the table among them
    assert spec.source["coarse"] == {
        "from": "sky.pt",
        "files": ["sky.pt"],
        "form": "pickle, 'ema' of args, ema, model, opt",
        "positional_table": "3-D, 4 x 4 frames counted frame by frame",
    }


@torch.inference_mode()
def test_the_bundles_autoencoder_is_the_one_given(vae: Path, tmp_path: Path) -> None:
    from diffusers import AutoencoderKL

    made = imported(tmp_path / "b", STAGE1, vae=vae)
    theirs: Any = AutoencoderKL.from_pretrained(vae, local_files_only=True)
    latents = torch.randn(1, 4, 4, 4, generator=torch.Generator().manual_seed(0))
    assert torch.equal(made.codec(Codec.DECODER)(latents), theirs.decode(latents).sample)
    assert made.spec.autoencoder is not None
    assert (made.spec.downsample, made.spec.net_channels, made.spec.autoencoder.scale) == (2, 4, 0.18215)


def test_without_refinement_the_coarse_frames_are_the_result(vae: Path, tmp_path: Path) -> None:
    spec = imported(tmp_path / "b", STAGE1, vae=vae).spec
    assert spec.stages == (Stage.COARSE,)
    assert spec.coarse_size == spec.refined_size == 32


def test_a_pipeline_brings_its_autoencoder_and_labels(tmp_path: Path) -> None:
    spec = imported(tmp_path / "b", save_pipeline(tmp_path / "dit")).spec
    assert spec.classes == ("tench", "crane", "crane (2)", "hen", "ostrich")
    assert (spec.coarse_size, spec.defaults.guidance_scale) == (8, 4)
    assert spec.autoencoder is not None


def test_pixel_nets_need_no_autoencoder(tmp_path: Path) -> None:
    fine = pixels(tmp_path / "fine.pt", stage=Stage.REFINE, size=32)
    spec = imported(tmp_path / "b", pixels(tmp_path / "net.pt"), refine=fine, heads=4, prediction=Prediction.V).spec
    assert (spec.autoencoder, spec.coarse_size, spec.refined_size, spec.channels) == (None, 4, 32, 3)
    assert {net.prediction for net in spec.nets.values()} == {Prediction.V}
    assert spec.modes == (Mode.SOUND,)


def test_labels_are_named_by_a_file(vae: Path, tmp_path: Path) -> None:
    torch.save(labelled_net().state_dict(), tmp_path / "net.pt")
    for text in (
        "a\nb\nc\n\nd\ne\n",
        '["a", "b", "c", "d", "e"]',
        '{"4": "e", "0": "a", "1": "b", "2": "c", "3": "d"}',
    ):
        (tmp_path / "names").write_text(text)
        made = imported(tmp_path / f"b{len(text)}", tmp_path / "net.pt", vae=vae, heads=4, classes=tmp_path / "names")
        assert made.spec.classes == tuple("abcde")
    plain = imported(tmp_path / "plain", tmp_path / "net.pt", vae=vae, heads=4).spec
    assert plain.classes == tuple(f"class-{n}" for n in range(5))
    (tmp_path / "names").write_text("a\nb\n")
    wishes = {"vae": vae, "heads": 4, "classes": tmp_path / "names"}
    refused(
        tmp_path / "new/b", tmp_path / "net.pt", match=r"names: found 2 names, expected 5; one name a label", **wishes
    )


def test_precision_is_kept_unless_told(tmp_path: Path) -> None:
    sources = Sources(Wanted(str(pixels(tmp_path / "net.pt"))))
    for name, dtype, expected in (("kept", None, torch.float32), ("half", torch.float16, torch.float16)):
        made = importing.import_bundle(sources, tmp_path / name, wishes=Wishes(heads=4), dtype=dtype, hub=NOWHERE)
        assert {tensor.dtype for tensor in made.state_dict(Stage.COARSE).values()} == {expected}


def test_licences_are_those_of_the_cards(vae: Path, tmp_path: Path) -> None:
    folder = tmp_path / "net"
    folder.mkdir()
    pixels(folder / "net.pt")
    assert imported(tmp_path / "b1", folder, heads=4).spec.license == "unknown"
    (folder / "README.md").write_text("---\ntags:\n- x\nlicense: cc-by-nc-4.0\n---\n# Net\nlicense: mine\n")
    assert imported(tmp_path / "b2", folder, heads=4).spec.license == "cc-by-nc-4.0"
    (folder / "README.md").write_text("---\nlicense: other\nlicense_name: 'my own'\n---\n")
    assert imported(tmp_path / "b3", folder, heads=4).spec.license == "my own"
    for index, (front, expected) in enumerate(
        {
            "license:\n- mit": "mit",
            "license: # none\nlanguage: en": "unknown",
            "license:\nlanguage: en": "unknown",
            'license: "apache-2.0"': "apache-2.0",
            "license: other": "unknown",
        }.items()
    ):
        (folder / "README.md").write_text(f"---\n{front}\n---\n")
        assert imported(tmp_path / f"card{index}", folder, heads=4).spec.license == expected, front
    assert imported(tmp_path / "b4", folder, heads=4, license="MIT").spec.license == "MIT"
    assert imported(tmp_path / "b5", STAGE1, vae=vae).spec.license == "unknown"


def test_a_preset_tells_the_heads(tmp_path: Path) -> None:
    small = net_spec("DiT-S/2", stage=Stage.COARSE, frame_size=4)
    with torch.device("meta"):
        shapes = {key: tensor.shape for key, tensor in DiT(small).state_dict().items()}
    torch.save({key: torch.zeros(shape) for key, shape in shapes.items()}, tmp_path / "s.pt")
    assert imported(tmp_path / "b", tmp_path / "s.pt").spec.nets[Stage.COARSE].heads == 6


@pytest.mark.parametrize(
    ("wishes", "match"),
    [
        ({}, r"net\.pt: width/depth: found 32/2, expected those of a preset \(DiT-S 384/12, .*--heads N"),
        ({"heads": 5}, r"net\.pt: found 5 heads, expected a divisor of its width 32; correct --heads"),
        ({"heads": 4, "grid": 3}, r"grid: found 3 x 3 frames in 8 x 8 patches.*--grid 2 or 4 or 8"),
        ({"heads": 4, "overlap_rows": 4}, r"overlap_rows 4 must be less than grid 4"),
        ({"heads": 4, "schedule": ScheduleName.FLOW}, r"--prediction: found epsilon, expected v, x or flow"),
    ],
)
def test_what_shapes_do_not_tell_is_asked_for(wishes: dict[str, Any], match: str, tmp_path: Path) -> None:
    refused(tmp_path / "new/b", pixels(tmp_path / "net.pt"), match=match, **wishes)


def test_parts_that_do_not_belong_together_are_refused(vae: Path, tmp_path: Path) -> None:
    to = tmp_path / "new/b"
    coarse, fine = pixels(tmp_path / "coarse.pt"), pixels(tmp_path / "fine.pt", stage=Stage.REFINE)
    refused(
        to, STAGE1, match=r"found a net that draws 4 channels, which are latents, .*--vae stabilityai/sd-vae-ft-mse"
    )
    refused(to, coarse, vae=vae, heads=4, match=r"vae: found 4 latent channels, expected the 3 .*this net draws pixels")
    refused(to, fine, heads=4, match=r"fine\.pt: found a net that refines.*expected one that draws from noise alone")
    refused(to, coarse, refine=coarse, heads=4, match=r"coarse\.pt: found a net that draws from noise alone")
    torch.save(labelled_net(in_channels=8).state_dict(), tmp_path / "labelled.pt")
    more = {**labelled_net().state_dict(), "y_embedder.embedding_table.weight": torch.zeros(8, 32)}
    torch.save(more, tmp_path / "more.pt")
    given = {"refine": tmp_path / "labelled.pt", "vae": vae, "heads": 4}
    refused(to, tmp_path / "more.pt", match=r"--refine: found 5 and 7 classes", **given)


@pytest.mark.parametrize(
    ("changes", "wishes", "match"),
    [
        (
            {"scaling_factor": 0.13025},
            {},
            r"scaling_factor: found 0\.13025, expected 0\.18215.*--latent-scale 0\.13025",
        ),
        ({"latent_channels": 8}, {}, r"found 8 latent channels, expected the 4 that stage1\.safetensors draws"),
        ({"latents_mean": [0.0] * 4}, {}, r"latents_mean: found a value per channel, expected none"),
        ({"latent_channels": 3}, {}, r"found 3 latent channels, expected the 4 that .* draws; name the autoencoder"),
    ],
)
def test_an_autoencoder_that_disagrees_is_refused(
    changes: dict[str, Any], wishes: dict[str, Any], match: str, tmp_path: Path
) -> None:
    refused(tmp_path / "new/b", STAGE1, vae=save_vae(tmp_path / "vae", **changes), match=match, **wishes)


def test_another_scale_is_taken_when_told(tmp_path: Path) -> None:
    odd = save_vae(tmp_path / "vae", scaling_factor=0.5, shift_factor=0.25)
    spec = imported(tmp_path / "b", STAGE1, vae=odd, latent_scale=0.5).spec
    assert spec.autoencoder is not None
    assert (spec.autoencoder.scale, spec.autoencoder.shift) == (0.5, 0.25)


def test_autoencoders_that_are_none_are_refused(vae: Path, tmp_path: Path) -> None:
    to, weights = tmp_path / "new/b", "diffusion_pytorch_model.safetensors"
    (tmp_path / "empty").mkdir()
    refused(to, STAGE1, vae=tmp_path / "empty", match=r"empty: found no autoencoder, expected a folder by diffusers")
    refused(to, STAGE1, vae=SR, match=r"sr\.safetensors: found no autoencoder")
    refused(to, STAGE1, vae=vae / "none", match=r"found no such path")
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / weights).write_bytes((vae / weights).read_bytes())
    for content, match in (
        ("{", r"config\.json: found no JSON object"),
        ('{"_class_name": "VQModel"}', r"_class_name: found 'VQModel', expected 'AutoencoderKL'"),
        ('{"_class_name": "AutoencoderKL"}', r"block_out_channels: found None"),
    ):
        (broken / "config.json").write_text(content)
        refused(to, STAGE1, vae=broken, match=match)
    config = json.loads((vae / "config.json").read_text())
    for changes, match in (
        ({"block_out_channels": [8, 32]}, r"not \(32,.*expected the 124 tensors of its config"),
        ({"down_block_types": ["X", "Y"]}, r"broken: found a config that builds nothing"),
    ):
        (broken / "config.json").write_text(json.dumps(config | changes))
        refused(to, STAGE1, vae=broken, match=match)
    (broken / "config.json").write_text(json.dumps(config))
    (broken / weights).write_bytes((vae / weights).read_bytes()[:-9])
    refused(to, STAGE1, vae=broken, match=r"found no readable safetensors file")


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"blocks.1.mlp.fc1.bias": None}, r"blocks\.1\.mlp\.fc1\.bias missing, not \(192,\)"),
        ({"blocks.1.extra": torch.zeros(3)}, r"blocks\.1\.extra \(3,\), not there, expected the 31 tensors of a DiT"),
        ({"final_layer.linear.weight": torch.zeros(20, 48)}, r"found 5 channels drawn from 4"),
        ({"t_embedder.mlp.0.weight": torch.zeros(48, 128)}, r"\(48, 128\), not \(48, 256\)"),
        ({"blocks.999.attn.proj.bias": torch.zeros(48)}, r"net\.safetensors: found depth .*128, expected a DiT"),
    ],
)
def test_shapes_that_are_no_plain_dit_are_refused(
    change: dict[str, Any], match: str, vae: Path, tmp_path: Path
) -> None:
    state = {key: tensor for key, tensor in (golden() | change).items() if tensor is not None}
    save_file(state, tmp_path / "net.safetensors", metadata={"heads": "4"})
    refused(tmp_path / "new/b", tmp_path / "net.safetensors", vae=vae, match=match)


def test_what_is_there_is_never_replaced(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/thesis.txt").write_text("years of work")
    with pytest.raises(CheckpointError, match=r"mine: found something there, expected a new folder"):
        imported(tmp_path / "mine", pixels(tmp_path / "net.pt"), heads=4)
    assert (tmp_path / "mine/thesis.txt").read_text() == "years of work"


def test_an_import_that_fails_while_it_writes_leaves_nothing(vae: Path, tmp_path: Path) -> None:
    folder = tmp_path / "vae"
    folder.mkdir()
    file = "diffusion_pytorch_model.safetensors"
    (folder / "config.json").write_text((vae / "config.json").read_text())
    broken = load_file(vae / file)
    broken["decoder.conv_in.bias"][0] = torch.nan
    save_file(broken, folder / file)
    refused(
        tmp_path / "new/b", STAGE1, vae=folder, match=r"autoencoder\.safetensors: decoder\.conv_in\.bias: found no num"
    )


def test_a_killed_import_leaves_no_bundle_and_the_next_one_cleans_up(tmp_path: Path) -> None:
    source, to = tmp_path / "net.pt", tmp_path / "new/b"
    wide = net_spec("DiT-S/2", stage=Stage.COARSE, frame_size=4).model_copy(update={"depth": 6})
    torch.save(DiT(wide).state_dict(), source)
    code = "import sys; from service import cli; sys.exit(cli.run(sys.argv[1:]))"
    arguments = [sys.executable, "-c", code, "import", str(source), "--heads", "6", "--to", str(to)]
    with subprocess.Popen(arguments, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        while process.poll() is None and not list(tmp_path.glob("new/.b.new.*/coarse.safetensors")):
            time.sleep(0.001)
        process.kill()
    if to.exists():  # the kill came too late
        shutil.rmtree(bundles.load(to).path)
    else:
        assert [path.name for path in to.parent.iterdir()] == [f".b.new.{process.pid}"]
    mine = to.parent / f".b.new.{os.getppid()}"  # a writer that lives
    mine.mkdir()
    imported(to, source, heads=6)
    assert sorted(path.name for path in to.parent.iterdir()) == sorted([mine.name, "b"])
