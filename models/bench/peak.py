"""The fastest matrix product that this machine was seen to do, by precision: what shares of a peak refer to.

Measured by torch's own library over square matrices, all threads, best of many: no data sheet is believed. Precisions
that torch multiplies only in slow emulation here are left out: float16 and integers on a CPU.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import torch
from torch import Tensor

from models import devices
from models.bench import flops
from models.bench.report import Peak
from models.engine import Precision

SIDE, TRIES = 4096, 20
_FLOAT8_SINCE = (8, 9)
"""Compute capability."""


def measure(device: torch.device, precision: Precision, *, side: int = SIDE, tries: int = TRIES) -> Peak:
    """The peak of a precision, which should be one of `precisions`."""
    return Peak(precision=precision, side=side, tries=tries, flops=_best(device, precision, side=side, tries=tries))


def precisions(device: torch.device) -> tuple[Precision, ...]:
    """Those whose products torch has a fast kernel for on this device, as far as it knows."""
    if device.type != devices.GPU:
        return Precision.FP32, Precision.BF16
    plain = (Precision.FP32, Precision.BF16, Precision.FP16)
    able = torch.cuda.get_device_capability(device) >= _FLOAT8_SINCE and hasattr(torch, "_scaled_mm")
    return (*plain, Precision.FP8) if able else plain


@torch.inference_mode()
def _best(device: torch.device, precision: Precision, *, side: int, tries: int) -> float:
    product = _product(device, precision, side)
    product()  # libraries choose their kernels at the first call
    return flops.per_second(2 * side**3, [_timed(product, device) for _ in range(tries)])


def _product(device: torch.device, precision: Precision, side: int) -> Callable[[], Tensor]:
    generator = torch.Generator().manual_seed(0)
    left, right = (torch.randn(side, side, generator=generator).to(device) for _ in range(2))
    if precision is not Precision.FP8:
        dtype = precision.dtype
        left, right = left.to(dtype), right.to(dtype)
        return lambda: left @ right
    one = torch.ones((), device=device)
    narrow, turned = left.to(torch.float8_e4m3fn), right.to(torch.float8_e4m3fn).t()  # the kernel takes it by columns
    return lambda: torch._scaled_mm(narrow, turned, scale_a=one, scale_b=one, out_dtype=torch.float16)


def _timed(product: Callable[[], Tensor], device: torch.device) -> float:
    settle(device)
    began = time.perf_counter()
    product()
    settle(device)
    return time.perf_counter() - began


def settle(device: torch.device) -> None:
    """Wait until a GPU has done what it was given."""
    if device.type == devices.GPU:
        torch.cuda.synchronize(device)
