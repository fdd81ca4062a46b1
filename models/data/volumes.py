"""Volumes as sequences of slices: NIfTI files, and NumPy stacks.

A NIfTI volume is turned to its closest anatomical axes and cut into axial slices from the feet up, each as radiologists
look at it (the patient's right on the left, the front at the top). A NumPy stack is (slices, H, W[, C]).
What is stored as 8 or 16 bits without a sign stays as it is; any other values need a `Window` to become 16 bits.
"""

from __future__ import annotations

import importlib
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.data.errors import BadData

_GET_IT_AGAIN = "copy it again from where it came from, or remove it"


@dataclass(frozen=True, slots=True)
class Window:
    """The values that become 0 and 65535; what lies beyond is cut off."""

    low: float
    high: float

    @classmethod
    def around(cls, level: float, *, width: float) -> Window:
        """As radiologists name it."""
        return cls(level - width / 2, level + width / 2)

    @classmethod
    def parse(cls, text: str) -> Window:
        """From "LEVEL,WIDTH"; `BadData` says what it should be."""
        try:
            level, width = (float(part) for part in text.split(","))
        except ValueError:
            width = level = 0.0
        if not width > 0:
            expected = "LEVEL,WIDTH with a width of more than 0"
            raise BadData("window", found=repr(text), expected=expected, remedy="write it such as 40,400")
        return cls.around(level, width=width)

    def apply(self, values: NDArray[Any]) -> NDArray[np.uint16]:
        """Any values -> uint16, rounded."""
        share = (values.astype(np.float64) - self.low) / max(self.high - self.low, np.finfo(np.float64).tiny)
        stored: NDArray[np.uint16] = np.rint(share.clip(0, 1) * np.iinfo(np.uint16).max).astype(np.uint16)
        return stored


def read(path: Path) -> NDArray[Any]:
    """(slices, H, W, C) as stored, C 1 or 3."""
    values = _nifti(path) if path.name.lower().endswith((".nii", ".nii.gz")) else _stack(path)
    if values.ndim == 3:
        values = values[..., None]
    if values.ndim != 4 or values.shape[-1] not in (1, 3) or not values.size:
        expected = "a volume of 3 dimensions, or a stack of slices with 1 or 3 channels"
        raise BadData(path, found=f"shape {values.shape}", expected=expected, remedy="cut it into such volumes")
    if values.dtype.kind not in "uif":
        raise BadData(path, found=f"values of type {values.dtype}", expected="numbers", remedy="convert it")
    if values.dtype.kind == "f" and not np.isfinite(values).all():
        raise BadData(path, found="values that are not finite", expected="numbers", remedy="fill them in")
    return values


def needs_window(values: NDArray[Any]) -> bool:
    """Whether the values are other than 8 or 16 bits without a sign."""
    return values.dtype not in (np.uint8, np.uint16)


def _nifti(path: Path) -> NDArray[Any]:
    try:
        nibabel: Any = importlib.import_module("nibabel")  # optional, and without types
    except ImportError as error:
        remedy = "pip install 'gridit-serve[volumes]', or store it as a NumPy stack (.npy)"
        found = "a NIfTI file and no nibabel"
        raise BadData(path, found=found, expected="nibabel to read it", remedy=remedy) from error
    broken = (nibabel.filebasedimages.ImageFileError, OSError, EOFError, ValueError)
    try:
        values: NDArray[Any] = np.asanyarray(nibabel.as_closest_canonical(nibabel.load(path)).dataobj)
    except broken as error:
        found = f"data that does not read ({error})"
        raise BadData(path, found=found, expected="NIfTI", remedy=_GET_IT_AGAIN) from error
    if values.ndim != 3:
        raise BadData(path, found=f"shape {values.shape}", expected="3 dimensions", remedy="cut it into such volumes")
    # Axes point right, to the front and up; slices are wanted as (up, front to back, right to left).
    return values.transpose(2, 1, 0)[:, ::-1, ::-1]


def _stack(path: Path) -> NDArray[Any]:
    try:
        loaded = np.load(path, allow_pickle=False)
        if isinstance(loaded, np.ndarray):
            return loaded
        with loaded:
            names = loaded.files
            if len(names) != 1 and "frames" not in names:
                expected = "one array, or one that is named frames"
                raise BadData(path, found=f"arrays {', '.join(names)}", expected=expected, remedy="store them apart")
            values: NDArray[Any] = loaded["frames" if "frames" in names else names[0]]
            return values
    except (ValueError, OSError, EOFError, zipfile.BadZipFile) as error:
        if isinstance(error, BadData):
            raise
        found = f"data that does not read ({error})"
        raise BadData(path, found=found, expected="a NumPy array of numbers", remedy=_GET_IT_AGAIN) from error
