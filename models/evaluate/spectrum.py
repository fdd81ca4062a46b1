"""Does refinement add the detail that real frames have? Power spectra of single frames.

What lies above the coarse frame's highest frequency has to be invented, so it cannot be compared
pixel by pixel; its power at each scale can. Interpolation leaves these scales empty.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Bytes = NDArray[np.uint8]
Doubles = NDArray[np.float64]
_LUMINANCE = np.array([0.299, 0.587, 0.114])
_NOTHING = 1e-14


def radial_power(frames: Bytes) -> Doubles:
    """Mean power of luminance in dB at each whole number of cycles a frame: (N, H, H, 3) -> (H / 2,)."""
    size = frames.shape[1]
    total = np.zeros((size, size // 2 + 1))
    for frame in frames:
        grey = frame @ _LUMINANCE / 255.0
        total += np.abs(np.fft.rfft2(_window(size) * (grey - grey.mean()))) ** 2
    cycles = np.hypot(np.fft.fftfreq(size)[:, None], np.fft.rfftfreq(size)[None, :]) * size
    ring = np.minimum(np.rint(cycles), size // 2).astype(np.int64)
    power = np.bincount(ring.ravel(), weights=total.ravel()) / np.bincount(ring.ravel())
    return np.asarray(10.0 * np.log10(power[: size // 2] / (len(frames) * size**4) + _NOTHING))


def spectrum_error(frames: Bytes, real: Bytes, *, above: int) -> float:
    """Mean distance in dB between the spectra of frames and of real ones, from `above` cycles a frame upwards."""
    return float(np.abs(radial_power(frames) - radial_power(real))[above:].mean())


def _window(size: int) -> Doubles:
    """Hann window (H, H): without it the jump from one edge to the other fills every frequency."""
    hann = np.hanning(size + 2)[1:-1]
    return np.asarray(hann[:, None] * hann[None, :])
