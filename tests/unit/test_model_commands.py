"""The command line of the models: what it writes and what it refuses."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from models import alone, drawing
from models import bundle as bundles
from models.bundle import Bundle
from models.commands import app
from models.drawing import NotServed
from models.media import mp4, png
from models.nn.dit import DiT
from models.plan import plan
from models.spec import Stage
from models.train.commands import app as train_app
from models.units import pictures
from tests.tiny import awake, deep_spec, tiny_net, tiny_spec, written


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """The tiny bundle on disk."""
    nets = {stage: awake(DiT(tiny_net(stage=stage))).state_dict() for stage in Stage}
    return bundles.write(tmp_path_factory.mktemp("bundles") / "tiny", spec=tiny_spec(), nets=nets)


def test_sample_writes_every_frame_and_a_video(tiny: Bundle, tmp_path: Path) -> None:
    arguments = [
        "sample",
        str(tiny.path),
        "--class",
        "sky",
        "--num-frames",
        "18",
        "--seed",
        "7",
        "--out",
        str(tmp_path),
    ]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    request = drawing.request(tiny.spec, seed=7, class_name="sky", wishes={"num_frames": 18})
    drawn = drawing.sequence(tiny.spec, request, nets=alone.evaluators(tiny))
    for stage, frames in drawn.items():
        files = sorted((tmp_path / stage).iterdir())
        assert [file.name for file in files] == [f"{index:04d}.png" for index in range(18)]
        np.testing.assert_array_equal(np.stack([png.decode(file.read_bytes()) for file in files]), frames)
    assert len(list(mp4.decode((tmp_path / "video.mp4").read_bytes()))) == 18


def test_sixteen_bits_are_written_as_a_stack_too(tmp_path: Path) -> None:
    deep = written(tmp_path / "deep", deep_spec().model_copy(update={"value_range": (-1000.0, 400.0)}))
    out = tmp_path / "out"
    result = CliRunner().invoke(app, ["sample", str(deep.path), "--num-frames", "18", "--out", str(out)])
    assert result.exit_code == 0, result.output
    with np.load(out / "frames.npz") as archive:
        assert archive["frames"].shape == (18, 8, 8)
        assert archive["frames"].dtype == np.uint16
        assert archive["value_range"].tolist() == [-1000.0, 400.0]
        for index, frame in enumerate(archive["frames"]):
            data = (out / "refine" / f"{index:04d}.png").read_bytes()
            np.testing.assert_array_equal(png.decode_deep(data), frame)
            np.testing.assert_array_equal(png.decode(data)[..., 0], frame >> 8)


@pytest.mark.parametrize(
    ("class_name", "wishes", "message"),
    [
        ("cat", {}, "class 'cat' is not served by this bundle: choose one of lava, sky"),
        (None, {"num_frames": 257}, "num_frames 257 is not served by this bundle: choose at most 256"),
        (None, {"refine_steps": 51}, "refine_steps 51 is not served by this bundle: choose at most 50"),
        (None, {"guidance_scale": 11.0}, "guidance_scale 11.0 is not served by this bundle: choose at most 10"),
        (None, {"sampler": "magic"}, "sampler 'magic' is not served by this bundle: choose one of ddim, ddpm"),
    ],
)
def test_what_a_bundle_does_not_serve_is_refused(
    tiny: Bundle, class_name: str | None, wishes: dict[str, int | float | str | None], message: str
) -> None:
    with pytest.raises(NotServed, match=message):
        drawing.request(tiny.spec, seed=0, class_name=class_name, wishes=wishes)


def test_a_request_takes_the_bundles_defaults_but_for_what_is_wished(tiny: Bundle) -> None:
    request = drawing.request(tiny.spec, seed=3, class_name=None, wishes={"coarse_steps": 5, "sampler": None})
    assert (request.coarse_steps, request.sampler, request.num_frames, request.label) == (5, "euler", 20, None)


def test_frames_refined_apart_are_those_refined_together(tiny: Bundle) -> None:
    nets, request = alone.evaluators(tiny), drawing.default_request(tiny.spec, seed=1, label=0)
    drawn = drawing.sequence(tiny.spec, request, nets=nets)
    results = {unit.key: result for unit, result in alone.run(tiny.spec, request, nets=nets)}
    first = pictures(plan(tiny.spec, request)[0], results["coarse/0"], spec=tiny.spec)
    again = drawing.refined(tiny.spec, first, request=request, nets=nets)
    np.testing.assert_array_equal(again, drawn[Stage.REFINE][: len(first)])


def test_an_unknown_recipe_is_named_with_those_there_are(tmp_path: Path) -> None:
    result = CliRunner().invoke(train_app, ["magic", "--runs", str(tmp_path)])
    assert result.exit_code == 2
    assert "demo-coarse" in result.output
