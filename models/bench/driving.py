"""A whole job by itself on an idle device, its independent units side by side: what a worker does with one job.

First the grids, which wait for one another; then all that are drawn between them together; then all frames together.
Rows that wait for the same net are packed into runs of at most its largest bucket.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from models.evaluator import Answering, Nets, take
from models.noise import NoiseSource
from models.plan import Request, Unit, UnitKind, plan
from models.spec import BundleSpec
from models.units import Evaluate, UnitRun, start

ORDER = (UnitKind.COARSE, UnitKind.DECODE, UnitKind.INTERPOLATE, UnitKind.REFINE)
"""What is done first of what could be done."""


@torch.inference_mode()
def job(spec: BundleSpec, request: Request, *, nets: Nets, noise: NoiseSource) -> Iterator[tuple[Unit, Tensor]]:
    """Every unit with its result: those of `models.alone.run`, in another order."""
    left, results = list(plan(spec, request)), dict[str, Tensor]()
    while left:
        ready = [unit for unit in left if all(key in results for key in unit.requires)]
        kind = min((unit.kind for unit in ready), key=ORDER.index)
        now = [unit for unit in ready if unit.kind is kind]
        runs = [start(unit, spec=spec, request=request, results=results, noise=noise) for unit in now]
        for unit, result in zip(now, together(runs, nets), strict=True):
            results[unit.key] = result
            yield unit, result
        left = [unit for unit in left if unit not in now]


def together(runs: Sequence[UnitRun], nets: Nets) -> list[Tensor]:
    """Drive units in lockstep to their ends: their results."""
    waiting = {place: next(run) for place, run in enumerate(runs)}
    results: dict[int, Tensor] = {}
    while waiting:
        for net in dict.fromkeys(evaluation.net for evaluation in waiting.values()):
            places = [place for place, evaluation in waiting.items() if evaluation.net == net]
            answers = packed([waiting[place] for place in places], nets[net])
            for place, answer in zip(places, answers, strict=True):
                try:
                    waiting[place] = runs[place].send(answer)
                except StopIteration as end:
                    results[place] = end.value
                    del waiting[place]
    return [results[place] for place in range(len(runs))]


def packed(evaluations: Sequence[Evaluate], net: Answering) -> list[Tensor]:
    """All of them answered, in as few runs as the net's largest bucket allows; one may be split over two."""
    answers: list[list[Tensor]] = [[] for _ in evaluations]
    for pieces in _runs(evaluations, net.largest):
        outputs = net([piece for _, piece in pieces])
        for (place, _), output in zip(pieces, outputs, strict=True):
            answers[place].append(output)
    return [torch.cat(parts) if len(parts) > 1 else parts[0] for parts in answers]


def _runs(evaluations: Sequence[Evaluate], largest: int) -> Iterator[list[tuple[int, Evaluate]]]:
    pieces: list[tuple[int, Evaluate]] = []
    room = largest
    for place, evaluation in enumerate(evaluations):
        first, rows = 0, len(evaluation.times)
        while first < rows:
            count = min(room, rows - first)
            pieces.append((place, take(evaluation, slice(first, first + count))))
            first, room = first + count, room - count
            if not room:
                yield pieces
                pieces, room = [], largest
    if pieces:
        yield pieces
