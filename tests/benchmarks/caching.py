"""`python -m tests.benchmarks.caching`: what reusing deep features saves, and what it costs in error.

The same coarse sequences are drawn with every step whole and with features of every n-th step, in turns on the same
machine; beside them as many whole steps as cost the same, which is what reuse has to beat. Error is the root mean
square distance, of pixels in 0..1, to the same seeds at many steps.
"""

from __future__ import annotations

import argparse
import statistics
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from models import alone, bundle, drawing
from models.evaluator import Nets
from models.plan import Request
from models.spec import BundleSpec, Stage
from models.terminal import DEMO

MANY_STEPS = 100


def draw(spec: BundleSpec, request: Request, nets: Nets) -> tuple[np.ndarray, float]:
    """The coarse frames in 0..1, and the seconds they took."""
    began = time.perf_counter()
    frames = drawing.sequence(spec, request, nets=nets)[Stage.COARSE]
    return frames / 255.0, time.perf_counter() - began


def main() -> None:
    """Draw, and print the table."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--bundle", type=Path, default=DEMO)
    options.add_argument("--seeds", type=int, default=4)
    options.add_argument("--steps", type=int, default=12)
    given = options.parse_args()
    loaded = bundle.load(given.bundle)
    spec, nets = loaded.spec, alone.evaluators(loaded)
    ways = {"whole": (given.steps, 1)}
    ways |= {f"features of every {n}. step": (given.steps, n) for n in (2, 3, 4)}
    ways |= {f"{given.steps // n} whole steps": (given.steps // n, 1) for n in (2, 3, 4)}
    errors: dict[str, list[float]] = {name: [] for name in ways}
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for seed in range(given.seeds):
        for label in range(max(1, len(spec.classes))):
            default = drawing.default_request(spec, seed=seed, label=label if spec.classes else None)
            request = replace(default, num_frames=spec.grid**2, last=Stage.COARSE)
            exact, _ = draw(spec, replace(request, coarse_steps=MANY_STEPS), nets)
            for name, (steps, cache) in ways.items():
                frames, took = draw(spec, replace(request, coarse_steps=steps, cache=cache), nets)
                errors[name].append(float(np.sqrt(np.mean((frames - exact) ** 2))))
                seconds[name].append(took)
    table = Table(
        "steps", "time, of whole", "rms error", title=f"{spec.name}: {given.steps} steps, {spec.defaults.sampler}"
    )
    for name in ways:
        ratio = statistics.median(a / b for a, b in zip(seconds[name], seconds["whole"], strict=True))
        table.add_row(name, f"{ratio:.2f}", f"{np.mean(errors[name]):.4f}")
    Console().print(table)


if __name__ == "__main__":
    main()
