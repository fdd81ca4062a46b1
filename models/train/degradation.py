"""The published degradation: what a net that refines is trained to undo.

Bicubic down to the coarse size and up again, Gaussian noise of a standard deviation of 10 to 15 (of 255), and with
probability 0.5 a Gaussian blur with a kernel of 9 to 15 pixels. The paper names no standard deviation of the blur; here
it goes with the kernel as image libraries have it: 0.3 ((k - 1) / 2 - 1) + 0.8.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

NOISE = (10 / 127.5, 15 / 127.5)
"""Standard deviations of the noise, of frames in -1..1."""
BLUR_SHARE = 0.5
KERNELS = (9, 11, 13, 15)


def degraded(frames: Tensor, *, coarse_size: int, noise: torch.Generator) -> Tensor:
    """(B, C, S, S) in [-1, 1] -> the same shape; every frame is degraded by draws of its own."""
    size = frames.shape[-1]
    small = F.interpolate(frames, size=coarse_size, mode="bicubic", align_corners=False, antialias=True)
    large = F.interpolate(small, size=size, mode="bicubic", align_corners=False).clamp(-1, 1)
    low, high = NOISE
    deviation = low + (high - low) * torch.rand(len(frames), 1, 1, 1, generator=noise)
    noisy = large + deviation * torch.randn(large.shape, generator=noise)
    chosen = torch.randint(len(KERNELS), (len(frames),), generator=noise).tolist()
    is_blurred = (torch.rand(len(frames), generator=noise) < BLUR_SHARE).tolist()
    rows = zip(noisy, chosen, is_blurred, strict=True)
    return torch.stack([blurred(row, KERNELS[k]) if blur else row for row, k, blur in rows]).clamp(-1, 1)


def blurred(frame: Tensor, kernel: int) -> Tensor:
    """(C, S, S), convolved with a Gaussian `kernel` pixels wide, mirrored beyond its edges."""
    half = kernel // 2
    deviation = 0.3 * ((kernel - 1) / 2 - 1) + 0.8
    weights = torch.exp(-((torch.arange(kernel) - half) ** 2) / (2 * deviation**2))
    weights = weights / weights.sum()
    padded = F.pad(frame[:, None], (half,) * 4, mode="reflect")  # (C, 1, S + 2 half, S + 2 half)
    across = F.conv2d(padded, weights[None, None, None, :])
    return F.conv2d(across, weights[None, None, :, None])[:, 0]
