"""The commands themselves: a tiny checkpoint of each published form is imported, looked at, sampled and refined.

The hub is a local mirror of it, over real HTTP.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import typer
from typer.testing import CliRunner, Result

from models import bundle as bundles
from models.checkpoint import importing, parts
from models.checkpoint.assembly import Wishes
from models.checkpoint.commands import app
from models.checkpoint.errors import CheckpointError, HubError
from models.checkpoint.hub import Hub
from models.checkpoint.importing import Sources
from models.checkpoint.layout import Part
from models.checkpoint.places import Wanted
from models.commands import app as sampling
from models.media import png
from models.spec import Stage
from tests.mirror import Mirror, serving
from tests.published import SR, STAGE1, golden, labelled_net, save_pipeline, save_vae, training_checkpoint

pytest.importorskip("diffusers")

GRIDIT, VAE = "snehalstomar/GriDiT", "stabilityai/sd-vae-ft-mse"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One folder with a tiny checkpoint in each published form."""
    folder = tmp_path_factory.mktemp("published")
    save_vae(folder / "vae")
    training_checkpoint(folder / "training.pt", golden())
    torch.save(labelled_net().state_dict(), folder / "vanilla.pt")
    torch.save(labelled_net(in_channels=8, size=32).state_dict(), folder / "vanilla-sr.pt")
    save_pipeline(folder / "pipeline")
    return folder


def call(application: typer.Typer, *arguments: object) -> Result:
    result = CliRunner().invoke(application, [str(argument) for argument in arguments], env={"COLUMNS": "160"})
    assert result.exit_code == 0, result.output
    return result


@pytest.mark.parametrize(
    ("source", "options", "refined", "count"),
    [
        ("{golden}/stage1.safetensors", ["--refine", "{golden}/sr.safetensors", "--vae", "{made}/vae"], 128, 2),
        ("{made}/training.pt", ["--refine", "{golden}/sr.safetensors", "--vae", "{made}/vae", "--heads", "4"], 128, 2),
        ("{made}/vanilla.pt", ["--refine", "{made}/vanilla-sr.pt", "--vae", "{made}/vae", "--heads", "4"], 64, 17),
        ("{made}/pipeline", ["--refine", "{made}/vanilla-sr.pt", "--heads", "4"], 64, 17),
    ],
)
def test_each_form_is_imported_sampled_and_refined(
    source: str, options: list[str], refined: int, count: int, made: Path, tmp_path: Path
) -> None:
    def at(text: str) -> str:
        return text.format(made=made, golden=STAGE1.parent)

    to, out = tmp_path / "bundle", tmp_path / "out"
    call(app, "import", at(source), "--to", to, *map(at, options))
    spec = bundles.load(to).spec
    label = ["--class", spec.classes[1]] if spec.classes else []
    steps = ["--coarse-steps", 2, "--refine-steps", 1]
    call(sampling, "sample", to, "--num-frames", count, *steps, *label, "--out", out)
    for stage, size in ((Stage.COARSE, spec.coarse_size), (Stage.REFINE, refined)):
        frames = [png.decode(file.read_bytes()) for file in sorted((out / stage).iterdir())]
        assert [frame.shape for frame in frames] == [(size, size, 3)] * count
        assert len({frame.tobytes() for frame in frames}) == count
        assert all(frame.std() > 1 for frame in frames)


def test_inspect_tells_what_is_in_a_bundle(made: Path, tmp_path: Path) -> None:
    told = call(app, "import", STAGE1, "--refine", SR, "--vae", made / "vae", "--to", tmp_path / "b").stdout
    again = call(app, "inspect", tmp_path / "b").stdout
    assert again.split()[1:] == told.split()[1:]  # but for the folder's name, it may be broken at other places
    facts = json.loads(call(app, "inspect", tmp_path / "b", "--json").stdout)
    assert facts["hash"] == bundles.load(tmp_path / "b").hash
    assert facts["license"] == "unknown"
    coarse, refine, vae = facts["nets"]["coarse"], facts["nets"]["refine"], facts["autoencoder"]
    assert (coarse["parameters"], coarse["tensors"], coarse["stored"]) == (155_888 - 576, 31, ["fp32"])
    assert coarse["positional_table"] == "3-D, 4 x 4 frames counted frame by frame"
    assert (refine["positional_table"], refine["source"]["from"]) == ("2-D", "sr.safetensors")
    assert (vae["tensors"], vae["scale"], vae["latent_channels"]) == (124, 0.18215, 4)
    for fact in ("0.16 M", "epsilon, learned variance", "replacement, 3 of 4 rows", "sound, official", "2-D"):
        assert fact in told, told


def test_inspect_looks_into_a_checkpoint_before_import() -> None:
    assert "4 x 4 frames counted frame by frame" in call(app, "inspect", STAGE1).stdout
    facts = json.loads(call(app, "inspect", SR, "--json").stdout)
    assert (facts["stage"], facts["in_channels"], facts["input_size"], facts["heads"]) == ("refine", 8, 64, 4)


def test_inspect_shows_the_gate_of_the_bundle_that_ships() -> None:
    from models.terminal import DEMO

    told = call(app, "inspect", DEMO).stdout
    assert "Gate:" in told
    assert "Apache-2.0" in told


