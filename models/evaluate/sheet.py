"""Which sequences of a class are shown, and how large."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from models.evaluate.material import Drawn, reduced
from models.media import Frame
from models.media.sheet import contact_sheet
from models.spec import Stage

_SHOWN = {Stage.COARSE: 8, Stage.REFINE: 2}
"""Sequences on a sheet."""
_COLUMNS = {Stage.COARSE: 32, Stage.REFINE: 16}
_LARGEST = {Stage.COARSE: 64, Stage.REFINE: 128}
"""Side in pixels of a frame on a sheet; larger ones are averaged."""
_TINY = 32
"""Coarse frames up to this size are shown twice as large."""


@dataclass
class Sheets:
    """The first sequences of a class, small enough to be kept."""

    _kept: dict[Stage, list[NDArray[np.uint8]]] = field(default_factory=dict)

    def watch(self, sequences: Iterable[Drawn]) -> Iterator[Drawn]:
        """The same sequences."""
        for drawn in sequences:
            for stage, frames in drawn.items():
                kept = self._kept.setdefault(stage, [])
                if len(kept) < _SHOWN[stage]:
                    kept.append(reduced(frames, _LARGEST[stage]))
            yield drawn

    def pictures(self) -> Iterator[tuple[str, Frame]]:
        """A picture for each stage, with its name."""
        names = {Stage.COARSE: "coarse", Stage.REFINE: "refined"}
        for stage, kept in self._kept.items():
            scale = 2 if stage is Stage.COARSE and kept[0].shape[1] <= _TINY else 1
            yield names[stage], contact_sheet(kept, columns=_COLUMNS[stage], scale=scale)
