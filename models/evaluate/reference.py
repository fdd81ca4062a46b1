"""The real sequences that generated ones are measured against: a procedural domain, or a folder of the user's own.

Each class has two parts that never meet: the reference proper, and sequences held out, which show what real ones
score. Domains are drawn from seeds that no net is trained on; folders are `models.evaluate.folder`'s.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from models.data import domains
from models.data.clips import EVALUATION_SEED, source_digest
from models.drawing import NotServed
from models.evaluate.limits import Policy
from models.evaluate.material import Drawn
from models.spec import BundleSpec, Stage

Bytes = NDArray[np.uint8]

UNCONDITIONAL = "all"
"""What the sequences of a bundle without classes are called."""
STILLS = 96
"""Single frames that are refined, at most."""
_STILL_FRAMES = (0, 16, 32)


class Part(StrEnum):
    """Which of a class's real sequences."""

    REFERENCE = "reference"
    HELD_OUT = "held out"


class BadReference(ValueError):
    """Real sequences cannot serve as a reference; the message says what was found, what is needed and what to do."""

    def __init__(self, where: object, *, found: str, needed: str, remedy: str) -> None:
        super().__init__(f"reference {where}: {found}, but {needed}; {remedy}")


class Reference(Protocol):
    """Real sequences by class."""

    @property
    def policy(self) -> Policy:
        """What is done about limits that they do not keep."""
        ...

    def sequences(self, name: str, part: Part, *, frames: int, most: int) -> Iterator[Drawn]:
        """Up to `most` sequences of so many frames, in the bundle's sizes."""
        ...

    def longest(self, name: str, frames: int) -> int:
        """The most frames, up to `frames`, that at least two sequences of either part have."""
        ...

    def stills(self, name: str) -> Drawn:
        """Single frames that are held out, small and large: (n, H, W, 3) each."""
        ...

    def facts(self) -> dict[str, object]:
        """What it is, with a digest of what it holds."""
        ...


def class_names(spec: BundleSpec) -> tuple[str, ...]:
    """The bundle's classes; one that stands for everything where it has none."""
    return spec.classes or (UNCONDITIONAL,)


def chosen(spec: BundleSpec, wanted: Sequence[str]) -> tuple[str, ...]:
    """Those that are wanted of its classes; all if none is named."""
    there = class_names(spec)
    for name in wanted:
        if name not in there:
            raise NotServed("class", name, f"one of {', '.join(there)}")
    return tuple(dict.fromkeys(wanted)) or there


def sizes(spec: BundleSpec) -> dict[Stage, int]:
    """Side of a frame of each stage, pixels."""
    return {stage: spec.coarse_size if stage is Stage.COARSE else spec.refined_size for stage in spec.stages}


@dataclass(frozen=True)
class Procedural:
    """Domains by class."""

    spec: BundleSpec
    domains: Mapping[str, str]
    policy: Policy = Policy.FIXED

    @classmethod
    def of(cls, spec: BundleSpec, names: Sequence[str], *, mapping: Mapping[str, str]) -> Procedural:
        """Each class is the domain of its name, unless `mapping` says which."""
        chosen = {name: mapping.get(name, name) for name in names}
        known = domains.names()
        for name, domain in chosen.items():
            if domain not in known:
                needed = f"without a folder of real sequences it must be one of {', '.join(known)}"
                remedy = f"name the folder (--reference), or a domain (--class-map {name}=DOMAIN)"
                raise BadReference(
                    f"for class {name!r}", found=f"no domain is called {domain!r}", needed=needed, remedy=remedy
                )
        return cls(spec, chosen)

    def sequences(self, name: str, part: Part, *, frames: int, most: int) -> Iterator[Drawn]:
        render = domains.load(self.domains[name]).render
        first = EVALUATION_SEED if part is Part.REFERENCE else 2 * EVALUATION_SEED
        for seed in range(first, first + most):
            yield {stage: render(seed, frames=frames, size=size) for stage, size in sizes(self.spec).items()}

    def longest(self, name: str, frames: int) -> int:
        return frames

    def stills(self, name: str) -> Drawn:
        render, seeds = domains.load(self.domains[name]).render, range(STILLS // len(_STILL_FRAMES))
        places = [(3 * EVALUATION_SEED + seed, first) for seed in seeds for first in _STILL_FRAMES]
        return {
            stage: np.concatenate([render(seed, frames=1, size=size, first=first) for seed, first in places])
            for stage, size in sizes(self.spec).items()
        }

    def facts(self) -> dict[str, object]:
        digests = {domain: source_digest(domain) for domain in sorted(set(self.domains.values()))}
        return {"kind": "procedural", "domains": dict(self.domains), "digests": digests}
