"""Engines, one file each: the file's name is the engine's, and `create` imports it when it is chosen.

What an engine is, says `models.engine`; which one serves a net on this machine, `select`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from pathlib import Path

import torch as pytorch  # in this package the plain name is our own engine's module

from models import devices
from models.bundle import Bundle
from models.compiling.engine_cache import EngineCache
from models.engine import ALONE, BUCKETS, Engine, EngineUnavailable, NetName, Precision
from models.engines._candidates import candidates, compiled_for
from models.engines._choice import Asked, Candidate, Wanted, rank, regret
from models.engines._opening import first_that_opens
from models.spec import Stage

AUTO = "auto"
COMPILED = ("openvino", "tensorrt")
"""Engines that run what was built for this machine beforehand."""


def names() -> tuple[str, ...]:
    """Every engine there is, by its file."""
    here = Path(__file__).parent
    return tuple(sorted(f.stem for f in here.glob("*.py") if not f.stem.startswith("_")))


def create(
    name: str,
    *,
    bundle: Bundle,
    net: NetName,
    precision: Precision,
    buckets: Sequence[int] | None = None,
    device: pytorch.device | None = None,
    cache: EngineCache | None = None,
) -> Engine:
    """The engine `name` for one net of a bundle, not yet prepared; without a `device` on the first GPU, else the CPU.

    Plans of a compiled one come from `cache`, or the default one. `EngineUnavailable` if it cannot run here.
    """
    if name not in names():
        raise EngineUnavailable(f"engine {name!r} is unknown; there are: {', '.join(names())}")
    module = import_module(f"models.engines.{name}")
    place = devices.use() if device is None else device
    kept = {"cache": cache} if name in COMPILED and cache is not None else {}
    sizes = _sizes(net, buckets)
    engine: Engine = module.create(bundle, net=net, precision=precision, buckets=sizes, device=place, **kept)
    return engine


def plain_precision(device: pytorch.device) -> Precision:
    """What torch computes in when nobody says: bfloat16 on a GPU, float32 on a CPU."""
    return Precision.BF16 if device.type == devices.GPU else Precision.FP32


@dataclass(frozen=True, slots=True)
class Choice:
    """An engine and why it was taken."""

    engine: Engine
    reason: str
    """For people."""
    wanted: tuple[Wanted, ...] = ()
    """(engine, precision) of what may be faster, or was asked for, and is to be built and measured first."""


def select(
    bundle: Bundle,
    net: NetName,
    *,
    engine: str = AUTO,
    precision: str = AUTO,
    device: pytorch.device | None = None,
    buckets: Sequence[int] | None = None,
) -> Choice:
    """The fastest engine that is known to compute what torch computes, of those asked for; without any, torch.

    "auto" takes a compiled engine only where it was measured on this machine and was faster than torch; one that is
    named need not be. Precision "auto" is the fastest in the same sense, and of torch `plain_precision`. Nothing is
    built; a compiled engine comes prepared and has passed its gate. Without a `device` it is the first GPU, else the
    CPU. `EngineUnavailable` if what was asked for cannot be here at all.
    """
    place = devices.use() if device is None else device
    asked = None if precision == AUTO else Precision(precision)
    offered = partial(create, bundle=bundle, net=net, buckets=buckets, device=place)
    if engine not in (AUTO, *COMPILED):
        return Choice(offered(engine, precision=asked or plain_precision(place)), "asked for")
    asking = Asked.FOR_THE_BEST if engine == AUTO else Asked.BY_NAME
    known: tuple[Candidate, ...] = ()
    absent: tuple[str, ...] = ()
    try:
        name = compiled_for(place) if engine == AUTO else engine
        known = candidates(bundle, net, engine=name, precision=asked, device=place, buckets=_sizes(net, buckets))
    except EngineUnavailable as error:
        if asking is Asked.BY_NAME:
            raise
        absent = (str(error),)
    ranking = rank(known, asked=asking)
    trial = first_that_opens(ranking.usable, bundle, net, offered)
    wanted = ranking.wanted + trial.rebuild
    if trial.opened is not None:
        return Choice(trial.opened, trial.reason, wanted)
    plain = asked if asked and asking is Asked.FOR_THE_BEST and not asked.quantised else plain_precision(place)
    reason = regret((*absent, *ranking.refused, *trial.failures), wanted)
    return Choice(offered("torch", precision=plain), reason, wanted)


def _sizes(net: NetName, buckets: Sequence[int] | None) -> tuple[int, ...]:
    return tuple(buckets or (BUCKETS if isinstance(net, Stage) else ALONE))
