"""Laws of grids and plans: every frame of a sequence is made exactly once, where its grid says."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from models import grid
from models.plan import REFERENCE, REFINE_ROWS, Request, frames_made, plan
from models.spec import AutoencoderSpec, BundleSpec, Mode, Stage
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


def request(num_frames: int, **changes: object) -> Request:
    return replace(Request(num_frames, 0, None, 2, 2, "euler", 1.0), **changes)  # type: ignore[arg-type]


def latent(spec: BundleSpec) -> BundleSpec:
    """The same bundle over latents of half the size: no net is run here."""
    vae = AutoencoderSpec(file="vae.safetensors", sha256="0" * 64, latent_channels=4, downsample=2)
    return spec.model_copy(update={"autoencoder": vae})


def check(spec: BundleSpec, wanted: Request, *, total: int) -> None:
    """Each frame once a stage, where its grid is whole; whatever is needed came before."""
    units = plan(spec, wanted)
    for stage in Stage:
        frames = [frame for unit in units if unit.stage is stage for frame in unit.frames]
        asked = stage is Stage.COARSE or wanted.last is Stage.REFINE
        assert sorted(frames) == (list(range(total)) if asked else [])
    seen: set[str] = {REFERENCE}
    for unit in units:
        assert seen.issuperset(unit.requires)
        assert len(unit.frames) == len(unit.cells) <= max(REFINE_ROWS, spec.grid**2)
        assert all(0 <= cell < spec.grid**2 for cell in unit.cells)
        seen.add(unit.key)
    assert len(seen) == len(units) + 1
    assert frames_made(wanted) == total


@pytest.mark.parametrize("last", list(Stage))
@pytest.mark.parametrize("form", [lambda spec: spec, latent], ids=["pixels", "latents"])
@given(num_frames=st.integers(1, 200), overlap=st.integers(1, 3), slow=st.integers(1, 15))
def test_a_plan_makes_each_frame_once_a_stage_and_needs_only_what_came_before(
    last: Stage, form: Callable[[BundleSpec], BundleSpec], num_frames: int, overlap: int, slow: int
) -> None:
    spec = form(tiny_spec(overlap_rows=overlap))
    check(spec, request(num_frames, last=last, slow_motion=slow), total=num_frames)


@pytest.mark.parametrize("form", [lambda spec: spec, latent], ids=["pixels", "latents"])
@pytest.mark.parametrize(("asked", "made"), [(1, 16), (8, 24), (16, 24), (19, 24), (20, 32), (64, 56), (1024, 696)])
def test_the_official_mode_makes_as_many_frames_as_the_released_loop(
    form: Callable[[BundleSpec], BundleSpec], asked: int, made: int
) -> None:
    check(form(tiny_spec()), request(asked, mode=Mode.OFFICIAL), total=made)


@given(shape=shapes, frame=st.integers(0, 300))
def test_the_holder_of_a_frame_is_the_first_grid_that_has_it(shape: tuple[int, int], frame: int) -> None:
    k, overlap = shape
    index = grid.holder(frame, k=k, overlap=overlap)
    assert frame in grid.new_frames(index, 10_000, k=k, overlap=overlap)
