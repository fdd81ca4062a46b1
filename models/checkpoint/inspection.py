"""What is in a bundle, or in a checkpoint before it is one: facts as plain values, and tables that show them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from pathlib import Path

import torch
from rich.console import RenderableType
from rich.table import Table
from safetensors import safe_open
from torch import Tensor

from models import presets
from models.bundle import Bundle
from models.checkpoint import tables
from models.checkpoint.anatomy import TABLE
from models.checkpoint.parts import Net
from models.spec import BundleSpec, Stage

_SHOWN_CLASSES = 6
_TYPES = {"F64": "fp64", "F32": "fp32", "F16": "fp16", "BF16": "bf16"}
"""Of safetensors, as precisions are called here."""


def bundle_facts(bundle: Bundle) -> dict[str, object]:
    """Everything about a bundle, as JSON has it."""
    spec = bundle.spec
    whole = spec.model_dump(mode="json", exclude={"nets", "autoencoder", "format"})
    nets: dict[str, object] = {stage.value: _net_facts(bundle, stage) for stage in spec.stages}
    return whole | {
        "hash": bundle.hash,
        "modes": [mode.value for mode in spec.modes],
        "nets": nets,
        "autoencoder": _autoencoder_facts(bundle),
    }


def net_facts(net: Net) -> dict[str, object]:
    """Everything about a checkpoint that is no bundle yet."""
    found, checkpoint = net.anatomy, net.checkpoint
    return {
        **net.place.record(),
        "license": net.place.license,
        "form": checkpoint.form,
        "stage": found.stage(None).value,
        "preset": _preset(found.width, found.depth, found.patch),
        "parameters": sum(tensor.numel() for tensor in checkpoint.tensors.values()),
        "tensors": len(checkpoint.tensors),
        "stored": sorted({_type(tensor) for tensor in checkpoint.tensors.values()}),
        "input_size": found.size,
        "patch": found.patch,
        "in_channels": found.seen,
        "out_channels": found.answered,
        "latent": found.latent(),
        "width": found.width,
        "depth": found.depth,
        "heads": checkpoint.heads or _heads(found.width, found.depth),
        "classes": found.classes,
        "positional_table": str(found.table),
        "dialect": checkpoint.dialect.value,
    }


def show_bundle(bundle: Bundle) -> Iterator[RenderableType]:
    """Tables: the bundle, its nets, its gate."""
    facts = bundle_facts(bundle)
    yield _pairs(_summary(bundle), title=f"{bundle.path}")
    yield _nets_table(facts)
    if bundle.spec.gate:
        yield from _gate(bundle.spec)


def show_net(net: Net) -> Iterator[RenderableType]:
    """One table."""
    facts = {field.replace("_", " "): _text(value) for field, value in net_facts(net).items()}
    yield _pairs(facts, title="A checkpoint, not yet a bundle")


def _summary(bundle: Bundle) -> dict[str, str]:
    spec, defaults = bundle.spec, bundle.spec.defaults
    overlap = f"{spec.overlap_rows} of {spec.grid} rows"
    refined = f", refined to {spec.refined_size}" if Stage.REFINE in spec.nets else ", not refined"
    steps = (
        f"{defaults.coarse_steps} + {defaults.refine_steps}" if refined != ", not refined" else defaults.coarse_steps
    )
    return {
        "name": spec.name,
        **({"about": spec.description} if spec.description else {}),
        "licence": spec.license,
        "hash": bundle.hash,
        "frames": f"{spec.grid} x {spec.grid} of {spec.coarse_size} px{refined}, {spec.channels} channels",
        "known rows": f"{spec.known_rows.value}, {overlap}",
        "classes": _classes(spec.classes),
        "modes": ", ".join(spec.modes),
        "samplers": ", ".join(spec.samplers),
        "by default": f"{defaults.num_frames} frames at {defaults.fps} fps, {defaults.sampler}, {steps} steps, "
        f"guidance {defaults.guidance_scale:g}",
    }


def _net_facts(bundle: Bundle, stage: Stage) -> dict[str, object]:
    net = bundle.spec.nets[stage]
    file = bundle.path / net.file
    shapes, stored = _stored(file)
    return net.model_dump(mode="json") | {
        "preset": _preset(net.width, net.depth, net.patch),
        "parameters": sum(math.prod(shape) for shape in shapes.values()),
        "tensors": len(shapes),
        "stored": stored,
        "bytes": file.stat().st_size,
        "positional_table": str(tables.kind(_positions(file))),
        "source": bundle.spec.source.get(stage.value, {}),
    }


def _autoencoder_facts(bundle: Bundle) -> dict[str, object] | None:
    vae = bundle.spec.autoencoder
    if vae is None:
        return None
    file = bundle.path / vae.file
    shapes, stored = _stored(file)
    return vae.model_dump(mode="json") | {
        "parameters": sum(math.prod(shape) for shape in shapes.values()),
        "tensors": len(shapes),
        "stored": stored,
        "bytes": file.stat().st_size,
        "source": bundle.spec.source.get("autoencoder", {}),
    }


def _nets_table(facts: Mapping[str, object]) -> Table:
    """A column for each net, a row for each of its facts."""
    nets = facts["nets"]
    assert isinstance(nets, dict)
    columns = {stage: _net_rows(net) for stage, net in nets.items()}
    if isinstance(vae := facts["autoencoder"], dict):
        columns["autoencoder"] = _autoencoder_rows(vae)
    table = _table("Nets", "", *columns)
    for row in dict.fromkeys(row for rows in columns.values() for row in rows):
        table.add_row(row, *(rows.get(row, "") for rows in columns.values()))
    return table


def _net_rows(net: Mapping[str, object]) -> dict[str, str]:
    classes = f"{net['classes']} and the null label" if net["classes"] else "unconditional"
    variance = ", learned variance" if net["learned_variance"] else ""
    return {
        "net": str(net["preset"] or "DiT"),
        **_file_rows(net),
        "draws": f"{net['in_channels']} -> {net['out_channels']} channels, {net['input_size']} x {net['input_size']}",
        "patch": f"{net['patch']}",
        "width, depth, heads": f"{net['width']}, {net['depth']}, {net['heads']}",
        "labels": classes,
        "predicts": f"{net['prediction']}{variance}",
        "schedule": f"{net['schedule']}, times x {net['time_scale']:g}",
        "arithmetic": str(net["dialect"]),
        "positional table": str(net["positional_table"]),
        "source": _source(net["source"]),
    }


def _autoencoder_rows(vae: Mapping[str, object]) -> dict[str, str]:
    return {
        "net": "AutoencoderKL",
        **_file_rows(vae),
        "draws": f"{vae['latent_channels']} latent channels, {vae['downsample']} px each",
        "schedule": f"latents x {vae['scale']:g}" + (f", less {vae['shift']:g}" if vae["shift"] else ""),
        "source": _source(vae["source"]),
    }


def _file_rows(net: Mapping[str, object]) -> dict[str, str]:
    parameters, size = net["parameters"], net["bytes"]
    assert isinstance(parameters, int)
    assert isinstance(size, int)
    return {
        "parameters": f"{parameters / 1e6:.2f} M",
        "tensors": f"{net['tensors']}",
        "stored": f"{size / 1e6:.1f} MB, {_text(net['stored'])}",
    }


def _gate(spec: BundleSpec) -> Iterator[RenderableType]:
    """The verdict, and the figures where they are in the form that `gridit evaluate --record` writes."""
    gate = spec.gate
    verdict = "passed" if gate.get("passed") else "NOT passed"
    title = f"Gate: {verdict}, {gate.get('sequences', '?')} sequences of {gate.get('frames', '?')} frames a class"
    classes, columns = gate.get("classes"), gate.get("figures")
    if not isinstance(classes, dict) or not isinstance(columns, list):
        yield title
        return
    table = _table(title, "class", "figure", *map(str, columns))
    for name, figures in classes.items():
        for figure, values in figures.items() if isinstance(figures, dict) else ():
            table.add_row(str(name), str(figure), *map(_text, values if isinstance(values, list) else [values]))
    yield table


def _pairs(rows: Mapping[str, str], *, title: str) -> Table:
    table = _table(title, "", "")
    table.show_header, table.box = False, None
    for name, value in rows.items():
        table.add_row(name, value)
    return table


def _table(title: str, *columns: str) -> Table:
    """Where the terminal is narrow, words are broken rather than lost."""
    table = Table(title=title, title_justify="left")
    for column in columns:
        table.add_column(column, overflow="fold")
    return table


def _stored(file: Path) -> tuple[dict[str, tuple[int, ...]], list[str]]:
    """Shapes of a file's tensors, and the types they are stored in."""
    with safe_open(file, framework="pt") as stored:
        slices = {key: stored.get_slice(key) for key in stored.keys()}  # noqa: SIM118
        types = sorted({_TYPES.get(one.get_dtype(), one.get_dtype()) for one in slices.values()})
        return {key: tuple(one.get_shape()) for key, one in slices.items()}, types


