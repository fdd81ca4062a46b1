"""A training run on disk: one folder with its state, its losses and pictures of both.

`advance` is the loop that a command drives: it saves every so often and whenever it is left between two steps, so a
run that is killed at any moment loses a few minutes at most, and resumes exactly where it was saved. Every file is
written aside and renamed, but for the losses: of those, what is torn or later than the state is dropped.
"""

from __future__ import annotations

import os
import time
from collections.abc import Generator, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from models.media import png
from models.train.board import Board
from models.train.data import Data
from models.train.pictures import loss_curve
from models.train.preview import preview
from models.train.recipe import Recipe
from models.train.run import Step, Training, run
from models.train.team import Team

_FIELDS = 4
"""Of a line of losses."""


class OtherRecipe(ValueError):
    """A folder holds a run of another recipe."""

    def __init__(self, folder: Path, differing: list[str]) -> None:
        fields = ", ".join(differing)
        super().__init__(f"{folder} holds a run whose recipe differs in {fields}: choose another folder, or remove it")


class NoRun(ValueError):
    """A folder holds no run."""

    def __init__(self, folder: Path) -> None:
        super().__init__(f"{folder} holds no run: gridit train {folder.name} starts one")


@dataclass(frozen=True, slots=True)
class Budget:
    """How much of a run is done at a stretch; whatever is used up first ends it."""

    steps: int | None = None
    minutes: float | None = None
    began: float = field(default_factory=time.monotonic)

    def is_spent(self, *, done: int) -> bool:
        """Whether to stop now, `done` steps from where it began."""
        late = self.minutes is not None and time.monotonic() - self.began >= 60 * self.minutes
        return late or (self.steps is not None and done >= self.steps)


@dataclass(frozen=True, slots=True)
class Cadence:
    """Steps between two saves, and between two sheets of samples."""

    save_every: int = 200
    sheet_every: int = 1000


@dataclass(frozen=True, slots=True)
class Session:
    """The folder of one run, and the team that works on it, of which one process alone writes."""

    folder: Path
    team: Team = field(default_factory=Team)

    @property
    def state(self) -> Path:
        """Where the run's state is kept."""
        return self.folder / "state.pt"

    @property
    def losses(self) -> Path:
        """One line a step: step, loss, learning rate, seconds."""
        return self.folder / "loss.csv"

    def recipe(self) -> Recipe | None:
        """That of the run as it was saved last, if there is one."""
        if not self.state.exists():
            return None
        return Recipe.model_validate(torch.load(self.state, weights_only=True, mmap=True)["recipe"])

    def open(self, recipe: Recipe, *, weights: Mapping[str, Tensor] | None = None) -> Training:
        """The run as it was saved last, or a fresh one (from `weights`, where they are given)."""
        if not self.state.exists():
            training = Training.fresh(recipe, weights=weights, device=self.team.device)
        else:
            training = Training.restored(self.state, device=self.team.device)
        differing = [name for name, value in recipe if getattr(training.recipe, name) != value]
        if differing:
            raise OtherRecipe(self.folder, differing)
        if self.team.leads:
            self._tidy(training.step)
        return training

    def reopen(self) -> Training:
        """The run as it was saved last, whatever its recipe."""
        if not self.state.exists():
            raise NoRun(self.folder)
        return Training.restored(self.state, device=self.team.device)

    def advance(
        self, training: Training, *, data: Data, threads: int, cadence: Cadence | None = None
    ) -> Generator[Step, None, None]:
        """The run's steps, recorded; closing this iterator saves the state."""
        steps = run(training, data=data, threads=threads, team=self.team)
        if not self.team.leads:
            yield from steps
            return
        cadence = Cadence() if cadence is None else cadence
        with self.losses.open("a", encoding="utf-8") as losses, closing(Board.at(self.folder, training.step)) as board:
            try:
                for step in steps:
                    losses.write(f"{step.step},{step.loss:.6f},{step.learning_rate:.4g},{step.seconds:.4f}\n")
                    board.note(step)
                    if step.step % cadence.save_every == 0:
                        losses.flush()
                        self._keep(training)
                    if step.step % cadence.sheet_every == 0:
                        board.show(step.step, self.show(training, data=data))
                    yield step
            except GeneratorExit:
                losses.flush()
                self._keep(training)
                raise
            losses.flush()
            self._keep(training)
            board.show(training.step, self.show(training, data=data))

    def show(self, training: Training, *, data: Data) -> Path:
        """Draw what the averaged net makes by now."""
        sheet = self.folder / f"sheet-{training.step:06d}.png"
        _write(sheet, png.encode(preview(training, data=data)))
        return sheet

    def _keep(self, training: Training) -> None:
        training.save(self.state)
        steps, losses = self._history()
        _write(self.folder / "loss.png", png.encode(loss_curve(steps, losses)))

    def _history(self) -> tuple[list[int], list[float]]:
        rows = [line.split(",") for line in self.losses.read_text(encoding="utf-8").splitlines()]
        return [int(row[0]) for row in rows], [float(row[1]) for row in rows]

    def _tidy(self, step: int) -> None:
        """Drop what a run that was killed left behind: half-written files, losses later than its state."""
        self.folder.mkdir(parents=True, exist_ok=True)
        for aside in self.folder.glob(".*.*"):
            aside.unlink()
        if self.losses.exists():
            lines = self.losses.read_text(encoding="utf-8").splitlines(keepends=True)
            _write(self.losses, "".join(line for line in lines if _is_of(line, up_to=step)).encode())


def _is_of(line: str, *, up_to: int) -> bool:
    """Whether a line of losses is whole, and not of a later step."""
    fields = line.split(",")
    return line.endswith("\n") and len(fields) == _FIELDS and int(fields[0]) <= up_to


def _write(path: Path, data: bytes) -> None:
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    aside.write_bytes(data)
    aside.replace(path)
