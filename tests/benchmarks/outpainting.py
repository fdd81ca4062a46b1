"""Long sequences from a net whose right answer is known: `python -m tests.benchmarks.outpainting`.

The product's own units draw with `tests.analytic.ExactNet` in place of a trained net, so what the table shows is the
error of the sampling: of the mode, the way known frames enter, the sampler, its steps and their spacing. It says
nothing about trained nets, whose own errors come on top. Takes some minutes of one core; docs/sampling.md has the
table.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Annotated

import torch
import typer
from torch import Tensor

from models.alone import drive
from models.grid import pack, unpack
from models.noise import NoiseKey, NoiseSource
from models.plan import Request, Unit, plan
from models.spec import BundleSpec, KnownRows, Mode, Spacing, Stage
from models.units import pictures, start
from tests.analytic import AMPLITUDES, CELLS, ExactNet, K, Kernel, distance, second_moment, spec_of

MADE = 56
OFFICIAL_ASKED = 64
"""What to ask of the released loop to get as many."""
OFFICIAL_ROWS = 3


@dataclass(frozen=True)
class Case:
    """One way to draw."""

    name: str
    sampler: str
    steps: int
    spacing: Spacing = Spacing.LINEAR
    mode: Mode = Mode.SOUND
    known_rows: KnownRows = KnownRows.REPLACEMENT

    @property
    def evaluations(self) -> int:
        """Of the net, for one grid."""
        return 2 * self.steps - 1 if self.sampler == "heun" else self.steps

    @property
    def request(self) -> Request:
        """For a sequence of `MADE` frames."""
        wanted = Request(MADE, 0, None, self.steps, 1, self.sampler, 1.0, Stage.COARSE, self.mode, self.spacing)
        return replace(wanted, num_frames=OFFICIAL_ASKED) if self.mode is Mode.OFFICIAL else wanted


CASES = (
    Case("official", "ddpm", 250, mode=Mode.OFFICIAL),
    Case("official", "ddpm", 25, mode=Mode.OFFICIAL),
    Case("sound", "ddpm", 250),
    Case("sound", "ddpm", 25),
    Case("sound", "ddpm", 25, Spacing.LOG_SNR),
    Case("sound", "sde_dpmpp_2m", 25, Spacing.LOG_SNR),
    Case("sound", "sde_dpmpp_2m", 25, Spacing.TRAILING),
    Case("sound", "sde_dpmpp_2m", 25),
    Case("sound", "dpmpp_2m", 25, Spacing.LOG_SNR),
    Case("sound", "euler", 25, Spacing.LOG_SNR),
    Case("sound", "heun", 13, Spacing.LOG_SNR),
    Case("sound, clean prefix", "ddpm", 250, known_rows=KnownRows.CLEAN_PREFIX),
    Case("sound, clean prefix", "sde_dpmpp_2m", 25, Spacing.LOG_SNR, known_rows=KnownRows.CLEAN_PREFIX),
    Case("sound, clean prefix", "euler", 25, Spacing.LOG_SNR, known_rows=KnownRows.CLEAN_PREFIX),
)


@dataclass(frozen=True)
class Setting:
    """What all cases have in common."""

    kernel: Kernel
    side: int
    overlap_rows: int
    seed: int

    def spec(self, case: Case) -> BundleSpec:
        """The bundle that a case draws with."""
        return spec_of(self.side, known_rows=case.known_rows, overlap_rows=self.overlap_rows)

    def known(self, case: Case) -> int:
        """Frames of a grid that the one before has drawn; the released loop's rows are its own."""
        return K * (OFFICIAL_ROWS if case.mode is Mode.OFFICIAL else self.overlap_rows)

    def exact(self, frames: int) -> Tensor:
        """(frames, C, side, side) of the law itself."""
        return self.kernel.draw(frames, side=self.side, generator=torch.Generator().manual_seed(self.seed))


@torch.inference_mode()
def continued(case: Case, setting: Setting) -> Tensor:
    """One grid that goes on from an exact one: the known frames as they were, then the new ones; (16, C, P)."""
    before, known = setting.exact(CELLS), setting.known(case)
    spec = setting.spec(case)
    unit = next(unit for unit in plan(spec, case.request) if unit.key == "coarse/1")
    drawn = _drawn(unit, case, setting, {"coarse/0": pack(before[None], k=K)[0]})
    return torch.cat([before[-known:], unpack(drawn[None], k=K)[0, known:]]).flatten(2)


