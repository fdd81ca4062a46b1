"""Engines, one file each: the file's name is the engine's, and `create` imports it when it is chosen.

What an engine is, says `models.engine`; which one serves a net on this machine, `select`.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

import torch as pytorch  # in this package the plain name is our own engine's module

from models import devices
from models.bundle import Bundle
from models.engine import ALONE, BUCKETS, Engine, EngineUnavailable, NetName, Precision
from models.spec import Stage


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
) -> Engine:
    """The engine `name` for one net of a bundle, not yet prepared; without a `device` on the first GPU, else the CPU.

    `EngineUnavailable` if it cannot run here.
    """
    if name not in names():
        raise EngineUnavailable(f"engine {name!r} is unknown; there are: {', '.join(names())}")
    module = import_module(f"models.engines.{name}")
    place = devices.use() if device is None else device
    sizes = tuple(buckets or (BUCKETS if isinstance(net, Stage) else ALONE))
    engine: Engine = module.create(bundle, net=net, precision=precision, buckets=sizes, device=place)
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
    by, known = _known(bundle, net, engine=engine, precision=asked, device=place, buckets=_sizes(net, buckets))
    ranking = rank(known, asked=by)
    taken, failed = _first(ranking, bundle, net, offered)
    if taken is not None:
        return Choice(taken[0], taken[1], ranking.wanted + failed.rebuild)
    fallback = asked if asked and engine == AUTO and not asked.quantised else plain_precision(place)
    wanted = ranking.wanted + failed.rebuild
    return Choice(offered("torch", precision=fallback), because(place, ranking, failed, wanted), wanted)
