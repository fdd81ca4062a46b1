"""OpenVINO before anything runs: the library, what this CPU is to it, and graphs made into plans in the cache.

A plan is a compiled model as OpenVINO exports it, for any number of rows. It is opened only on a CPU of the same kind,
by the same version. Importing `openvino` sends word to its makers and leaves files in the user's home; `library` is
the import that does not, so it comes first wherever OpenVINO or what builds on it is used.
"""

from __future__ import annotations

import hashlib
import sys
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache as once
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch.jit._trace import TracerWarning

from models.compiling.build import Compiled, Doing, OnDamage, Outcome, Prepared
from models.compiling.engine_cache import EngineCache, PlanDamaged, Profile, Recipe, Record, plan_name
from models.compiling.export import carried, source_digest
from models.engine import EngineUnavailable, Precision
from models.graph import Graph
from models.spec import Codec

FLAVOUR = "openvino"
REMEDY = "pip install 'gridit-serve[openvino]'"

PRECISIONS = {Precision.FP32: "f32", Precision.BF16: "bf16", Precision.INT8: "f32"}
"""What can be computed in, and OpenVINO's word for the type of all that is not quantised."""

FLAGS = ("torchscript", "no-dynamic-quantisation")
"""How graphs are converted and compiled; part of a plan's key."""

_MOST_ROWS = 1024
_CPU = "CPU"


@once
def library() -> Any:
    """The module `openvino`, its telemetry left out. `EngineUnavailable` if it is not installed."""
    if find_spec("openvino") is None:
        raise EngineUnavailable(f"OpenVINO is not installed; {REMEDY}, or set GRIDIT_ENGINE=torch")
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]  # so that importing it fails
    import openvino

    return openvino


@once
def core() -> Any:
    """The process's one `openvino.Core`."""
    return library().Core()


def version() -> str:
    """OpenVINO's, with its build."""
    return str(library().__version__)


@once
def here() -> str:
    """This CPU and what it can do, as it stands among a plan's targets."""
    name, can = (core().get_property(_CPU, key) for key in ("FULL_DEVICE_NAME", "OPTIMIZATION_CAPABILITIES"))
    return f"{name} ({' '.join(sorted(can))}; instructions {_instructions()})"


def check(precision: Precision) -> None:
    """`EngineUnavailable` if this CPU cannot compute in it, or OpenVINO cannot."""
    if precision not in PRECISIONS:
        known = ", ".join(PRECISIONS)
        raise EngineUnavailable(f"precision {precision} is not OpenVINO's on a CPU; set GRIDIT_PRECISION to {known}")
    wanted = {Precision.BF16: "BF16", Precision.INT8: "INT8"}.get(precision)
    if wanted and wanted not in core().get_property(_CPU, "OPTIMIZATION_CAPABILITIES"):
        raise EngineUnavailable(
            f"precision {precision}: this CPU has no instructions for it; set GRIDIT_PRECISION=fp32"
        )


def properties(precision: Precision, *, threads: int) -> dict[str, object]:
    """What a model is compiled or opened with.

    The type is always said: left alone, OpenVINO takes bfloat16 where there is some, and an opened plan forgets what
    it was compiled in. Threads are not pinned, since two processes would pin theirs to the same cores.
    """
    return {
        "INFERENCE_PRECISION_HINT": PRECISIONS[precision],
        "DYNAMIC_QUANTIZATION_GROUP_SIZE": 0,
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_NUM_THREADS": threads,
        "ENABLE_CPU_PINNING": False,
    }


def convert(graph: Graph) -> Any:
    """The `openvino.Model` of a graph, which must live as long: with its ports, float32, and a free batch for a DiT."""
    frontend, rows = library().frontend, _rows(graph)
    from openvino.frontend.pytorch.ts_decoder import TorchScriptPythonDecoder

    example = graph.example(1 if rows.most == 1 else 2)
    with _quiet(), torch.inference_mode(False), torch.no_grad():
        traced = torch.jit.trace(graph.module, example, check_trace=False, strict=False)  # type: ignore[no-untyped-call]
        decoder = TorchScriptPythonDecoder(traced, example_input=example)
    reader = frontend.FrontEndManager().load_by_framework("pytorch")
    return _named(reader.convert(reader.load(decoder)), graph, batch=1 if rows.most == 1 else -1)


def plan_of(model: Any, *, precision: Precision) -> bytes:
    """A model, compiled, as bytes."""
    return _exported(_compiled(model, precision))


