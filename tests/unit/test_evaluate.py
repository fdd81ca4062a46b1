"""Any bundle is measured against procedural domains or a folder of the user's own sequences, and reports say what was.

Tiny bundles with random weights: they fail the gate, and that is what the gate must say.
"""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor
from typer.testing import CliRunner

from models import alone
from models import bundle as bundles
from models.data import domains
from models.data.decoding import Reading
from models.data.errors import BadData
from models.data.listing import Classes
from models.drawing import NotServed
from models.evaluate import run
from models.evaluate.commands import app
from models.evaluate.corruptions import REVERSAL
from models.evaluate.folder import Folder, open_folder
from models.evaluate.gate import Rules, judge
from models.evaluate.limits import Bound, Limit, Policy, read_limits
from models.evaluate.material import Clips, Material, collect
from models.evaluate.reference import BadReference, Part, Procedural, chosen, class_names
from models.evaluate.report import GateReport
from models.media import png
from models.spec import BundleSpec, Mode, Stage
from tests.tiny import released_spec, tiny_bundle, tiny_spec, written

Bytes = NDArray[np.uint8]

FEW = {Part.REFERENCE: 6, Part.HELD_OUT: 4}
CONDITIONAL, UNCONDITIONAL = tiny_spec(), released_spec(stages=(Stage.COARSE,))


def finish(work: object) -> object:
    """The result of a generator that is of no interest on the way."""
    while True:
        try:
            next(work)  # type: ignore[call-overload]
        except StopIteration as end:
            return end.value


def write_frames(folder: Path, frames: Bytes) -> None:
    folder.mkdir(parents=True)
    for index, frame in enumerate(frames):
        (folder / f"{index}.png").write_bytes(png.encode(frame))


def real_folder(
    folder: Path, *, classes: tuple[str, ...], sequences: int = 4, frames: int = 40, size: int = 12
) -> Path:
    """Frame folders of the lava domain: `folder/CLASS/NUMBER`, or without classes `folder/NUMBER`."""
    for name in classes or ("",):
        for seed in range(sequences):
            write_frames(folder / name / str(seed), domains.load("lava").render(seed, frames=frames, size=size))
    return folder


def opened(spec: BundleSpec, folder: Path, *, cache: Path, **mapping: str) -> Folder:
    classes = Classes.FOLDERS if spec.classes else Classes.NONE
    reading = Reading(classes, channels=spec.channels)
    work = open_folder(spec, folder, names=class_names(spec), mapping=mapping, reading=reading, cache=cache)
    found = finish(work)
    assert isinstance(found, Folder)
    return found


def test_nets_that_were_never_trained_fail_and_their_figures_are_kept(tmp_path: Path) -> None:
    bundle = tiny_bundle(tmp_path / "tiny")
    reference = Procedural.of(bundle.spec, ("lava",), mapping={})
    sample = run.Sample(sequences=3, frames=20)
    subject = run.Subject(bundle.spec, alone.evaluators(bundle), reference, sample)
    outcome = finish(run.gate(subject, "lava", real=FEW))
    assert isinstance(outcome, run.Outcome)
    assert not outcome.report.passed
    assert {figure.view for figure in outcome.report.figures} == {"coarse", "refined", "full size"}
    report = GateReport((outcome.report,))
    noted = bundles.annotate(bundle, gate=run.summary(report, sequences=3, frames=20))
    assert bundles.load(bundle.path) == noted
    assert noted.spec.gate["passed"] is False
    assert [name for name, _ in outcome.sheets.pictures()] == ["coarse", "refined"]


class Mean(torch.nn.Module):
    """Mean of each channel, of images or clips."""

    def forward(self, x: Tensor) -> Tensor:
        return x.float().flatten(2).mean(2)


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
def test_a_report_against_a_folder_says_what_was_measured_and_how(tmp_path: Path) -> None:
    bundle = tiny_bundle(tmp_path / "tiny")
    folder = real_folder(tmp_path / "real", classes=("lamps", "sky"))
    torch.jit.save(torch.jit.script(Mean()), tmp_path / "mean.pt")
    out, net = tmp_path / "out", str(tmp_path / "mean.pt")
    arguments = [str(bundle.path), "--reference", str(folder), "--class-map", "lava=lamps", "--out", str(out)]
    arguments += ["--n", "2", "--frames", "20", "--fid-net", net, "--fvd-net", net, "--fvd-size", "8"]
    result = CliRunner().invoke(app, arguments)
    assert isinstance(result.exception, SystemExit), repr(result.exception)
    assert result.exit_code == 1
    report = json.loads((out / "gate.json").read_text())
    assert report["bundle"] == {"name": "tiny", "hash": bundle.hash}
    drawn = report["drawn"]
    assert (drawn["mode"], drawn["sampler"], drawn["coarse_steps"], drawn["frames"]) == ("sound", "euler", 3, 20)
    assert (drawn["sequences"], drawn["seeds"], drawn["classes"]) == (2, [0, 1], ["lava", "sky"])
    assert report["reference"]["kind"] == "folder"
    assert report["reference"]["sequences"] == {"lava": 4, "sky": 4}
    assert len(report["reference"]["digest"]) == 64
    assert report["versions"]["torch"] == torch.__version__
    assert [figure["name"] for figure in report["frechet"]["lava"]] == ["FID", "FVD"]
    assert report["feature_nets"]["FID"]["file"] == "mean.pt"
    assert {path.name for path in out.glob("*.png")} == {
        f"{name}-{view}.png" for name in ("lava", "sky") for view in ("coarse", "refined")
    }


