"""Teams and boards: how rows are shared, and that a run needs neither torchrun nor TensorBoard."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest
import torch

from models.train.board import Board
from models.train.run import Step
from models.train.team import Team, TooMany, gathered


def test_every_row_is_somebodys() -> None:
    shares = [Team(rank, 3).share(12) for rank in range(3)]
    assert [row for share in shares for row in share] == list(range(12))
    assert [Team(rank, 3).leads for rank in range(3)] == [True, False, False]
    with pytest.raises(TooMany, match="batch 4 is not a multiple of 3 processes: take --batch 6"):
        Team(0, 3).share(4)


def test_alone_a_sum_is_what_it_is_of() -> None:
    with gathered("cpu") as team:
        assert (team.size, team.leads) == (1, True)
        assert torch.equal(team.sum([torch.arange(3)])[0], torch.arange(3))
        assert (team.agree(True), team.agree(False)) == (True, False)
        team.wait()


def test_without_tensorboard_nothing_is_noted(tmp_path: Path) -> None:
    board = Board(None)
    board.note(Step(1, 0.5, 1e-3, 0.1))
    board.show(1, tmp_path / "none.png")
    board.close()
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(importlib.util.find_spec("tensorboard") is None, reason="needs TensorBoard")
def test_with_tensorboard_a_file_of_events_is_written(tmp_path: Path) -> None:
    board = Board.at(tmp_path, 0)
    board.note(Step(1, 0.5, 1e-3, 0.1))
    board.close()
    (events,) = (tmp_path / "tensorboard").iterdir()
    assert events.stat().st_size > 100
