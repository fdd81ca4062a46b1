"""Modes, references and slow motion through the whole service: real processes, tiny nets of the published kind."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from models import alone, drawing
from models.bundle import Bundle, load
from models.checkpoint.commands import app as importing
from models.media import png, to_unit
from models.spec import Mode, Stage
from service.client import Client
from tests import published
from tests.integration.up_fixtures import ONE_THREAD, up
from tests.tiny import deep_spec, released_spec, written
from workers.contracts import job as contract
from workers.contracts.event import EventType

pytestmark = pytest.mark.timeout(300)


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Bundle]:
    folder = tmp_path_factory.mktemp("bundles")
    specs = [released_spec(), released_spec(stages=(Stage.COARSE,)), deep_spec()]
    return {spec.name: written(folder / spec.name, spec) for spec in specs} | {"latent": imported(folder)}


def imported(folder: Path) -> Bundle:
    """Nets with labels over an autoencoder's latents, as they are imported: frames of 8 pixels, refined to 16."""
    vae = published.save_vae(folder / "vae")
    files = {stage: folder / f"{stage}.pt" for stage in Stage}
    torch.save(published.labelled_net(size=16).state_dict(), files[Stage.COARSE])
    torch.save(published.labelled_net(in_channels=8, size=8).state_dict(), files[Stage.REFINE])
    sources = [str(files[Stage.COARSE]), "--refine", str(files[Stage.REFINE]), "--vae", str(vae)]
    target = folder / "latent"
    done = CliRunner().invoke(importing, ["import", *sources, "--to", str(target), "--name", "latent", "--heads", "4"])
    assert done.exit_code == 0, done.output
    return load(target)