@pytest.mark.parametrize("mode", Mode)
def test_a_bundle_without_classes_and_refinement_is_measured_in_either_mode(mode: Mode, tmp_path: Path) -> None:
    bundle = written(tmp_path / "coarse", UNCONDITIONAL)
    reference = opened(bundle.spec, real_folder(tmp_path / "real", classes=()), cache=tmp_path)
    sample = run.Sample(sequences=2, frames=24, mode=mode, wishes={"coarse_steps": 3})
    subject = run.Subject(bundle.spec, alone.evaluators(bundle), reference, sample)
    outcome = finish(run.gate(subject, *class_names(bundle.spec)))
    assert isinstance(outcome, run.Outcome)
    assert {figure.view for figure in outcome.report.figures} == {"coarse"}
    assert [name for name, _ in outcome.sheets.pictures()] == ["coarse"]


def test_the_parts_of_a_folder_share_no_video(tmp_path: Path) -> None:
    for shade in range(7):
        write_frames(tmp_path / "real" / str(shade), np.full((45, 12, 12, 3), 10 * shade, dtype=np.uint8))
    reference = opened(UNCONDITIONAL, tmp_path / "real", cache=tmp_path / "cache")
    found = {
        part: {int(drawn[Stage.COARSE][0, 0, 0, 0]) for drawn in reference.sequences("all", part, frames=20, most=50)}
        for part in Part
    }
    assert found == {Part.REFERENCE: {0, 20, 40, 60}, Part.HELD_OUT: {10, 30, 50}}
    assert len(list(reference.sequences("all", Part.REFERENCE, frames=20, most=50))) == 8
    few = {int(drawn[Stage.COARSE].mean()) for drawn in reference.sequences("all", Part.REFERENCE, frames=20, most=4)}
    assert few == {0, 20, 40, 60}


def test_a_folder_is_reduced_as_training_does_and_grey_for_grey_bundles(tmp_path: Path) -> None:
    frames = np.random.default_rng(0).integers(0, 256, (20, 12, 20, 3)).astype(np.uint8)
    for seed in range(4):
        write_frames(tmp_path / "real" / str(seed), frames)
    (drawn, *_) = opened(UNCONDITIONAL, tmp_path / "real", cache=tmp_path).sequences(
        "all", Part.REFERENCE, frames=20, most=2
    )
    middle = frames[:, :, 4:16]
    assert np.abs(drawn[Stage.COARSE] - middle.reshape(20, 4, 3, 4, 3, 3).mean(axis=(2, 4))).max() <= 0.5
    grey = UNCONDITIONAL.model_copy(update={"channels": 1})
    (drawn, *_) = opened(grey, tmp_path / "real", cache=tmp_path).sequences("all", Part.REFERENCE, frames=20, most=2)
    assert drawn[Stage.COARSE].shape == (20, 4, 4, 3)
    assert (drawn[Stage.COARSE] == drawn[Stage.COARSE][..., :1]).all()


@pytest.mark.parametrize(
    ("shape", "classes", "message"),
    [
        ({"sequences": 3}, ("lava", "sky"), "class 'lava' has 3 sequences, but at least 4 are needed"),
        ({"size": 6}, ("lava", "sky"), "6 x 6 pixels are kept of its frames, but the bundle draws 8 x 8"),
        ({}, ("lava", "clouds"), "its subfolders are clouds, lava, but class 'sky' needs one called 'sky'"),
        ({}, (), "it has no subfolders, but class 'lava' needs one called 'lava'"),
    ],
)
def test_a_folder_that_cannot_serve_is_refused(
    shape: dict[str, int], classes: tuple[str, ...], message: str, tmp_path: Path
) -> None:
    folder = real_folder(tmp_path / "real", classes=classes, frames=2, **{"size": 12, **shape})
    with pytest.raises(BadReference) as caught:
        opened(CONDITIONAL, folder, cache=tmp_path)
    assert message in str(caught.value)


