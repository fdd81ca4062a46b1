"""What can be measured on image sequences without any trained net.

Sequences come as bytes, (S, F, H, W, 3) sRGB, and figures go in units of the range 0..1, in
decibels, or without unit. Nothing here knows what is depicted; together the figures tell a sequence that
moves, shines and varies as real ones do from one that does not.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Bytes = NDArray[np.uint8]
Doubles = NDArray[np.float64]
_Floats = NDArray[np.float32]

_LEVEL, _SHARE, _RATE, _FAINT = 0.02, 0.08, 0.1, 0.01
FEATURES = {
    "red": _LEVEL, "green": _LEVEL, "blue": _LEVEL,
    "red spread": _LEVEL, "green spread": _LEVEL, "blue spread": _LEVEL, "colourfulness": _LEVEL,
    "shadows": _LEVEL, "median": _LEVEL, "highlights": _LEVEL,
    "top": _LEVEL, "middle": _LEVEL, "bottom": _LEVEL,
    "slope across": _SHARE, "slope down": _SHARE, "roughness": _SHARE,
    "motion": _SHARE, "unsteadiness": _SHARE, "drift of eight frames": _SHARE, "drift of half the frames": _SHARE,
    "acceleration": _SHARE, "misfit": _SHARE,
    "flow right": _RATE, "flow down": _RATE, "brightening": _RATE, "afterglow": _FAINT,
}  # fmt: skip
"""The columns of a description, each with the least spread over sequences that is worth telling apart."""
DIRECTED = slice(-4, None)
"""The columns that change sign when time runs backwards."""
BINS = 32
_COLUMN = {name: index for index, name in enumerate(FEATURES)}
_LUMINANCE = np.array([0.299, 0.587, 0.114], dtype=np.float32)
_CEILING = 60.0
_TINY = 1e-4
_FAINT_SLOPE = 2e-3
"""Half a level of a byte: gradients below it are not seen."""


@dataclass(frozen=True)
class Traits:
    """What was measured on S sequences of F frames."""

    described: Doubles
    """(S, len(FEATURES)): one hand-made description of each sequence."""
    steps: Doubles
    """(S, F - 1): RMS change from frame to frame."""
    motion: Doubles
    """(S,): mean absolute change from frame to frame."""
    histogram: Doubles
    """(BINS,): shares of luminance over all pixels, sum 1."""

    @property
    def psnr(self) -> Doubles:
        """(S, F - 1): PSNR in dB between neighbouring frames, at most 60."""
        return np.asarray(-20.0 * np.log10(np.maximum(self.steps, 10.0 ** (-_CEILING / 20.0))))

    @property
    def acceleration(self) -> Doubles:
        """(S,): mean second difference in time over mean first difference.

        Near 0 for steady motion, 1.7 for frames that have nothing to do with one another; 0 if nothing moves.
        """
        return self.described[:, _COLUMN["acceleration"]]

    @property
    def misfit(self) -> Doubles:
        """(S,): how far the frame that least belongs where it is stands out, in octaves.

        That is, how many times its distance from both neighbours exceeds the steps around it: one foreign
        frame in sixty-four shows, where every average over time would drown it.
        """
        return self.described[:, _COLUMN["misfit"]]

    @property
    def highlights(self) -> Doubles:
        """(S,): the luminance that two pixels in a hundred exceed."""
        return self.described[:, _COLUMN["highlights"]]

    def row_jump(self, columns: int) -> Doubles:
        """(S,): RMS step from one grid row of `columns` frames to the next over that of the other steps."""
        energy = self.steps**2 + _TINY**2
        seam = np.arange(1, energy.shape[1] + 1) % columns == 0
        return np.asarray(np.sqrt(energy[:, seam].mean(axis=1) / energy[:, ~seam].mean(axis=1)))


def measure(sequences: Bytes) -> Traits:
    """Traits of sequences (S, F, H, W, 3), F at least 12."""
    described, steps, motion = [], [], []
    counts = np.zeros(BINS, dtype=np.int64)
    for sequence in sequences:
        colour = sequence.astype(np.float32) / np.float32(255.0)
        grey = colour @ _LUMINANCE
        change = np.diff(colour, axis=0)
        size = _rms(change)
        described.append(np.array([*_look(colour, grey), *_course(colour, change, size), *_direction(grey)]))
        steps.append(size)
        motion.append(float(np.abs(change).mean()))
        counts += np.bincount(np.minimum(grey * BINS, BINS - 1).astype(np.intp).ravel(), minlength=BINS)
    return Traits(np.stack(described), np.stack(steps), np.array(motion), counts / counts.sum())


def step_sizes(sequence: Bytes) -> Doubles:
    """RMS change from frame to frame of one sequence: (F, H, W, 3) -> (F - 1,)."""
    return _rms(np.diff(sequence.astype(np.float32), axis=0)) / 255.0


def pairwise_difference(sequences: Bytes) -> Doubles:
    """RMS difference between sequences, frame by frame: (S, F, H, W, 3) -> (S, S), zero diagonal."""
    flat = sequences.reshape(len(sequences), -1).astype(np.float32) / np.float32(255.0)
    # Around the mean, or the differences of large near-equal numbers would eat the precision.
    flat -= flat.mean(axis=0)
    gram = (flat @ flat.T).astype(np.float64)
    square = np.diag(gram)[:, None] + np.diag(gram)[None, :] - 2.0 * gram
    distance = np.sqrt(np.maximum(square, 0.0) / flat.shape[1])
    np.fill_diagonal(distance, 0.0)
    return np.asarray(distance)


def gradient_profile(frames: Bytes) -> Doubles:
    """Mean luminance gradient over each line between pixels: (F, N, N, 3) -> (2, N - 1), columns then rows."""
    grey = frames.astype(np.float32) @ (_LUMINANCE / np.float32(255.0))
    across, down = np.abs(np.diff(grey, axis=2)).mean(axis=(0, 1)), np.abs(np.diff(grey, axis=1)).mean(axis=(0, 2))
    return np.stack([across, down]).astype(np.float64)


def border_excess(profile: Doubles, real: Doubles, *, period: int) -> float:
    """Gradient across patch borders over that of the lines beside them, 1 where no border shows; the worse axis.

    Both profiles are (2, N - 1). Each line is first compared with the same line of real data, since a horizon, say,
    may well lie on a border. Borders are the lines before every multiple of `period`.
    """
    ratio = np.log((profile + _FAINT_SLOPE) / (real + _FAINT_SLOPE))
    excess = ratio[:, 1:-1] - 0.5 * (ratio[:, 2:] + ratio[:, :-2])
    at_border = np.arange(2, profile.shape[1]) % period == 0
    return float(np.exp(excess[:, at_border].mean(axis=1).max()))


def _look(colour: _Floats, grey: _Floats) -> list[float]:
    """What single frames show: colours, brightness and where it is, sharpness."""
    across, down = np.abs(np.diff(grey, axis=2)).mean(), np.abs(np.diff(grey, axis=1)).mean()
    flat = colour.reshape(-1, 3)
    # einsum: reductions that keep a short last axis are slow in numpy, and these take half of the time.
    mean = np.einsum("pc->c", flat, dtype=np.float64) / len(flat)
    square = np.einsum("pc,pc->c", flat, flat, dtype=np.float64) / len(flat)
    red, green, blue = (colour[..., c] for c in range(3))
    return [
        *mean.tolist(),
        *np.sqrt(np.maximum(square - mean**2, 0.0)).tolist(),
        float((np.maximum(np.maximum(red, green), blue) - np.minimum(np.minimum(red, green), blue)).mean()),
        *np.quantile(grey, [0.02, 0.5, 0.98]).tolist(),
        *(float(band.mean()) for band in np.array_split(grey, 3, axis=1)),
        _log(across),
        _log(down),
        _log(np.abs(np.diff(grey, n=2, axis=2)).mean()) - _log(across),
    ]


def _course(colour: _Floats, change: _Floats, size: Doubles) -> list[float]:
    """How far, how evenly and how smoothly frames follow one another."""
    mean = float(size.mean()) + _TINY
    moved = float(np.abs(change).mean())
    bent = float(np.abs(np.diff(change, axis=0)).mean())
    return [
        _log(mean),
        float(size.std()) / mean,
        *(_log(_distance(colour, frames) / mean) for frames in (8, len(colour) // 2)),
        bent / moved if moved > 0.0 else 0.0,
        _misfit(size + _TINY),
    ]


def _direction(grey: _Floats) -> list[float]:
    """What is odd in time: it changes sign when a sequence is shown backwards."""
    change = np.diff(grey, axis=0)
    square = change * change
    skewness = float((square * change).mean()) / (float(square.mean()) ** 1.5 + _TINY**2)
    return [*_flow(grey, change), skewness, _afterglow(np.abs(change))]


def _log(value: float | np.floating) -> float:
    return float(np.log(float(value) + _TINY))


def _rms(change: _Floats) -> Doubles:
    flat = change.reshape(len(change), -1)
    return np.asarray(np.sqrt(np.einsum("fp,fp->f", flat, flat).astype(np.float64) / flat.shape[1]))


def _distance(colour: _Floats, frames: int) -> float:
    return float(np.sqrt(((colour[frames:] - colour[:-frames]) ** 2).mean()))


def _misfit(size: Doubles, *, reach: int = 5) -> float:
    wide = np.pad(size, reach, mode="reflect")
    count = len(size) - 1
    offsets = [*range(reach), *range(reach + 2, 2 * reach + 2)]
    around = np.stack([wide[offset : offset + count] for offset in offsets])
    return float(np.log2((np.minimum(size[1:], size[:-1]) / np.median(around, axis=0)).max()))


def _flow(grey: _Floats, change: _Floats) -> list[float]:
    """Mean velocity to the right and down, per cent of the frame a frame: I_t + u I_x + v I_y = 0 by least squares."""
    mean = 0.5 * (grey[1:] + grey[:-1])
    across = 0.5 * (mean[:, 1:-1, 2:] - mean[:, 1:-1, :-2])
    down = 0.5 * (mean[:, 2:, 1:-1] - mean[:, :-2, 1:-1])
    inner = change[:, 1:-1, 1:-1]
    return [
        -100.0 / side * float((slope * inner).sum()) / (float((slope**2).sum()) + _TINY)
        for slope, side in ((across, grey.shape[2]), (down, grey.shape[1]))
    ]


def _afterglow(size: _Floats) -> float:
    """By how much weak changes rather follow strong ones than precede them, within a few frames."""
    total = 0.0
    for lag in (1, 2, 4, 8):
        early, late = size[:-lag], size[lag:]
        total += float((early * late * (early - late)).mean())
    return total / (float((size * size * size).mean()) + _TINY**3)
