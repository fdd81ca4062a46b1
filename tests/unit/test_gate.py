"""The gate lets real sequences pass and catches every way of spoiling them.

The oracles of the distances are closed forms; those of the features are sequences made for them.
Fewer and smaller sequences than a real run uses, so that the whole file takes seconds.
"""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from models.data import domains
from models.evaluate import features
from models.evaluate.corruptions import CORRUPTIONS
from models.evaluate.distances import frechet, total_variation, wasserstein
from models.evaluate.gate import Rules, evaluate
from models.evaluate.limits import Bound, Limit, read_limits
from models.evaluate.material import Clips, Material, Refinement, collect, reduce_frames, reduced
from models.evaluate.report import ClassReport, GateReport, corruption_table, figure_table
from models.evaluate.spectrum import spectrum_error
from models.evaluate.yardstick import Yardstick
from models.spec import Stage

every_domain = pytest.mark.parametrize("name", domains.names())
LIMITS = read_limits()
RULES = Rules(LIMITS)


@cache
def clips(name: str, first_seed: int, sequences: int) -> Clips:
    render, seeds = domains.load(name).render, range(first_seed, first_seed + sequences)
    return collect({Stage.COARSE: render(seed, frames=64, size=16)} for seed in seeds)


@cache
def judged(name: str) -> ClassReport:
    """Real sequences in the place of generated ones."""
    material = Material(clips(name, 10_000, 60), clips(name, 20_000, 20), clips(name, 30_000, 20))
    return evaluate({name: material}, rules=RULES).classes[0]


@every_domain
def test_real_sequences_pass(name: str) -> None:
    report = judged(name)
    assert [figure for figure in report.figures if not (figure.passed and figure.real_passed)] == []
    assert report.sound
    assert report.passed


@every_domain
@pytest.mark.parametrize("corruption", CORRUPTIONS)
def test_each_corruption_is_caught(name: str, corruption: str) -> None:
    (check,) = (check for check in judged(name).corruptions if check.name == corruption)
    assert check.caught


def test_corruptions_keep_the_shape_and_leave_the_original_alone() -> None:
    real = clips("lava", 30_000, 20).coarse[:4]
    before = real.copy()
    for name, corrupt in CORRUPTIONS.items():
        spoiled = corrupt(real, np.random.default_rng(0), 4)
        assert spoiled.shape == real.shape, name
        assert spoiled.dtype == np.uint8, name
        assert (spoiled != real).any(), name
    np.testing.assert_array_equal(real, before)


