"""Latents: training sees what sampling makes, and a run keeps its autoencoder."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from models import alone, drawing
from models import bundle as bundles
from models.spec import Codec, Stage
from models.train.commands import app
from models.train.latents import Encoding, LostAutoencoder, Vae
from models.train.session import Session
from models.train.wishes import BadWish
from models.units.latents import encoded
from tests.footage import moving, write_images
from tests.published import save_vae

CPU = torch.device("cpu")
SMALL = ["--coarse-size", "8", "--refined-size", "16", "--grid", "2", "--patch", "2", "--width", "16", "--depth", "1",
         "--heads", "2", "--batch", "2", "--total-steps", "2"]  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("diffusers")
    return save_vae(tmp_path_factory.mktemp("vae"), scaling_factor=0.5)


@pytest.fixture(scope="module")
def vae(folder: Path) -> Vae:
    return Vae.read(str(folder))


def test_a_row_is_encoded_by_itself(vae: Vae) -> None:
    pixels = torch.rand(3, 3, 16, 16, generator=torch.Generator().manual_seed(0)) * 2 - 1
    encoding = Encoding(vae, device=CPU)
    latents = encoding(pixels)
    assert latents.shape == (3, 4, 8, 8)
    assert torch.equal(encoding(pixels[1:2]), latents[1:2])
    sampled = encoding(pixels, noise=torch.Generator().manual_seed(1))
    assert not torch.equal(sampled, latents)
    assert torch.equal(sampled, encoding(pixels, noise=torch.Generator().manual_seed(1)))


def test_an_autoencoder_stays_with_the_runs(vae: Vae, tmp_path: Path) -> None:
    with pytest.raises(LostAutoencoder, match=r"expected .* of this run; name it again \(--vae\)"):
        Vae.reopen(vae.digest, tmp_path)
    vae.keep(tmp_path)
    vae.keep(tmp_path)
    again = Vae.reopen(vae.digest, tmp_path)
    assert (again.spec, again.digest, len(list(tmp_path.iterdir()))) == (vae.spec, vae.digest, 1)
    pixels = torch.zeros(1, 3, 16, 16)
    assert torch.equal(Encoding(again, device=CPU)(pixels), Encoding(vae, device=CPU)(pixels))


def test_a_run_on_latents_becomes_a_bundle_that_draws(folder: Path, vae: Vae, tmp_path: Path) -> None:
    for index in range(2):
        write_images(tmp_path / "data" / f"clip{index}", moving(5, height=16, width=16, seed=index))
    data = ["--data", str(tmp_path / "data"), "--runs", str(tmp_path / "runs"), *SMALL]
    for stage in Stage:
        result = CliRunner().invoke(app, [stage, *data, "--vae", str(folder), "--steps", "1"])
        assert result.exception is None, result.exception
        on = [stage, "--name", "data", "--runs", str(tmp_path / "runs"), "--bundle", str(tmp_path / "bundle")]
        result = CliRunner().invoke(app, on)
        assert result.exception is None, result.exception
    bundle = bundles.load(tmp_path / "bundle")
    assert bundle.spec.autoencoder is not None
    assert (bundle.spec.downsample, bundle.spec.net_channels, bundle.spec.autoencoder.scale) == (2, 4, 0.5)
    assert bundle.spec.nets[Stage.COARSE].input_size == 8
    nets = alone.evaluators(bundle)
    request = replace(drawing.default_request(bundle.spec, seed=0, label=None), num_frames=6)
    assert drawing.sequence(bundle.spec, request, nets=nets)[Stage.REFINE].shape == (6, 16, 16, 3)

    pixels = torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(2)) * 2 - 1
    served = alone.drive(encoded(pixels, spec=bundle.spec), nets)
    torch.testing.assert_close(
        served, Encoding(vae, device=CPU)(pixels), rtol=1e-2, atol=1e-2
    )  # stored in half precision
    assert nets[Codec.DECODER].device == CPU


def test_frames_of_other_channels_are_refused(folder: Path, tmp_path: Path) -> None:
    write_images(tmp_path / "data", moving(5, height=16, width=16)[..., 0])
    data = ["--data", str(tmp_path / "data"), "--runs", str(tmp_path / "runs"), *SMALL]
    result = CliRunner().invoke(app, ["coarse", *data, "--vae", str(folder)])
    assert isinstance(result.exception, BadWish)
    assert str(result.exception) == "vae 'of 3 channels' is not possible: frames have 1; see --channels"
    assert not Session(tmp_path / "runs" / "data-coarse").state.exists()
