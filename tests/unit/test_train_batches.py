"""What a net is shown: whole clips in order, noise as the schedule says, frames mirrored and degraded as promised."""

from __future__ import annotations

from collections import Counter
from dataclasses import fields

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from models import grid, schedules
from models.media import to_unit
from models.spec import ScheduleName, Stage
from models.train import batches, degradation
from models.train.batches import Batch
from models.train.data import Data, Even, Reel, Uneven
from models.train.recipe import Degradation, Draws, Recipe

CLIPS = (range(7), range(7, 9), range(9, 15))


def recipe(stage: Stage, **changes: object) -> Recipe:
    fields: dict[str, object] = {
        "name": "tiny", "stage": stage, "domains": (), "patch": 2, "width": 16, "depth": 1, "heads": 2, "grid": 2,
        "coarse_size": 4, "refined_size": 8, "batch": 6, "steps": 10, "learning_rate": 1e-2, "time_mean": 0.0,
        "low_noise": 0.0, "draws": Draws.ROW, "prefix_share": 0.0,
    }  # fmt: skip
    return Recipe.model_validate({**fields, **changes})


def numbered(stage: Stage, *, frames: int = 15) -> Data:
    """Frame i is i in its left half and i + 100 in its right half, so that place and side can be read off."""
    side = 4 if stage is Stage.COARSE else 8
    return Data((Reel(Uneven.of(CLIPS), _numbered(frames, side), _numbered(frames, 4)),))


