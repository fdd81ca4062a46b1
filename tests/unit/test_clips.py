"""Pre-rendered clips: what the domain draws, rendered once, and never with seeds kept for evaluation."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from models.data import domains
from models.data.clips import EVALUATION_SEED, Clips, open_clips, source_digest

CLIPS = Clips("lava", sequences=2, frames=3, size=4, first_seed=5)


def test_clips_are_what_the_domain_draws(tmp_path: Path) -> None:
    clips = open_clips(CLIPS, tmp_path)
    assert clips.shape == (2, 3, 4, 4, 3)
    np.testing.assert_array_equal(clips[1], domains.load("lava").render(6, frames=3, size=4))
    assert [path.name for path in tmp_path.iterdir()] == [CLIPS.file]


def test_clips_are_rendered_once(tmp_path: Path) -> None:
    open_clips(CLIPS, tmp_path)
    before = (tmp_path / CLIPS.file).stat().st_mtime_ns
    open_clips(CLIPS, tmp_path)
    assert (tmp_path / CLIPS.file).stat().st_mtime_ns == before


def test_each_block_and_each_version_of_a_domain_has_its_own_file() -> None:
    others = (
        dataclasses.replace(CLIPS, domain="sky"),
        dataclasses.replace(CLIPS, sequences=7),
        dataclasses.replace(CLIPS, frames=7),
        dataclasses.replace(CLIPS, size=7),
        dataclasses.replace(CLIPS, first_seed=7),
    )
    files = {clips.file for clips in (CLIPS, *others)}
    assert len(files) == 6
    assert source_digest("lava")[:12] in CLIPS.file
    assert source_digest("lava") != source_digest("sky")


def test_training_cannot_reach_the_evaluation_seeds() -> None:
    with pytest.raises(ValueError, match="reach the evaluation seeds"):
        Clips("lava", sequences=2, frames=1, size=4, first_seed=EVALUATION_SEED - 1)
    Clips("lava", sequences=2, frames=1, size=4, first_seed=EVALUATION_SEED)