@pytest.fixture(scope="module")
def client(bundles: dict[str, Bundle], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    served = {"GRIDIT_BUNDLES": ":".join(str(bundle.path) for bundle in bundles.values())}
    with up(tmp_path_factory.mktemp("data"), **served, **ONE_THREAD) as started, started.client() as client:
        yield client


def made(client: Client, total: int, stage: contract.Stage, **fields: Any) -> np.ndarray:
    """Every frame of a stage of a job that must end well, (n, H, W, 3)."""
    job = client.submit(**fields)
    events = list(client.events(job.id))
    assert events[-1].type is EventType.COMPLETED, events[-1]
    frames = client.get(job.id).model_dump()["frames"]
    assert frames["total"] == total == frames[f"{stage.value}_done"]
    return np.stack([png.decode(client.frame(job.id, index, stage=stage)) for index in range(total)])


def by_itself(bundle: Bundle, stage: Stage, reference: np.ndarray | None = None, **wishes: object) -> np.ndarray:
    mode = Mode(str(wishes.pop("mode", "sound")))
    given = None if reference is None else to_unit(reference)
    known = {} if reference is None else {"reference_frames": len(reference)}
    request = drawing.request(bundle.spec, seed=5, class_name=None, wishes=wishes | known, mode=mode)  # type: ignore[arg-type]
    return drawing.sequence(bundle.spec, request, nets=alone.evaluators(bundle), reference=given)[stage]


def test_the_official_mode_makes_56_frames_for_64_and_says_so_at_once(
    client: Client, bundles: dict[str, Bundle]
) -> None:
    asked: dict[str, Any] = {
        "model": "released",
        "mode": "official",
        "seed": 5,
        "num_frames": 64,
        "num_inference_steps": 4,
    }
    job = client.submit(**asked).model_dump()
    assert job["frames"]["total"] == 56
    assert any("56" in warning for warning in job["warnings"])
    frames = made(client, 56, contract.Stage.REFINED, **asked)
    alone_ = by_itself(
        bundles["released"], Stage.REFINE, mode="official", num_frames=64, coarse_steps=4, refine_steps=4
    )
    np.testing.assert_array_equal(frames, alone_)


def test_slow_motion(client: Client, bundles: dict[str, Bundle]) -> None:
    asked = {"model": "released", "seed": 5, "num_frames": 21, "slow_motion": 4, "sampler": "sde_dpmpp_2m"}
    frames = made(client, 21, contract.Stage.COARSE, **asked)
    alone_ = by_itself(bundles["released"], Stage.COARSE, num_frames=21, slow_motion=4, sampler="sde_dpmpp_2m")
    np.testing.assert_array_equal(frames, alone_)


def test_a_sequence_goes_on_from_frames_of_the_user(client: Client) -> None:
    own = np.random.default_rng(0).integers(0, 255, (3, 4, 4, 3), dtype=np.uint8)
    references = []
    for frame in own:
        buffer = io.BytesIO()
        Image.fromarray(frame).save(buffer, "PNG")
        references.append(f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}")
    asked = {"model": "released", "seed": 5, "num_frames": 18, "input_reference": references}
    frames = made(client, 18, contract.Stage.COARSE, **asked)
    np.testing.assert_array_equal(frames[:3], own)
    assert len(np.unique(frames.reshape(18, -1), axis=0)) == 18


def test_a_bundle_without_refinement_ends_with_its_coarse_frames(client: Client) -> None:
    job = client.submit(model="coarse-only", num_frames=17).model_dump()
    assert job["stages"] == "coarse"
    assert job["size"] == "4x4"
    made(client, 17, contract.Stage.COARSE, model="coarse-only", num_frames=17)


@pytest.mark.parametrize(("mode", "total"), [("sound", 20), ("official", 32)])
def test_latents_become_the_frames_that_they_become_alone(
    client: Client, bundles: dict[str, Bundle], mode: str, total: int
) -> None:
    spec = bundles["latent"].spec
    asked = {"model": "latent", "prompt": spec.classes[1], "mode": mode, "seed": 5, "num_frames": 20}
    frames = made(client, total, contract.Stage.REFINED, num_inference_steps=3, **asked)
    wishes = {"num_frames": 20, "coarse_steps": 3} | ({"refine_steps": 3} if mode == "official" else {})
    request = drawing.request(spec, seed=5, class_name=spec.classes[1], wishes=wishes, mode=Mode(mode))
    by_itself_ = drawing.sequence(spec, request, nets=alone.evaluators(bundles["latent"]))[Stage.REFINE]
    assert frames.shape == (total, 16, 16, 3)
    assert np.abs(frames.astype(int) - by_itself_).max() <= 1, "convolutions may round otherwise on other threads"
    assert len(np.unique(frames.reshape(total, -1), axis=0)) == total


def test_sixteen_bits_come_out_as_they_were_drawn(client: Client, bundles: dict[str, Bundle]) -> None:
    """The oracle is the sequence drawn alone, in float32."""
    job = client.submit(model="deep", seed=5, num_frames=18)
    assert list(client.events(job.id))[-1].type is EventType.COMPLETED
    with np.load(io.BytesIO(client.content(job.id, variant="npz"))) as archive:
        frames, index = archive["frames"], archive["index"]
    spec = bundles["deep"].spec
    request = drawing.request(spec, seed=5, class_name=None, wishes={"num_frames": 18})
    parts = alone.frames(spec, request, nets=alone.evaluators(bundles["deep"]))
    drawn = {which.start: shown for stage, which, shown in parts if stage is Stage.REFINE}
    wanted = (torch.cat([part for _, part in sorted(drawn.items())])[:, 0].double() + 1) * 32767.5
    assert frames.dtype == np.uint16
    assert index.tolist() == list(range(18))
    np.testing.assert_array_equal(frames, wanted.round().numpy())
    assert len(np.unique(frames)) > 500, "more than eight bits hold"
    with Image.open(io.BytesIO(client.frame(job.id, 0, stage=contract.Stage.REFINED))) as picture:
        assert picture.mode == "I;16"
    assert client.content(job.id)[4:8] == b"ftyp"
