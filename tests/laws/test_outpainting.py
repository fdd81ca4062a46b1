"""Long sequences from a net whose right answer is known: which mode and sampler comes nearest to the right law.

A small share of `tests.benchmarks.outpainting`, whose table is in docs/sampling.md.
"""

from __future__ import annotations

from functools import cache

import pytest
import torch

from models.spec import KnownRows, Mode, Spacing
from tests.analytic import AMPLITUDES, CELLS, Kernel, distance, following, second_moment
from tests.benchmarks.outpainting import MADE, Case, Setting, continued, sequence

SETTING = Setting(Kernel.MATERN, side=14, overlap_rows=3, seed=0)
OFFICIAL = Case("official", "ddpm", 250, mode=Mode.OFFICIAL)
CORRECTED = Case("sound", "ddpm", 250)
FAST = Case("sound", "sde_dpmpp_2m", 25, Spacing.LOG_SNR)
PREFIX = Case("sound", "sde_dpmpp_2m", 25, Spacing.LOG_SNR, known_rows=KnownRows.CLEAN_PREFIX)


@cache
def error(case: Case) -> float:
    return distance(sequence(case, SETTING), Kernel.MATERN)


def test_the_yardstick_is_zero_for_the_law_itself() -> None:
    wide = Setting(Kernel.MATERN, side=200, overlap_rows=3, seed=0)
    assert distance(wide.exact(CELLS).flatten(2), Kernel.MATERN) < 0.02
    assert distance(1.1 * wide.exact(CELLS).flatten(2), Kernel.MATERN) == pytest.approx(0.1, abs=0.01)


def test_fast_sound_sampling_errs_no_more_than_the_corrected_long_one() -> None:
    assert error(FAST) < 1.02 * error(CORRECTED)


def test_sound_sampling_errs_less_than_the_released_loop() -> None:
    assert error(FAST) < 0.9 * error(OFFICIAL)
    assert error(CORRECTED) < error(OFFICIAL)


def test_a_clean_prefix_leaves_little_error() -> None:
    floor = distance(SETTING.exact(MADE).flatten(2), Kernel.MATERN)
    assert error(PREFIX) < floor + 0.04


def test_a_clean_prefix_draws_what_follows_the_known_frames() -> None:
    """Mean and spread of the new frames given the known ones, against conditioning by hand."""
    frames = continued(PREFIX, Setting(Kernel.MATERN, side=48, overlap_rows=3, seed=1))
    follows, spread = following(AMPLITUDES[0] ** 2 * Kernel.MATERN.covariance(CELLS), 12)
    known, new = frames[:12, 0].double(), frames[12:, 0].double()
    rest = second_moment(new - follows @ known)
    assert torch.allclose(rest, spread, atol=0.12 * float(spread.diagonal().max()))
