"""Laws of grids and plans: every frame of a sequence is made exactly once, where its grid says."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from models import grid
from models.plan import REFINE_ROWS, Request, UnitKind, plan
from models.spec import Stage
from tests.tiny import tiny_spec

shapes = st.integers(2, 8).flatmap(lambda k: st.tuples(st.just(k), st.integers(1, k - 1)))


@given(k=st.integers(2, 8), side=st.integers(1, 5), channels=st.integers(1, 4))
def test_unpack_inverts_pack(k: int, side: int, channels: int) -> None:
    frames = torch.arange(2 * k * k * channels * side * side).reshape(2, k * k, channels, side, side)
    packed = grid.pack(frames, k=k)
    assert packed.shape == (2, channels, k * side, k * side)
    assert torch.equal(grid.unpack(packed, k=k), frames)


def test_frames_lie_row_by_row() -> None:
    frames = torch.arange(9).reshape(1, 9, 1, 1, 1)
    assert grid.pack(frames, k=3)[0, 0].tolist() == [[0, 1, 2], [3, 4, 5], [6, 7, 8]]


@given(shape=shapes, num_frames=st.integers(1, 500))
def test_new_frames_of_all_grids_are_the_sequence(shape: tuple[int, int], num_frames: int) -> None:
    k, overlap = shape
    grids = range(grid.count(num_frames, k=k, overlap=overlap))
    every = [frame for index in grids for frame in grid.new_frames(index, num_frames, k=k, overlap=overlap)]
    assert every == list(range(num_frames))
    assert all(grid.new_frames(index, num_frames, k=k, overlap=overlap) for index in grids), "no grid is drawn in vain"


@given(shape=shapes, index=st.integers(1, 20))
def test_known_rows_are_the_last_rows_of_the_grid_before(shape: tuple[int, int], index: int) -> None:
    k, overlap = shape
    first = grid.first_frame(index, k=k, overlap=overlap)
    before = grid.first_frame(index - 1, k=k, overlap=overlap)
    assert first - before == k * k - k * overlap


@pytest.mark.parametrize("last", list(Stage))
@given(num_frames=st.integers(1, 200), overlap=st.integers(1, 3))
def test_a_plan_makes_each_frame_once_a_stage_and_needs_only_what_came_before(
    last: Stage, num_frames: int, overlap: int
) -> None:
    spec = tiny_spec(overlap_rows=overlap)
    units = plan(spec, Request(num_frames, 0, None, 2, 2, "euler", 1.0, last))
    for kind in UnitKind:
        frames = [frame for unit in units if unit.kind is kind for frame in unit.frames]
        wanted = kind is UnitKind.COARSE or last is Stage.REFINE
        assert sorted(frames) == (list(range(num_frames)) if wanted else [])
    seen: set[str] = set()
    for unit in units:
        assert seen.issuperset(unit.requires)
        assert len(unit.frames) <= max(REFINE_ROWS, spec.grid**2)
        seen.add(unit.key)
    assert len(seen) == len(units)
