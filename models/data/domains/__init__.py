"""Procedural domains: endless, royalty-free image sequences drawn from a seed.

A domain is a file of this folder; its name is the file's name, and adding a file adds a domain.
Domains are what the model that ships is trained on, and what the tests and the quality gate
compare with. They need NumPy only.
"""

from __future__ import annotations

import importlib
import pkgutil
from typing import Protocol, cast

import numpy as np
from numpy.typing import NDArray


class Domain(Protocol):
    """What every module of this folder offers."""

    def render(self, seed: int, *, frames: int, size: int, first: int = 0) -> NDArray[np.uint8]:
        """Frames first..first+frames-1 of sequence `seed`: (frames, size, size, 3) sRGB.

        A frame depends on the seed and its own index only, and a small frame is the area mean of a
        large one, as near as makes no difference to the eye.
        """
        ...


def names() -> tuple[str, ...]:
    """The domains there are, sorted."""
    return tuple(sorted(module.name for module in pkgutil.iter_modules(__path__)))


def load(name: str) -> Domain:
    """The domain of that name; ValueError names the known ones."""
    if name not in names():
        raise ValueError(f"unknown domain {name!r}: the known ones are {', '.join(names())}")
    return cast(Domain, importlib.import_module(f"{__name__}.{name}"))