def test_refined_sequences_are_judged_at_full_size_too() -> None:
    rng = np.random.default_rng(0)
    # Noise that drifts: cheap to make at full size, and held against itself it passes.
    pool = rng.integers(90, 160, (6, 1, 64, 96, 3)).astype(np.uint8)
    wide = np.concatenate([pool[..., at : at + 64, :] for at in range(0, 32, 2)], axis=1)
    made = collect({Stage.COARSE: reduce_frames(one, 16), Stage.REFINE: one} for one in wide)
    patches = (40 * (np.arange(64) // 8 % 2 == 1)[:, None]).astype(np.uint8)
    spoiled = collect({Stage.COARSE: reduce_frames(one, 16), Stage.REFINE: one + patches} for one in wide)
    frames = wide[:, 0]
    refinement = Refinement(real=frames, bicubic=np.zeros_like(frames), refined=frames, coarse_size=16)
    report = evaluate({"noise": Material(made, made, spoiled, refinement)}, rules=RULES)
    figures = {(figure.view, figure.name): figure for figure in report.classes[0].figures}
    assert not figures["full size", "border"].passed
    assert figures["full size", "border"].real == pytest.approx(1.0)
    assert figures["coarse", "border"].passed
    assert figures["full size", "steadiness"].real == 0.0
    assert figures["full size", "spectrum"].value == 0.0
    assert ("refined", "frechet") in figures


def test_a_gate_that_sees_nothing_does_not_pass() -> None:
    blind = {
        name: Limit(limit.bound, np.inf if limit.bound is Bound.AT_MOST else -np.inf) for name, limit in LIMITS.items()
    }
    small = clips("lava", 30_000, 20)
    report = evaluate({"lava": Material(small, small, small)}, rules=Rules(blind))
    assert not report.passed
    assert not report.classes[0].sound
    assert not GateReport(classes=()).passed


def test_a_report_is_json_and_a_table() -> None:
    report = GateReport(classes=(judged("sky"),))
    plain = json.loads(json.dumps(report.to_json()))
    assert plain["passed"] is True
    assert {figure["name"] for figure in plain["classes"][0]["figures"]} <= set(LIMITS)
    console = Console(width=120, record=True, quiet=True)
    console.print(figure_table(report), corruption_table(report))


def test_figures_that_are_not_numbers_keep_no_limit() -> None:
    for bound in Bound:
        assert not Limit(bound, 1.0).holds(float("nan"), reference=1.0)


def test_limits_are_read_from_the_file(tmp_path: Path) -> None:
    path = tmp_path / "limits.json"
    path.write_text('{"motion": {"bound": "at_least_of_real", "value": 0.5}}', encoding="utf-8")
    (limit,) = read_limits(path).values()
    assert limit.holds(2.0, reference=4.0)
    assert not limit.holds(1.9, reference=4.0)


samples = st.lists(st.floats(-1e3, 1e3), min_size=1, max_size=30).map(np.array)


@settings(max_examples=50, deadline=None)
@given(one=samples, shift=st.floats(-50.0, 50.0))
def test_wasserstein_of_a_shifted_sample_is_the_shift(one: features.Doubles, shift: float) -> None:
    assert wasserstein(one, one + shift) == pytest.approx(abs(shift), abs=1e-6)


@settings(max_examples=50, deadline=None)
@given(one=samples, other=samples)
def test_wasserstein_is_symmetric_and_bounds_the_difference_of_means(
    one: features.Doubles, other: features.Doubles
) -> None:
    distance = wasserstein(one, other)
    assert distance == pytest.approx(wasserstein(other, one), abs=1e-6)
    assert distance >= abs(one.mean() - other.mean()) - 1e-6


def test_wasserstein_of_samples_of_one_size_is_the_mean_distance_of_sorted_ones() -> None:
    one, other = np.random.default_rng(0).normal(size=(2, 100))
    assert wasserstein(one, other) == pytest.approx(np.abs(np.sort(one) - np.sort(other)).mean())


def test_frechet_of_independent_features_has_a_closed_form() -> None:
    # All combinations of +-1: uncorrelated, mean 0, standard deviation 1.
    real = np.stack(np.meshgrid([-1.0, 1.0], [-1.0, 1.0], [-1.0, 1.0]), axis=-1).reshape(-1, 3)
    scale, shift = np.array([2.0, 0.5, 1.0]), np.array([0.0, 3.0, -1.0])
    expected = float(((scale - 1.0) ** 2).sum() + (shift**2).sum())
    assert frechet(real, real * scale + shift, floor=0.01) == pytest.approx(expected)


def test_frechet_of_correlated_features_of_common_axes_has_a_closed_form() -> None:
    turn = np.array([[0.6, -0.8], [0.8, 0.6]])
    corners = np.array([[-1.0, -1.0], [-1.0, 1.0], [1.0, -1.0], [1.0, 1.0]])
    # The floor is above every spread, so the scale is 1; on common axes only the spreads differ.
    one, two = (corners * spread @ turn for spread in ([0.1, 0.3], [0.4, 0.1]))
    assert frechet(one, two, floor=1.0) == pytest.approx(0.3**2 + 0.2**2)


def test_a_feature_that_hardly_varies_is_held_to_the_floor() -> None:
    real = np.array([[0.0], [1e-9]])
    assert frechet(real, real + 0.2, floor=0.1) == pytest.approx(4.0)


def test_total_variation_of_disjoint_and_of_overlapping_shares() -> None:
    assert total_variation(np.array([1.0, 0.0]), np.array([0.0, 1.0])) == 1.0
    assert total_variation(np.array([0.5, 0.5]), np.array([0.25, 0.75])) == 0.25


def test_a_steady_fade_has_known_traits() -> None:
    fade = np.repeat(np.arange(0, 240, 10, dtype=np.uint8), 8 * 8 * 3).reshape(1, 24, 8, 8, 3)
    traits = features.measure(fade)
    np.testing.assert_allclose(traits.psnr, 20.0 * np.log10(255.0 / 10.0), rtol=1e-6)
    np.testing.assert_allclose(traits.motion, 10.0 / 255.0, rtol=1e-6)
    np.testing.assert_allclose(traits.acceleration, 0.0, atol=1e-6)
    np.testing.assert_allclose(traits.misfit, 0.0, atol=1e-6)
    np.testing.assert_allclose(traits.row_jump(4), 1.0, rtol=1e-6)
    assert traits.described.shape == (1, len(features.FEATURES))


def test_one_foreign_frame_is_a_misfit() -> None:
    real = clips("lava", 30_000, 20).coarse[:1].copy()
    before = features.measure(real).misfit[0]
    real[0, 30] = real[0, 2]
    assert features.measure(real).misfit[0] > before + 1.0


@every_domain
def test_directed_features_change_sign_when_time_runs_backwards(name: str) -> None:
    real = clips(name, 30_000, 20).coarse[:4]
    forth, back = (features.measure(one).described[:, features.DIRECTED] for one in (real, real[:, ::-1]))
    np.testing.assert_allclose(forth, -back, rtol=1e-3, atol=1e-4)


def test_flow_is_the_velocity_of_what_moves() -> None:
    x = np.arange(40)
    waves = (127.5 + 100.0 * np.sin(2.0 * np.pi * (x[None, :] - 0.5 * np.arange(16)[:, None]) / 20.0)).astype(np.uint8)
    frames = np.broadcast_to(waves[:, None, :, None], (16, 40, 40, 3))[None]
    right = list(features.FEATURES).index("flow right")
    described = features.measure(np.ascontiguousarray(frames)).described[0]
    assert described[right] == pytest.approx(100.0 * 0.5 / 40.0, rel=0.05)
    assert described[right + 1] == pytest.approx(0.0, abs=1e-6)


def test_differences_between_sequences_match_their_definition() -> None:
    real = clips("scan", 30_000, 20).coarse[:5]
    found = features.pairwise_difference(real)
    apart = real[:, None].astype(np.float64) - real[None].astype(np.float64)
    np.testing.assert_allclose(found, np.sqrt((apart**2).mean(axis=(2, 3, 4, 5))) / 255.0, rtol=1e-4, atol=1e-6)


def test_spread_is_that_of_equally_many_real_sequences() -> None:
    real = clips("lava", 10_000, 60).coarse
    scale, measured = Yardstick(real, columns=4).scale(20), Yardstick(real, columns=4).measure(real[20:40])
    assert measured["nearest"] == pytest.approx(scale["nearest"], rel=0.1)


def test_more_sequences_than_the_reference_has_are_not_nearer_to_one_another() -> None:
    real = clips("lava", 10_000, 60).coarse
    few = Yardstick(real[:10], columns=4)
    groups = [few.measure(real[start : start + 10])["nearest"] for start in range(10, 60, 10)]
    assert few.measure(real[10:])["nearest"] == pytest.approx(np.mean(groups), rel=1e-4)


def test_an_enlarged_frame_lacks_fine_detail() -> None:
    frames = domains.load("sky").render(1, frames=6, size=128)
    enlarged = reduce_frames(frames, 16).repeat(8, axis=1).repeat(8, axis=2)
    assert spectrum_error(frames, frames, above=9) == 0.0
    assert spectrum_error(enlarged, frames, above=9) > 1.0


def test_frames_are_reduced_by_their_area_mean() -> None:
    frames = np.random.default_rng(0).integers(0, 256, (2, 64, 64, 3)).astype(np.uint8)
    exact = frames.reshape(2, 16, 4, 16, 4, 3).mean(axis=(2, 4))
    assert np.abs(reduce_frames(frames, 16) - exact).max() <= 0.5
    with pytest.raises(ValueError, match="48 px"):
        reduce_frames(frames[:, :48, :48], 32)


@pytest.mark.parametrize(("side", "expected"), [(20, 20), (48, 32), (64, 32)])
def test_frames_of_any_size_are_reduced_and_keep_their_mean(side: int, expected: int) -> None:
    frames = np.random.default_rng(0).integers(0, 256, (2, side, side, 3)).astype(np.uint8)
    small = reduced(frames, 32)
    assert small.shape == (2, expected, expected, 3)
    assert small.mean() == pytest.approx(frames.mean(), abs=0.5)
