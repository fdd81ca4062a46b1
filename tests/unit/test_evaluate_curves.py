"""Seams are found where they are, ratios and drifts are those that were put in, and plots are written.

The oracles are sequences whose steps, jumps and ramps are known.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from models.evaluate import seams
from models.evaluate.commands import app
from models.evaluate.curves import ClassCurves, Measured, view_of
from models.evaluate.drift import drifts, feature_shift
from models.evaluate.plots import pictures
from models.evaluate.run import Sample
from models.evaluate.seams import Interval, Place, steps_of
from models.evaluate.traces import LEVELS, WINDOW, Bytes, Traces, TraceTally
from models.media import png
from models.spec import Mode, Stage
from tests.tiny import released_spec, tiny_bundle, tiny_spec

GRID, ROW, INSIDE = Place.GRID, Place.ROW, Place.INSIDE
FIRST_GRID = [INSIDE] * 3 + [ROW, *[INSIDE] * 3] * 3


def places(frames: int, *, overlap_rows: int, mode: Mode = Mode.SOUND) -> list[Place]:
    spec = tiny_spec(overlap_rows=overlap_rows) if mode is Mode.SOUND else released_spec()
    name = "lava" if spec.classes else "all"
    steps = steps_of(spec, Sample(frames=frames, mode=mode).request(spec, name, seed=0))
    return [step.place for step in steps]


def test_places_in_grids_that_share_two_rows() -> None:
    later = [GRID, INSIDE, INSIDE, INSIDE, ROW, INSIDE, INSIDE, INSIDE]
    assert places(16, overlap_rows=2) == FIRST_GRID
    assert places(35, overlap_rows=2) == [*FIRST_GRID, *later, *later, GRID, INSIDE, INSIDE]


def test_places_in_grids_that_share_three_rows() -> None:
    assert places(24, overlap_rows=3) == [*FIRST_GRID, *[GRID, INSIDE, INSIDE, INSIDE] * 2]


def test_places_in_the_released_loop() -> None:
    found = places(64, overlap_rows=3, mode=Mode.OFFICIAL)
    assert found == [*FIRST_GRID, *[GRID, INSIDE, INSIDE, INSIDE] * 10]
    assert len(found) + 1 == 56


def test_the_ratio_is_that_of_the_distances() -> None:
    steps = steps_of(tiny_spec(overlap_rows=2), Sample(frames=64).request(tiny_spec(), "lava", seed=0))
    size = {GRID: 3.0, ROW: 2.0, INSIDE: 1.0}
    speed = np.array([[1.0], [5.0], [20.0]])
    distances = speed * np.array([size[step.place] for step in steps])
    report = seams.report(distances, distances[:, :15], steps=steps)
    inside = np.mean([size[step.place] for step in steps if step.place is not GRID])
    assert report.grid_seam is not None
    assert report.row_seam == Interval(*[pytest.approx(2.0)] * 3)  # type: ignore[arg-type]
    assert report.grid_seam.value == pytest.approx(3.0 / inside)
    assert report.verdict == "larger"
    assert report.real_grid_seam is None
    assert report.real_row_seam is not None


def test_a_verdict_knows_chance() -> None:
    steps = steps_of(tiny_spec(overlap_rows=2), Sample(frames=64).request(tiny_spec(), "lava", seed=0))
    caught = 0
    for seed in range(40):
        distances = np.random.default_rng(seed).gamma(4.0, size=(12, len(steps)))
        found = seams.report(distances, distances, steps=steps).grid_seam
        assert found is not None
        assert found.low < found.value < found.high
        caught += found.low > 1.0 or found.high < 1.0
    # One in twenty is to be expected, and a few more of intervals from twelve sequences.
    assert caught <= 8


def test_an_interval_is_as_wide_as_that_of_a_mean_of_independent_sequences() -> None:
    values = np.random.default_rng(0).normal(3.0, 2.0, 200)
    margin = 1.96 * values.std() / np.sqrt(200)
    found = seams.mean(values)
    assert found.value == pytest.approx(values.mean())
    assert (found.value - found.low, found.high - found.value) == pytest.approx((margin, margin), rel=0.15)


def grey(levels: np.ndarray, *, size: int = 8) -> Bytes:
    """A sequence of even frames, (F,) -> (F, size, size, 3)."""
    return np.broadcast_to(levels.astype(np.uint8)[:, None, None, None], (len(levels), size, size, 3)).copy()


def traced(*sequences: Bytes) -> Traces:
    tally = TraceTally()
    for sequence in sequences:
        tally.add(sequence)
    return tally.traces()


def test_traces_of_a_ramp() -> None:
    traces = traced(grey(np.arange(40) * 2.0))
    np.testing.assert_allclose(traces.steps, 2.0, rtol=1e-5)
    np.testing.assert_allclose(traces.levels[0, :, 0], np.arange(40) * 2.0, rtol=1e-5)
    np.testing.assert_allclose(traces.levels[..., 1:], 0.0, atol=1e-4)
    assert traces.windows.shape[:2] == (1, 40 // WINDOW)
    assert (traces.frames, traces.levels.shape[2]) == (40, len(LEVELS))


def test_levels_of_a_coloured_edge() -> None:
    frame = np.zeros((8, 8, 3), dtype=np.uint8)
    frame[:, 4:] = [200, 50, 50]
    brightness, contrast, colour, sharpness = traced(np.stack([frame] * WINDOW)).levels[0, 0]
    bright = 0.299 * 200.0 + 0.701 * 50.0
    assert brightness == pytest.approx(bright / 2.0, rel=1e-5)
    assert contrast == pytest.approx(bright / 2.0, rel=1e-5)
    assert colour == pytest.approx(75.0)
    assert sharpness == pytest.approx(0.5 * bright / 7.0, rel=1e-5)


def test_a_drift_is_the_change_in_spreads_of_real_frames() -> None:
    still = traced(grey(np.full(64, 80.0)), grey(np.full(64, 120.0)))
    drifting = traced(grey(np.arange(64) + 50.0), grey(np.arange(64) + 90.0))
    brightness, *others = drifts(drifting, still, reference=still)
    assert brightness.change.value == pytest.approx(48.0 / 20.0, rel=1e-5)
    assert brightness.real_change.value == 0.0
    assert brightness.generated.mean == pytest.approx((np.arange(64) + 70.0).tolist(), rel=1e-5)
    assert brightness.generated.low[0] < brightness.generated.mean[0] < brightness.generated.high[0]
    assert [drift.change.value for drift in others] == pytest.approx([0.0] * 3, abs=1e-3)


def test_features_shift_where_a_sequence_departs_from_real_ones() -> None:
    rng = np.random.default_rng(0)
    real = [rng.integers(100, 140, (64, 8, 8, 3)).astype(np.uint8) for _ in range(12)]
    departing = [np.concatenate([one[:32], one[32:] + 60]) for one in real[:4]]
    shift = feature_shift(traced(*departing), traced(*real[4:8]), reference=traced(*real[4:]))
    assert shift.frames == [8.0, 24.0, 40.0, 56.0]
    assert max(shift.real) < 1.5
    assert max(shift.generated[:2]) < 2.0 < 5.0 < min(shift.generated[2:])


def test_curves_of_one_grid_have_no_seams_but_plots() -> None:
    spec = tiny_spec()
    steps = steps_of(spec, Sample(frames=16).request(spec, "lava", seed=0))
    traces = traced(grey(np.arange(16.0)), grey(np.arange(16.0) * 2))
    view = view_of(Stage.COARSE, Measured(traces, traces, traces), steps=steps)
    assert view.seams.verdict == "no seams"
    assert view.first_grid.cells == list(range(1, 16))
    assert view.later_grids.cells == []
    assert [each.value for each in view.first_grid.distances] == pytest.approx([1.5] * 15, rel=1e-5)
    (name, picture), _ = pictures(ClassCurves("lava", (view,)), bundle="tiny")
    assert name == "lava-seams"
    assert png.decode(picture).std() > 5


def test_curves_are_written_as_plots_and_figures(tmp_path: Path) -> None:
    bundle = tiny_bundle(tmp_path / "tiny", overlap_rows=2)
    arguments = [str(bundle.path), "--measure", "curves", "--class", "lava", "--n", "2", "--frames", "40"]
    result = CliRunner().invoke(app, [*arguments, "--out", str(tmp_path / "out")])
    assert result.exit_code == 0, repr(result.exception)
    report = json.loads((tmp_path / "out" / "curves.json").read_text())
    assert (report["bundle"]["hash"], report["drawn"]["frames"]) == (bundle.hash, 40)
    (found,) = report["classes"]
    assert [view["view"] for view in found["views"]] == ["coarse", "refined"]
    for view in found["views"]:
        assert view["seams"]["grid_seam"]["low"] <= view["seams"]["grid_seam"]["value"]
        assert view["by_cell"]["later_grids"]["cells"] == [8, 9, 10, 11, 12, 13, 14, 15]
        assert [drift["name"] for drift in view["drift"]] == list(LEVELS)
        assert len(view["drift"][0]["generated"]["mean"]) == 40
    for name in ("seams", "drift"):
        picture = png.decode((tmp_path / "out" / f"lava-{name}.png").read_bytes())
        assert min(picture.shape[:2]) > 300
        assert picture.std() > 5