@torch.inference_mode()
def sequence(case: Case, setting: Setting) -> Tensor:
    """Frames drawn from nothing, (56, C, P)."""
    spec, results, made = setting.spec(case), dict[str, Tensor](), dict[int, Tensor]()
    for unit in plan(spec, case.request):
        results[unit.key] = _drawn(unit, case, setting, results)
        made[unit.frames.start] = pictures(unit, results[unit.key], spec=spec)
    return torch.cat([made[first] for first in sorted(made)]).flatten(2)


def _drawn(unit: Unit, case: Case, setting: Setting, results: dict[str, Tensor]) -> Tensor:
    prefix = setting.known(case) if unit.requires and case.known_rows is KnownRows.CLEAN_PREFIX else 0
    run = start(unit, spec=setting.spec(case), request=case.request, results=results, noise=_noise(setting.seed))
    return drive(run, {Stage.COARSE: ExactNet(setting.kernel, prefix=prefix)})


def _noise(seed: int) -> NoiseSource:
    def draw(key: NoiseKey) -> Tensor:
        # Not the product's own noise, which is made to be the same everywhere and takes longer than these nets.
        mixed = hash((seed, key.step, *key.stream.encode())) % 2**63
        return torch.randn(key.shape, generator=torch.Generator().manual_seed(mixed))

    return draw


@dataclass(frozen=True)
class Figures:
    """What is wrong with frames, beside the right ones; the last three are 1 where nothing is."""

    error: float
    seam: float
    """Step from the last known frame to the first new one, rms."""
    step: float
    """Largest of the steps between neighbours anywhere."""
    amplitude: float
    """Of the last row of frames."""


def figures(frames: Tensor, setting: Setting, *, seam: int) -> Figures:
    """Of (n, C, P); `seam` is the first new frame."""
    law = setting.kernel.covariance(2)
    power = sum(scale**2 for scale in AMPLITUDES)
    moments = torch.stack([second_moment(frames[:, channel]) for channel in range(len(AMPLITUDES))]).sum(0) / power
    own, next_to = moments.diagonal(), moments.diagonal(1)
    steps = ((own[1:] + own[:-1] - 2 * next_to) / (2 - 2 * law[0, 1])).clamp(min=0).sqrt()
    amplitude = float(own[-K:].mean().sqrt())
    return Figures(distance(frames, setting.kernel), float(steps[seam - 1]), float(steps.max()), amplitude)


def pooled(draw: Callable[[Setting], Tensor], setting: Setting, *, repeats: int) -> Tensor:
    """Draws with different seeds, side by side."""
    return torch.cat([draw(replace(setting, seed=seed)) for seed in range(repeats)], dim=2)


def rows(setting: Setting, *, repeats: int) -> Iterator[str]:
    """The table, a line at a time, as Markdown."""
    yield "| mode | sampler | spacing | calls | one grid: error | seam | 56 frames: error | largest step | last row |"
    yield "|---|---|---|--:|--:|--:|--:|--:|--:|"
    grid, whole = (pooled(partial(_exact, frames), setting, repeats=repeats) for frames in (CELLS, MADE))
    yield _row("the law itself", "", "", "", *_figures(grid, whole, setting, seam=K))
    for case in CASES:
        grid, whole = (pooled(partial(draw, case), setting, repeats=repeats) for draw in (continued, sequence))
        labels = case.name, case.sampler, case.spacing.value, str(case.evaluations)
        yield _row(*labels, *_figures(grid, whole, setting, seam=setting.known(case)))


def _exact(frames: int, setting: Setting) -> Tensor:
    return setting.exact(frames).flatten(2)


def _figures(grid: Tensor, whole: Tensor, setting: Setting, *, seam: int) -> tuple[float, ...]:
    one = figures(grid, setting, seam=seam)
    all_of_it = figures(whole, setting, seam=CELLS)
    return one.error, one.seam, all_of_it.error, all_of_it.step, all_of_it.amplitude


def _row(*cells: str | float) -> str:
    return "| " + " | ".join(cell if isinstance(cell, str) else f"{cell:.3f}" for cell in cells) + " |"


def main(
    kernel: Annotated[Kernel, typer.Option(help="How frames are correlated.")] = Kernel.MATERN,
    overlap_rows: Annotated[int, typer.Option(min=1, max=3, help="Known rows; the released loop has 3.")] = 3,
    side: Annotated[int, typer.Option(help="Pixels of a frame's side; each is a draw of its own.")] = 64,
    repeats: Annotated[int, typer.Option(help="How often everything is drawn.")] = 4,
) -> None:
    """Print the table of modes and samplers on the model with a known answer."""
    torch.set_num_threads(1)
    for row in rows(Setting(kernel, side, overlap_rows, 0), repeats=repeats):
        print(row, flush=True)


if __name__ == "__main__":
    typer.run(main)
