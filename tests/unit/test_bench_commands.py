"""`gridit bench` on tiny nets, from the command line to the table, the file and the plot."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TypeVar

import pytest
from typer.testing import CliRunner

from models.bench import report, ways
from models.bench.commands import app
from models.bench.report import EnginesReport, PipelineReport
from models.bundle import Bundle
from models.devices import CPU
from tests.tiny import released_spec, written

_Report = TypeVar("_Report", EnginesReport, PipelineReport)
PNG = b"\x89PNG"


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return written(tmp_path_factory.mktemp("bundles") / "released", released_spec())


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What lies in the machine's own cache shall decide nothing."""
    monkeypatch.setenv("GRIDIT_ENGINE_CACHE", str(tmp_path / "engines"))


def bench(*arguments: str, folder: Path, kind: type[_Report]) -> tuple[str, _Report]:
    """What was shown, and the report."""
    files: list[str] = ["--json", str(folder / "report.json"), "--plot", str(folder / "plot.png"), "--device", CPU]
    result = CliRunner().invoke(app, ["bench", *arguments, *files], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    assert (folder / "plot.png").read_bytes().startswith(PNG)
    found = report.read(folder / "report.json")
    assert isinstance(found, kind)
    return result.output, found


def test_engines_beside_others(bundle: Bundle, tmp_path: Path) -> None:
    options = ["--engines", "torch", "--peers", "diffusers,released loop", "--buckets", "1,2", "--rounds", "2"]
    shown, found = bench(
        "engines", str(bundle.path), *options, "--peak-side", "64", folder=tmp_path, kind=EnginesReport
    )
    titles = {(one.net.rpartition(" ")[2], one.title, one.bucket) for one in found.figures}
    everywhere = {("torch fp32", 1), ("torch fp32", 2), ("torch bf16", 1), ("torch bf16", 2)}
    everywhere |= {("diffusers fp32", 1), ("diffusers fp32", 2), ("released loop fp32", 1)}
    assert titles == {(net, *one) for net in ("coarse", "refine") for one in everywhere}
    assert {default.contender for default in found.defaults} == {"torch"}
    assert not found.not_run
    for one in found.figures:
        flops = next(net.flops for net in found.nets if net.name == one.net)
        top = found.peak(one.precision)
        assert top is not None
        assert one.rows_per_second == pytest.approx(one.bucket / one.seconds)
        assert one.of_peak == pytest.approx(flops * one.bucket / one.seconds / top)
        assert one.error is not None
        assert one.error < (1e-5 if one.precision == "fp32" else 0.05)
        assert len(one.rounds) == 2
        assert one.title in shown
    assert found.origin.versions["torch"]
    assert "rows/s" in shown


def test_the_pipeline_in_every_way(bundle: Bundle, tmp_path: Path) -> None:
    options = ["--engines", "torch", "--frames", "16,24", "--steps", "4", "--rounds", "1", "--budget", "1000"]
    shown, found = bench("pipeline", str(bundle.path), *options, folder=tmp_path, kind=PipelineReport)
    seconds = {(one.way, one.net, one.bucket): one.seconds for one in found.components}
    assert all(value > 0 for value in seconds.values())
    for frames in (16, 24):
        named = {way.name: way for way in found.ways if way.frames == frames}
        factors = {one.name: one.ratio for one in found.factors if one.frames == frames}
        three = [factors[name] for name in ways.CHAIN[1:]]
        assert factors["product of the three"] == pytest.approx(math.prod(three))
        assert named[ways.RELEASED].flops > 2 * named[ways.EXACT].flops * 0.8
        assert factors["factorized"] == pytest.approx(named[ways.DIRECT].seconds / named["factorized"].seconds)
    assert [one.way for one in found.checks] == list(ways.CHAIN)
    assert found.largest_difference is not None
    assert found.largest_difference < 1e-4
    assert "product of the three" in shown


def test_a_whole_job_that_takes_too_long_is_left_out(bundle: Bundle, tmp_path: Path) -> None:
    options = ["--engines", "torch", "--frames", "16", "--steps", "2", "--rounds", "1", "--budget", "0"]
    _, found = bench("pipeline", str(bundle.path), *options, folder=tmp_path, kind=PipelineReport)
    assert found.checks == ()
    assert found.largest_difference is None


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["engines", "--shape", "M/2"], "preset 'DiT-M/2' is unknown"),
        (["engines", "--shape", "S/2", "--tokens", "1000"], "tokens 1000 are no 4 x 4 grid"),
        (["engines", "--buckets", "none"], "--buckets 'none' is not understood"),
        (["engines", "--engines", "magic"], "--engines 'magic' is not understood"),
        (["pipeline", "--frames", "-4"], "--frames '-4' is not understood"),
        (["engines", "--device", "cuda:9"], "device 'cuda:9' is not there"),
    ],
)
def test_bad_options_are_refused_before_anything_is_run(arguments: list[str], said: str) -> None:
    result = CliRunner().invoke(app, ["bench", *arguments])
    assert result.exit_code != 0
    assert result.exception is not None
    assert said in str(result.exception)