def compile_graph(
    graph: Graph,
    *,
    precision: Precision,
    cache: EngineCache,
    bundle: str,
    on_damage: OnDamage = OnDamage.REFUSE,
    prepared: Prepared | None = None,
) -> Iterator[str | Compiled]:
    """Yield the phases to come ("wait", "export", "build") as they begin, if any, then the plan in the cache.

    `EngineUnavailable` if this CPU cannot run it. `PlanDamaged` if the plan is not what was built and `on_damage` is
    to refuse. An 8-bit plan needs what is `prepared`.
    """
    check(precision)
    if carried(precision, graph.net) is not precision:
        precision, prepared = carried(precision, graph.net), None
    source = source_digest(graph, precision=precision)
    recipe = recipe_of(graph, precision=precision, source=source, quantisation=prepared.digest if prepared else None)
    with cache.building(recipe.key) as turn:
        if not turn.mine:
            yield Doing.WAIT
            turn.wait()
        known = next(
            (record for record in cache.find(source, flavour=FLAVOUR, version=version()) if record.recipe == recipe),
            None,
        )
        if known is not None and _usable(known, cache, on_damage):
            yield Compiled(known, Outcome.HIT)
            return
        yield from _built(graph, recipe, cache=cache, bundle=bundle, prepared=prepared)


def recipe_of(graph: Graph, *, precision: Precision, source: str, quantisation: str | None = None) -> Recipe:
    """What decides the plan of a graph with that digest on this machine."""
    return Recipe(
        onnx_sha256=source,
        flavour=FLAVOUR,
        version=version(),
        targets=(here(),),
        profiles=(_rows(graph),),
        precision=precision,
        quantisation=quantisation,
        flags=FLAGS,
    )


def _built(
    graph: Graph, recipe: Recipe, *, cache: EngineCache, bundle: str, prepared: Prepared | None
) -> Iterator[str | Compiled]:
    yield Doing.EXPORT
    started = time.perf_counter()
    model = convert(graph) if prepared is None else prepared.model(graph)
    exported = time.perf_counter()
    yield Doing.BUILD
    compiled = _compiled(model, recipe.precision)
    plan = _exported(compiled)
    seconds = time.perf_counter() - exported
    layers = [_layer(node.get_rt_info()) for node in compiled.get_runtime_model().get_ops()]
    plan_sha256 = hashlib.sha256(plan).hexdigest()
    record = Record(
        recipe=recipe,
        source=recipe.onnx_sha256,
        bundle=bundle,
        net=graph.net,
        graph=graph.name,
        plan=plan_name(recipe, plan_sha256),
        plan_sha256=plan_sha256,
        plan_bytes=len(plan),
        onnx_bytes=0,
        export_seconds=round(exported - started, 3),
        build_seconds=round(seconds, 3),
        kernels=sum(kind not in _NO_KERNEL for kind, _ in layers),
        fused_attentions=sum(kind in _FUSED and _SOFTMAX in made_of for kind, made_of in layers),
        depth=graph.attentions,
        quality=prepared.quality if prepared else None,
    )
    cache.store(record, plan)
    yield Compiled(record, Outcome.BUILT)


_NO_KERNEL = {"Const", "Input", "Output"}
"""Layers of a compiled model that compute nothing."""
_FUSED, _SOFTMAX = {"Subgraph", "ScaledDotProductAttention"}, "Softmax"
"""A softmax among the nodes that such a layer was made of tells an attention that is one kernel."""


def _layer(told: Any) -> tuple[str, str]:
    """A compiled layer's kind, and the names of the nodes it was made of."""
    kind, made_of = (str(told[key].astype(str)) for key in ("layerType", "originalLayersNames"))
    return kind, _SOFTMAX if kind == "ScaledDotProductAttention" else made_of


def _rows(graph: Graph) -> Profile:
    most = 1 if isinstance(graph.net, Codec) else _MOST_ROWS
    return Profile(least=1, best=1, most=most)


def _named(model: Any, graph: Graph, *, batch: int) -> Any:
    shape = library().PartialShape
    for port, found in zip(graph.inputs, model.inputs, strict=True):
        found.get_node().set_partial_shape(shape([batch, *port.shape]))
        found.get_tensor().set_names({port.name})
    for port, found in zip(graph.outputs, model.outputs, strict=True):
        found.get_tensor().set_names({port.name})
    model.validate_nodes_and_infer_types()
    return model


def _compiled(model: Any, precision: Precision) -> Any:
    return core().compile_model(model, _CPU, properties(precision, threads=torch.get_num_threads()))


def _exported(compiled: Any) -> bytes:
    return bytes(compiled.export_model().getvalue())


def _usable(record: Record, cache: EngineCache, on_damage: OnDamage) -> bool:
    try:
        cache.plan(record)
    except PlanDamaged:
        if on_damage is OnDamage.REFUSE:
            raise
        return False
    return True


def _instructions() -> str:
    """A digest of the instruction sets that the system names; the CPU's name alone may hide some of them."""
    told = Path("/proc/cpuinfo")
    lines = told.read_text().splitlines() if told.exists() else []
    flags = next((line for line in lines if line.startswith(("flags", "Features"))), "")
    return hashlib.sha256(" ".join(sorted(flags.split())).encode()).hexdigest()[:8]


@contextmanager
def _quiet() -> Iterator[None]:
    """Tracing is what OpenVINO reads best and fastest. Torch warns that it is deprecated, and of sizes taken as fixed.

    The only free size is the batch, on which no Python number depends; a test runs converted graphs at many.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=r"`torch\.jit\.", category=DeprecationWarning)
        warnings.simplefilter("ignore", TracerWarning)
        yield
