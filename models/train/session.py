"""A training run on disk: one folder with its state, its losses and pictures of both.

`advance` is the loop that a command drives: it saves every so often and whenever it is left between two steps, so a
run that is killed loses a few minutes at most and resumes exactly where it was saved.
"""

from __future__ import annotations

import time
from collections.abc import Generator
from dataclasses import dataclass, field
from pathlib import Path

from models.media import png
from models.train.batches import Data
from models.train.pictures import loss_curve
from models.train.preview import preview
from models.train.recipe import Recipe
from models.train.run import Step, Training, run

SAVE_EVERY = 200
"""Steps between two saves."""
PREVIEW_EVERY = 1000
"""Steps between two sheets of samples."""


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
class Session:
    """The folder of one run."""

    folder: Path

    @property
    def state(self) -> Path:
        """Where the run's state is kept."""
        return self.folder / "state.pt"

    @property
    def losses(self) -> Path:
        """One line a step: step, loss, learning rate, seconds."""
        return self.folder / "loss.csv"

    def open(self, recipe: Recipe) -> Training:
        """The run as it was saved last, or a fresh one."""
        self.folder.mkdir(parents=True, exist_ok=True)
        if not self.state.exists():
            self.losses.unlink(missing_ok=True)
            return Training.fresh(recipe)
        training = Training.restored(self.state)
        differing = [name for name, value in recipe if getattr(training.recipe, name) != value]
        if differing:
            raise OtherRecipe(self.folder, differing)
        self._forget_after(training.step)
        return training

    def reopen(self) -> Training:
        """The run as it was saved last, whatever its recipe."""
        if not self.state.exists():
            raise NoRun(self.folder)
        return Training.restored(self.state)

    def advance(self, training: Training, *, data: Data, threads: int) -> Generator[Step, None, None]:
        """The run's steps, recorded; closing this iterator saves the state."""
        with self.losses.open("a", encoding="utf-8") as losses:
            try:
                for step in run(training, data=data, threads=threads):
                    losses.write(f"{step.step},{step.loss:.6f},{step.learning_rate:.4g},{step.seconds:.4f}\n")
                    if step.step % SAVE_EVERY == 0:
                        losses.flush()
                        self._keep(training)
                    if step.step % PREVIEW_EVERY == 0:
                        self.show(training)
                    yield step
            except GeneratorExit:
                self._keep(training)
                raise
        self._keep(training)
        self.show(training)

    def show(self, training: Training) -> Path:
        """Draw what the averaged net makes by now."""
        sheet = self.folder / f"sheet-{training.step:06d}.png"
        sheet.write_bytes(png.encode(preview(training)))
        return sheet

    def _keep(self, training: Training) -> None:
        training.save(self.state)
        steps, losses = self._history()
        (self.folder / "loss.png").write_bytes(png.encode(loss_curve(steps, losses)))

    def _history(self) -> tuple[list[int], list[float]]:
        rows = [line.split(",") for line in self.losses.read_text(encoding="utf-8").splitlines()]
        return [int(row[0]) for row in rows], [float(row[1]) for row in rows]

    def _forget_after(self, step: int) -> None:
        if self.losses.exists():
            lines = self.losses.read_text(encoding="utf-8").splitlines(keepends=True)
            self.losses.write_text("".join(line for line in lines if int(line.split(",")[0]) <= step), encoding="utf-8")
