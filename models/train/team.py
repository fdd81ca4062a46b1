"""Processes that train one net together: each makes the gradients of its rows, and all step by their sum.

`torchrun` starts them and says who is who. Weights stay alike because every process starts from the same ones and
takes the same steps; so one process keeps the state. Sums are all that is exchanged, once a step: with a step's rows
drawn one by one, what is learnt does not depend on how many processes share them, but for the rounding of that sum.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta

import torch
from torch import Tensor
from torch import distributed as dist

PATIENCE = timedelta(hours=12)
"""For one process that decodes all sequences while the others wait; a dead one is noticed by torchrun at once."""


class TooMany(ValueError):
    """More processes than rows."""

    def __init__(self, batch: int, size: int) -> None:
        super().__init__(
            f"batch {batch} is not a multiple of {size} processes: take --batch {-(-batch // size) * size}"
        )


@dataclass(frozen=True, slots=True)
class Team:
    """This process among those that train together."""

    rank: int = 0
    size: int = 1
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))

    @property
    def leads(self) -> bool:
        """Whether it is the one that writes and speaks."""
        return self.rank == 0

    def share(self, batch: int) -> range:
        """Its rows of a batch."""
        if batch % self.size:
            raise TooMany(batch, self.size)
        rows = batch // self.size
        return range(self.rank * rows, (self.rank + 1) * rows)

    def sum(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        """Every tensor summed over all processes."""
        if self.size == 1:
            return list(tensors)
        joined = torch.cat([tensor.reshape(-1) for tensor in tensors])
        dist.all_reduce(joined)
        parts = torch.split(joined, [tensor.numel() for tensor in tensors])
        return [part.reshape(tensor.shape) for part, tensor in zip(parts, tensors, strict=True)]

    def agree(self, wish: bool) -> bool:  # noqa: FBT001 - a vote
        """Whether any process wishes so: all get the same answer."""
        return bool(self.sum([torch.tensor([float(wish)], device=self.device)])[0].item())

    def wait(self) -> None:
        """Until all have come so far."""
        if self.size > 1:
            dist.barrier()


@contextmanager
def gathered(device: str) -> Iterator[Team]:
    """The team that torchrun started this process in, or this process alone. `device`: auto, cpu or cuda."""
    chosen = ("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device
    size, local = int(os.environ.get("WORLD_SIZE", "1")), int(os.environ.get("LOCAL_RANK", "0"))
    place = torch.device(chosen, local) if chosen == "cuda" else torch.device(chosen)
    if size == 1:
        yield Team(device=place)
        return
    if place.type == "cuda":
        torch.cuda.set_device(place)
    dist.init_process_group("nccl" if place.type == "cuda" else "gloo", timeout=PATIENCE)
    try:
        yield Team(dist.get_rank(), size, place)
    finally:
        dist.destroy_process_group()
