"""What could serve a net on this machine beside torch: compiled engines that can be here, with their records.

Nothing is built or opened. An engine that is not installed, has no device, or lacks a precision is no candidate.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress

import torch

from models import devices
from models.bundle import Bundle
from models.compiling.engine_cache import EngineCache
from models.compiling.engine_record import Record
from models.compiling.export import carried
from models.engine import EngineUnavailable, NetName, Precision
from models.engines._choice import Candidate
from models.graph import Graph, graphs

_OF_DEVICE = {devices.CPU: "openvino", devices.GPU: "tensorrt"}
"""The compiled engine of each kind of device."""


def compiled_for(device: torch.device) -> str:
    """The name of the compiled engine for a device."""
    return _OF_DEVICE[device.type]


def candidates(
    bundle: Bundle,
    net: NetName,
    *,
    engine: str,
    precision: Precision | None,
    device: torch.device,
    buckets: tuple[int, ...],
) -> tuple[Candidate, ...]:
    """Those of one engine, as preferred while nothing is measured; with a `precision` in that one only.

    Of a quantised one that nobody asked for there must be records. `EngineUnavailable` if there can be none here.
    """
    offered = tuple(dict.fromkeys(carried(each, net) for each in _precisions(engine, device, precision)))
    cache = EngineCache.default()
    kept = {record.recipe.precision for record in cache.records() if record.net == net}
    found = []
    parts: tuple[Graph, ...] = ()
    for each in offered:
        records: tuple[Record, ...] = ()
        if each in kept:  # otherwise no weights need be read
            parts = parts or graphs(bundle, net)
            records = _records(engine, parts, each, device=device, buckets=buckets, cache=cache, bundle=bundle)
        if records or each is precision or not each.quantised:
            found.append(Candidate(engine, each, records))
    return tuple(found)


def _precisions(engine: str, device: torch.device, asked: Precision | None) -> tuple[Precision, ...]:
    """What the engine can compute in here: the one `asked` for, or all. `EngineUnavailable` if it cannot be here."""
    check = {"openvino": _openvino, "tensorrt": _tensorrt}[engine]
    if asked is not None:
        check(device, asked)
        return (asked,)
    usable = []
    first, *others = _OFFERED[engine]
    check(device, first)
    for each in others:
        with suppress(EngineUnavailable):
            check(device, each)
            usable.append(each)
    return (first, *usable)


_OFFERED: dict[str, Sequence[Precision]] = {
    "openvino": (Precision.FP32, Precision.BF16, Precision.INT8),
    "tensorrt": (Precision.FP16, Precision.BF16, Precision.FP8),
}
"""By preference while nothing is measured; the first can be wherever the engine can."""


def _openvino(device: torch.device, precision: Precision) -> None:
    from models.engines import openvino

    openvino.usable(device, precision)


def _tensorrt(device: torch.device, precision: Precision) -> None:
    from models.compiling import flavours

    flavour = flavours.detect()
    if device.type != devices.GPU:
        raise EngineUnavailable("TensorRT needs a GPU and the device is the CPU; set GRIDIT_DEVICE=cuda, or auto")
    try:
        flavour.targets((flavours.CURRENT,))
    except ValueError as error:
        raise EngineUnavailable(str(error)) from error
    least = {Precision.BF16: 80, Precision.FP8: 89}.get(precision, 0)
    if precision not in _OFFERED["tensorrt"] or int(flavours.capability().removeprefix("sm")) < least:
        known = ", ".join(_OFFERED["tensorrt"])
        raise EngineUnavailable(f"precision {precision} is not TensorRT's on this GPU; set GRIDIT_PRECISION to {known}")


def _records(
    engine: str,
    parts: tuple[Graph, ...],
    precision: Precision,
    *,
    device: torch.device,
    buckets: tuple[int, ...],
    cache: EngineCache,
    bundle: Bundle,
) -> tuple[Record, ...]:
    try:
        if engine == "openvino":
            from models.engines import openvino

            return openvino.find(parts, precision=precision, cache=cache, path=bundle.path)
        from models.compiling import flavours
        from models.engines import tensorrt

        flavour = flavours.detect()
        found = tensorrt.find(
            parts, flavour, here=flavour.here(), precision=precision, buckets=buckets, cache=cache, path=bundle.path
        )
    except EngineUnavailable:
        return ()
    name = torch.cuda.get_device_name(device)
    return tuple(of_this_gpu(record, name) for record in found)


def of_this_gpu(record: Record, name: str) -> Record:
    """Without what was measured on another kind of GPU of the same capability."""
    elsewhere = record.measured is not None and f" {name} " not in record.measured.device
    return record.model_copy(update={"measured": None}) if elsewhere else record
