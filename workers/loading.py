"""A runner with this machine's bundles and engines: what is there is prepared, what could be faster is wished for."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import torch

from models import bundle as bundles
from models import devices
from models.bundle import Bundle
from models.engine import NetName
from models.engines import Choice, select
from models.evaluator import Answering, CodecEvaluator, Evaluator
from models.spec import Codec, Stage
from workers.builds import Builder, Builds, Wish
from workers.contracts.catalogue import EngineInfo
from workers.offering import info_of
from workers.runner import Runner
from workers.shares import Net
from workers.upgrading import Improving, wishes_of

UNMADE = "not compiled, and GRIDIT_ENGINE_BUILDS is off; make it with: gridit compile"


def load(
    paths: Sequence[Path],
    *,
    engine: str = "auto",
    precision: str = "auto",
    device: str = "auto",
    threads: int | None = None,
    builder: Builder | None = None,
    tries: int = 2,
) -> Runner:
    """Read the bundles, prepare an engine for each net. BundleError and EngineUnavailable say what is wrong.

    `builder` makes what could be faster, each at most so many `tries`; None: nothing is built.
    """
    if threads is not None:
        torch.set_num_threads(threads)
    choose = partial(select, device=devices.use(device), engine=engine, precision=precision)
    served: dict[str, Bundle] = {}
    nets: dict[Net, Answering] = {}
    infos: dict[Net, EngineInfo] = {}
    wanted: dict[Net, tuple[Wish, ...]] = {}
    for path in paths:
        bundle = bundles.load(path)
        served[bundle.spec.name] = bundle
        for part in parts(bundle):
            net, choice = Net(bundle.spec.name, part), choose(bundle, part)
            nets[net] = prepared(bundle, part, choice)
            wanted[net] = wishes_of(bundle, choice)
            infos[net] = info_of(choice)
            if builder is None and engine != "auto" and wanted[net]:
                infos[net] = infos[net].evolve(failed=f"{wanted[net][0]}: {UNMADE} {path} --engine {engine}")
    improving = None if builder is None else Improving(Builds(builder, tries=tries), choose, wanted)
    return Runner(served, nets, engines=infos, improving=improving)


def parts(bundle: Bundle) -> tuple[NetName, ...]:
    """Every net of a bundle, those of its autoencoder last."""
    return (*bundle.spec.stages, *(Codec if bundle.spec.autoencoder is not None else ()))


def prepared(bundle: Bundle, part: NetName, choice: Choice) -> Answering:
    """A net behind the engine chosen for it, warmed up."""
    choice.engine.prepare()
    return Evaluator(bundle.net(part), choice.engine) if isinstance(part, Stage) else CodecEvaluator(choice.engine)