@pytest.fixture
def mirror(made: Path, tmp_path: Path) -> Iterator[Mirror]:
    """The known repositories, with their published names and licences."""
    folder = tmp_path / "pushed"
    folder.mkdir()
    shutil.copy(made / "training.pt", folder / "GriDiT_stage1_sky_ckpt.pt")
    shutil.copy(SR, folder / "another.safetensors")
    (folder / "README.md").write_text("---\nlicense: cc-by-nc-4.0\n---\n# GriDiT\n")
    with serving() as running:
        running.push(GRIDIT, folder)
        running.push(VAE, made / "vae")
        yield running


def gridit(*arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "service.cli", *map(str, arguments)]
    own = {**os.environ, "COLUMNS": "160", "HF_HUB_DISABLE_PROGRESS_BARS": "1", **environment}
    return subprocess.run(command, capture_output=True, text=True, timeout=90, check=False, env=own)


def test_the_known_repositories_make_a_bundle(mirror: Mirror, tmp_path: Path) -> None:
    sources = Sources(Wanted(GRIDIT), autoencoder=Wanted(VAE, Part.AUTOENCODER))
    hub = Hub(endpoint=mirror.url, cache=tmp_path / "cache")
    spec = importing.import_bundle(sources, tmp_path / "b", wishes=Wishes(heads=4), hub=hub).spec
    coarse, vae = spec.source["coarse"], spec.source["autoencoder"]
    assert isinstance(coarse, dict)
    assert isinstance(vae, dict)
    commit = mirror.commit(GRIDIT, None)
    assert (coarse["from"], coarse["revision"], coarse["files"]) == (GRIDIT, commit, ["GriDiT_stage1_sky_ckpt.pt"])
    assert (vae["from"], vae["revision"]) == (VAE, mirror.commit(VAE, None))
    assert spec.name == "gridit"
    assert spec.license == "coarse: cc-by-nc-4.0; autoencoder: mit"
    assert not any("another.safetensors" in path for path in mirror.asked)  # only what is needed


def test_the_environment_says_which_hub_and_whether_to_ask_it(
    mirror: Mirror, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    environment = {"HF_HOME": str(tmp_path / "cache"), "HF_ENDPOINT": mirror.url}
    online = gridit("inspect", GRIDIT, "--json", **environment)
    assert json.loads(online.stdout)["revision"] == mirror.commit(GRIDIT, None), online.stderr
    asked, hub = len(mirror.asked), Hub(endpoint=mirror.url, cache=tmp_path / "cache/hub")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)  # which it reads when it is imported
    offline = parts.find_net(Wanted(GRIDIT), hub=hub)
    assert (offline.place.revision, len(mirror.asked)) == (mirror.commit(GRIDIT, None), asked)
    with pytest.raises(HubError, match=r"no/body: found nothing in the cache, and HF_HUB_OFFLINE is set"):
        parts.find_net(Wanted("no/body"), hub=hub)


def test_a_revision_is_pinned_to_its_commit(mirror: Mirror, tmp_path: Path) -> None:
    first = mirror.commit(GRIDIT, None)
    (tmp_path / "pushed/GriDiT_stage1_sky_ckpt.pt").unlink()
    (tmp_path / "pushed/new.txt").touch()
    second = mirror.push(GRIDIT, tmp_path / "pushed")
    hub = Hub(endpoint=mirror.url, cache=tmp_path / "cache")
    old = parts.find_net(Wanted(GRIDIT, revision=first), hub=hub)
    assert (old.place.revision, old.place.layout.weights) == (first, ("GriDiT_stage1_sky_ckpt.pt",))
    new = parts.find_net(Wanted(f"{GRIDIT}@main:another.safetensors"), hub=hub)
    assert (new.place.revision, new.anatomy.stage(None)) == (second, Stage.REFINE)


def test_what_the_hub_does_not_have_is_told(mirror: Mirror, tmp_path: Path) -> None:
    hub = Hub(endpoint=mirror.url, cache=tmp_path / "cache")
    for source, message in (
        ("no/body", r"no/body: found no such repository on the hub, expected OWNER/NAME; check the spelling"),
        (f"{GRIDIT}@v9", rf"{GRIDIT}@v9: found no such revision, expected a branch, a tag or a commit"),
        (f"{GRIDIT}:none.pt", r"found no file 'none\.pt'.*there: GriDiT_stage1_sky_ckpt\.pt, another\.safetensors"),
    ):
        with pytest.raises(CheckpointError, match=message):
            parts.find_net(Wanted(source), hub=hub)


def refused(address: str, *, tmp_path: Path) -> None:
    """Within seconds, by a message with a remedy, and nothing is written."""
    began = time.monotonic()
    hub = Hub(endpoint=address, cache=tmp_path / "cache", timeout_seconds=0.5)
    sources = Sources(Wanted(GRIDIT), autoencoder=Wanted(VAE, Part.AUTOENCODER))
    with pytest.raises(HubError, match=r"found no answer from the hub .*HF_ENDPOINT.*HF_HUB_OFFLINE=1"):
        importing.import_bundle(sources, tmp_path / "new/b", wishes=Wishes(), hub=hub)
    assert time.monotonic() - began < 10
    assert not (tmp_path / "new").exists()


def test_a_hub_that_is_not_there_is_told(tmp_path: Path) -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        refused(f"http://127.0.0.1:{nobody.getsockname()[1]}", tmp_path=tmp_path)


def test_a_hub_that_does_not_answer_is_told(tmp_path: Path) -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        refused(f"http://127.0.0.1:{silent.getsockname()[1]}", tmp_path=tmp_path)
