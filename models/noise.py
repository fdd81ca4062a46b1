"""Noise as a pure function of (seed, stream, step).

Counter-based bits from Philox and our own Box-Muller transform (NumPy promises stable bits, not stable normals), so
a unit that starts again draws what it drew before and no unit's noise depends on another's. Tests and parity runs
pass any other function of the same type.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cache

import numpy as np
import torch
from torch import Tensor

from models.devices import sent

_TO_UNIT = 2.0**-53


@dataclass(frozen=True, slots=True)
class NoiseKey:
    """One draw: which stream of the job (its unit, say), and the how-manieth of that stream."""

    stream: str
    step: int
    shape: tuple[int, ...]


NoiseSource = Callable[[NoiseKey], Tensor]
"""A key -> standard normal float32 of the key's shape, on the device that the unit is to work on."""


def philox(seed: int, *, device: torch.device | None = None) -> NoiseSource:
    """The product's own noise: independent streams under one 64-bit seed, drawn on the CPU, handed out on `device`."""

    def draw(key: NoiseKey) -> Tensor:
        stream = int.from_bytes(hashlib.sha256(key.stream.encode()).digest()[:8], "little")
        bits = np.random.Philox(key=[seed % 2**64, stream], counter=[0, 0, 0, key.step])
        count = int(np.prod(key.shape))
        raw = bits.random_raw(2 * -(-count // 2))
        return sent(torch.from_numpy(_box_muller(raw)[:count].astype(np.float32).reshape(key.shape)), device)

    return draw


def ahead(source: NoiseSource, *, kept: int = 4) -> NoiseSource:
    """The same noise without the wait: what follows a draw is made on another thread, and the last few are kept.

    Units of one job ask for the same draws one after another (refinement) or for one after the other (samplers that
    take fresh noise at every step: those are the draws after a stream's first). Not thread safe itself.
    """
    drawn: OrderedDict[NoiseKey, Future[Tensor]] = OrderedDict()

    def draw(key: NoiseKey) -> Tensor:
        noise = drawn.get(key)
        if noise is None or noise.cancel():  # not begun: sooner made here
            noise = drawn[key] = Future()
            noise.set_result(source(key))
        drawn.move_to_end(key)
        following = replace(key, step=key.step + 1)
        if key.step and following not in drawn:
            drawn[following] = _ahead().submit(source, following)
        while len(drawn) > kept:
            drawn.popitem(last=False)
        return noise.result()

    return draw


@cache
def _ahead() -> ThreadPoolExecutor:
    """One thread for all: it works while a device does."""
    return ThreadPoolExecutor(1, thread_name_prefix="noise")


def _box_muller(raw: np.ndarray[tuple[int], np.dtype[np.uint64]]) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    uniform = ((raw >> np.uint64(11)).astype(np.float64) + 0.5) * _TO_UNIT  # in (0, 1), both ends excluded
    radius, angle = np.sqrt(-2.0 * np.log(uniform[::2])), 2.0 * np.pi * uniform[1::2]
    return np.concatenate([radius * np.cos(angle), radius * np.sin(angle)])