def _positions(file: Path) -> Tensor:
    with safe_open(file, framework="pt") as stored:
        table: Tensor = stored.get_tensor(TABLE)
        return table[0]


def _type(tensor: Tensor) -> str:
    known = {torch.float64: "fp64", torch.float32: "fp32", torch.float16: "fp16", torch.bfloat16: "bf16"}
    return known.get(tensor.dtype, str(tensor.dtype))


def _preset(width: int, depth: int, patch: int) -> str | None:
    size = next((name for name, size in presets.SIZES.items() if (size.width, size.depth) == (width, depth)), None)
    return f"DiT-{size}/{patch}" if size else None


def _heads(width: int, depth: int) -> int | None:
    return next((s.heads for s in presets.SIZES.values() if (s.width, s.depth) == (width, depth)), None)


def _classes(names: tuple[str, ...]) -> str:
    more = f" and {len(names) - _SHOWN_CLASSES} more" if len(names) > _SHOWN_CLASSES else ""
    return ", ".join(names[:_SHOWN_CLASSES]) + more if names else "none"


def _source(source: object) -> str:
    if not isinstance(source, dict) or not source:
        return ""
    revision = f" @ {str(source['revision'])[:12]}" if "revision" in source else ""
    return f"{source['from']}{revision}"


def _text(value: object) -> str:
    if isinstance(value, list):
        return ", ".join(map(_text, value))
    return f"{value:g}" if isinstance(value, float) else "unknown" if value is None else str(value)