def test_sequences_that_are_too_short_are_refused_with_what_there_is(tmp_path: Path) -> None:
    reference = opened(UNCONDITIONAL, real_folder(tmp_path / "real", classes=(), frames=19), cache=tmp_path)
    with pytest.raises(BadReference, match=r"0 stretches of 20 frames.*its longest sequence has 19"):
        reference.sequences("all", Part.HELD_OUT, frames=20, most=9)
    assert reference.longest("all", 256) == 19
    with pytest.raises(BadData, match="no such folder"):
        opened(UNCONDITIONAL, tmp_path / "nowhere", cache=tmp_path)


def test_classes_without_a_domain_of_their_name_need_a_folder_or_a_map() -> None:
    with pytest.raises(BadReference, match=r"no domain is called .all.,.*--class-map all=DOMAIN"):
        Procedural.of(UNCONDITIONAL, class_names(UNCONDITIONAL), mapping={})
    mapped = Procedural.of(UNCONDITIONAL, class_names(UNCONDITIONAL), mapping={"all": "sky"})
    (drawn, _) = mapped.sequences("all", Part.HELD_OUT, frames=3, most=2)
    np.testing.assert_array_equal(drawn[Stage.COARSE], domains.load("sky").render(2_000_000, frames=3, size=4))


def test_only_the_classes_of_a_bundle_can_be_chosen() -> None:
    assert chosen(CONDITIONAL, []) == ("lava", "sky")
    assert chosen(CONDITIONAL, ["sky", "sky"]) == ("sky",)
    with pytest.raises(NotServed, match="class 'cat' is not served by this bundle: choose one of lava, sky"):
        chosen(CONDITIONAL, ["cat"])


@cache
def lava(first: int, count: int, size: int) -> Clips:
    render = domains.load("lava").render
    return collect({Stage.COARSE: render(seed, frames=64, size=size)} for seed in range(first, first + count))


def test_limits_that_real_sequences_do_not_keep_are_widened_until_they_do() -> None:
    # Six sequences are far too few for the fixed limit of the Frechet distance.
    material = Material(lava(0, 6, 8), lava(50, 6, 8), lava(100, 6, 8))
    fixed = judge("lava", material, rules=Rules(read_limits()))
    wide = judge("lava", material, rules=Rules(read_limits(), policy=Policy.WIDENED))
    assert [figure.name for figure in fixed.figures if not figure.real_passed]
    assert all(figure.real_passed for figure in wide.figures)
    assert {one.name for one in wide.figures if one.widened} >= {
        one.name for one in fixed.figures if not one.real_passed
    }


def test_a_limit_is_only_widened_where_it_must_be() -> None:
    most, least = Limit(Bound.AT_MOST, 2.0), Limit(Bound.AT_LEAST_OF_REAL, 0.6)
    assert most.widened([1.0, 1.9]) == most
    assert most.widened([1.0, 4.0]).value == 5.0
    assert Limit(Bound.AT_MOST, 1.1).widened([1.2, 1.0], neutral=1.0).value == pytest.approx(1.25)
    assert least.widened([0.9, 0.7]) == least
    assert least.widened([0.9, 0.5]).holds(0.45, reference=1.0)


def test_a_sense_of_time_is_asked_for_only_where_real_sequences_have_one() -> None:
    def both_ways(clips: Clips) -> Clips:
        frames = clips.coarse
        return collect({Stage.COARSE: one} for pair in zip(frames, frames[:, ::-1], strict=True) for one in pair)

    rules = Rules(read_limits(), policy=Policy.WIDENED)
    directed = judge("lava", Material(lava(0, 12, 8), lava(50, 12, 8), lava(100, 6, 8)), rules=rules)
    one, other = (both_ways(lava(first, 6, 8)) for first in (0, 50))
    symmetric = judge("lava", Material(one, other, lava(100, 6, 8)), rules=rules)
    assert "arrow" in {figure.name for figure in directed.figures}
    assert "arrow" not in {figure.name for figure in symmetric.figures}
    for report, excused in ((directed, False), (symmetric, True)):
        (check,) = (check for check in report.corruptions if check.name == REVERSAL)
        assert bool(check.excused) is excused
        assert check.caught is not excused