def _numbered(frames: int, side: int) -> NDArray[np.uint8]:
    values = np.arange(frames, dtype=np.uint8)[:, None, None, None].repeat(side, 1).repeat(side, 2).repeat(3, 3)
    values[:, :, side // 2 :] += 100
    return values


def shown(clean: Tensor) -> NDArray[np.int64]:
    """(B, C, S, S) of 2 x 2 frames -> the numbers (B, 4, 2) in their left and right halves."""
    frames = grid.unpack(clean, k=2)
    return ((frames[:, :, 0, 0, [0, -1]] + 1) * 127.5).round().long().numpy()


@pytest.mark.parametrize("places", [Uneven.of(CLIPS), Even(clips=3, length=5)])
def test_windows_lie_inside_one_clip_and_all_have_the_same_chance(places: Uneven | Even) -> None:
    clips = CLIPS if isinstance(places, Uneven) else (range(5), range(5, 10), range(10, 15))
    possible = {start for clip in clips for start in clip if start + 4 <= clip.stop}
    draws = np.random.default_rng(0)
    counts = Counter(places.window(draws, length=4) for _ in range(3000))
    assert set(counts) == possible
    assert max(counts.values()) < 1.25 * min(counts.values())
    assert {places.frame(draws) for _ in range(500)} == set(range(15))


@pytest.mark.parametrize("stage", list(Stage))
def test_rows_do_not_depend_on_who_makes_them(stage: Stage) -> None:
    data = numbered(stage)
    whole = batches.batch(recipe(stage), 3, data=data)
    shares = [batches.batch(recipe(stage), 3, data=data, rows=rows) for rows in (range(2), range(2, 6))]
    for field in fields(Batch):
        parts = torch.cat([getattr(share, field.name) for share in shares])
        assert torch.equal(parts, getattr(whole, field.name)), field.name
    together = recipe(stage, draws=Draws.STEP)
    step = batches.batch(together, 3, data=data)
    assert torch.equal(batches.batch(together, 3, data=data, rows=range(2, 6)).x, step.x[2:])


def test_frames_of_a_grid_follow_each_other() -> None:
    for step in range(20):
        numbers = shown(batches.batch(recipe(Stage.COARSE), step, data=numbered(Stage.COARSE)).clean)[..., 0]
        assert (np.diff(numbers, axis=1) == 1).all()


def test_mirrored_frames_keep_their_order() -> None:
    mirrored = [
        numbers
        for step in range(20)
        for numbers in shown(batches.batch(recipe(Stage.COARSE, mirror=0.5), step, data=numbered(Stage.COARSE)).clean)
    ]
    is_flipped = [bool(numbers[0, 0] > numbers[0, 1]) for numbers in mirrored]
    assert 0.3 < np.mean(is_flipped) < 0.7
    for numbers, flipped in zip(mirrored, is_flipped, strict=True):
        left, right = numbers.T[::-1] if flipped else numbers.T
        assert (np.diff(left) == 1).all(), "time runs forward, mirrored or not"
        assert (right == left + 100).all(), "all frames of a clip alike"


def test_a_frame_to_be_refined_is_mirrored_with_its_low_one() -> None:
    rows = batches.batch(recipe(Stage.REFINE, mirror=0.5, batch=40), 0, data=numbered(Stage.REFINE))
    sides = [(rows.clean[:, 0, 0, 0] > rows.clean[:, 0, 0, -1]), (rows.x[:, 3, 0, 0] > rows.x[:, 3, 0, -1])]
    assert torch.equal(*sides)
    assert 0.3 < float(sides[0].float().mean()) < 0.7


@pytest.mark.parametrize("stage", list(Stage))
@pytest.mark.parametrize("schedule", list(ScheduleName))
def test_rows_are_noised_as_the_schedule_says(schedule: ScheduleName, stage: Stage) -> None:
    rows = batches.batch(recipe(stage, schedule=schedule, batch=64), 0, data=numbered(stage))
    level = {ScheduleName.FLOW: schedules.flow_level, ScheduleName.LINEAR: schedules.linear_level}[schedule]
    for row, time in enumerate(rows.times.tolist()):
        expected = level(time)
        drawn = expected.alpha * rows.clean[row] + expected.sigma * rows.noise[row]
        torch.testing.assert_close(rows.noisy[row], drawn, rtol=1e-5, atol=1e-5)
    assert abs(float(rows.noise.mean())) < 0.05
    assert abs(float(rows.noise.std()) - 1) < 0.05
    if schedule is ScheduleName.LINEAR:
        assert set(rows.times.tolist()) <= set(map(float, range(1000)))
        assert 300 < float(rows.times.mean()) < 700


def test_no_row_is_given_to_nets_that_know_none() -> None:
    rows = batches.batch(recipe(Stage.COARSE), 0, data=numbered(Stage.COARSE))
    assert rows.counted == 6 * 3 * 8 * 8
    given = batches.batch(recipe(Stage.COARSE, prefix_share=1.0), 0, data=numbered(Stage.COARSE))
    assert given.counted == 6 * 3 * 4 * 8


def test_sixteen_bits_reach_the_net() -> None:
    values = np.array([0, 1, 32768, 65535], np.uint16).reshape(1, 2, 2, 1)
    unit = to_unit(values)
    assert unit.shape == (1, 1, 2, 2)
    torch.testing.assert_close(
        (unit.double() + 1) * 32767.5, torch.tensor(values.astype(float)).movedim(-1, 1), atol=0.01, rtol=0
    )


def test_the_published_degradation_blurs_half_and_adds_noise_of_10_to_15() -> None:
    grey = torch.zeros(400, 1, 32, 32)
    low = degradation.degraded(grey, coarse_size=8, noise=torch.Generator().manual_seed(0))
    spread = low.flatten(1).std(dim=1) * 127.5
    sharp = spread > 7
    assert 0.4 < float(sharp.float().mean()) < 0.6, "a blur takes most of the noise away"
    assert float(spread[sharp].min()) > 9
    assert float(spread[sharp].max()) < 16.5
    assert 12 < float(spread[sharp].mean()) < 13
    assert float(spread[~sharp].max()) < 4.5


def test_the_published_degradation_keeps_no_more_than_the_small_frame_holds() -> None:
    generator = torch.Generator().manual_seed(0)
    checks = torch.tensor([[1.0, -1.0], [-1.0, 1.0]]).repeat(16, 16)[None, None]
    ramp = torch.linspace(-0.8, 0.8, 32)[None, None, None, :].expand(1, 1, 32, 32)
    seen = [
        degradation.degraded(x.expand(64, -1, -1, -1), coarse_size=8, noise=generator).mean(0) for x in (checks, ramp)
    ]
    assert float(seen[0].abs().mean()) < 0.05
    torch.testing.assert_close(seen[1][..., 4:-4], ramp[0, ..., 4:-4], atol=0.08, rtol=0)


@pytest.mark.parametrize("kernel", degradation.KERNELS)
def test_a_blur_is_a_gaussian_of_its_kernels_width(kernel: int) -> None:
    point = torch.zeros(1, 33, 33)
    point[0, 16, 16] = 1
    spread = degradation.blurred(point, kernel)[0]
    torch.testing.assert_close(spread.sum(), torch.tensor(1.0))
    assert torch.count_nonzero(spread) == kernel**2
    torch.testing.assert_close(spread, spread.T)
    variance = float((spread.sum(0) * (torch.arange(33) - 16) ** 2).sum())
    assert variance == pytest.approx((0.3 * ((kernel - 1) / 2 - 1) + 0.8) ** 2, rel=0.1)


def test_refinement_from_degraded_frames_needs_no_low_ones() -> None:
    reel = numbered(Stage.REFINE).reels[0]
    data = Data((Reel(reel.places, reel.frames),))
    rows = batches.batch(recipe(Stage.REFINE, degradation=Degradation.PUBLISHED), 0, data=data)
    assert rows.x.shape == (6, 6, 8, 8)


def test_clips_of_one_length_are_drawn_as_ever() -> None:
    """The bundled recipes' draws: a change of their order would change what a resumed run sees."""
    draws, same = np.random.default_rng(5), np.random.default_rng(5)
    start, clip = int(same.integers(5 - 4 + 1)), int(same.integers(3))
    assert Even(clips=3, length=5).window(draws, length=4) == clip * 5 + start
    clip, frame = int(same.integers(3)), int(same.integers(5))
    assert Even(clips=3, length=5).frame(draws) == clip * 5 + frame
