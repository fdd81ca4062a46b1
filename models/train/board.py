"""The run in TensorBoard, where that is installed: loss, learning rate, speed, and the sheets of samples."""

from __future__ import annotations

import importlib
import importlib.util
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from models.train.run import Step


@dataclass(frozen=True, slots=True)
class Board:
    """What is noted for TensorBoard; without it nothing is."""

    writer: Any | None
    """A `SummaryWriter`, which carries no types."""

    @classmethod
    def at(cls, folder: Path, step: int) -> Board:
        """In `folder`/tensorboard; what was noted of later steps is taken back."""
        if importlib.util.find_spec("tensorboard") is None:
            return cls(None)
        library = importlib.import_module("torch.utils.tensorboard")
        return cls(library.SummaryWriter(folder / "tensorboard", purge_step=step + 1))

    def note(self, step: Step) -> None:
        """The figures of a step."""
        if self.writer is not None:
            speed = 1 / max(step.seconds, 1e-9)
            figures = {"loss": step.loss, "learning rate": step.learning_rate, "steps a second": speed}
            for name, value in figures.items():
                self.writer.add_scalar(name, value, step.step)

    def show(self, step: int, sheet: Path) -> None:
        """A sheet of samples, from its file."""
        if self.writer is not None:
            self.writer.add_image("samples", np.asarray(Image.open(sheet).convert("RGB")), step, dataformats="HWC")

    def close(self) -> None:
        """Write what is left."""
        if self.writer is not None:
            self.writer.close()
