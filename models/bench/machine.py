"""What a benchmark ran on and with: enough to know whose figures they are, nothing that names a host or its user."""

from __future__ import annotations

import os
import platform
import shlex
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path

import torch

from models import devices
from models.bench.report import Machine, Origin

LIBRARIES = ("gridit-serve", "torch", "numpy", "diffusers", "openvino", "nncf", "onnxruntime", "tensorrt")
_CPU_FACTS = Path("/proc/cpuinfo")


def origin(device: torch.device, *, arguments: Sequence[str] | None = None) -> Origin:
    """Of what is run now; the command is that of this process unless `arguments` say otherwise."""
    given = sys.argv[1:] if arguments is None else arguments
    return Origin(
        command=shlex.join(["gridit", *given]),
        began=datetime.now(UTC).isoformat(timespec="seconds"),
        machine=machine(device),
        versions={"python": platform.python_version(), **_versions()},
    )


def machine(device: torch.device) -> Machine:
    """This one."""
    gpu = device.type == devices.GPU
    return Machine(
        system=f"{platform.system()} {platform.machine()}",
        cpu=_cpu(),
        capability=torch.backends.cpu.get_cpu_capability(),
        cores=os.cpu_count() or 1,
        threads=torch.get_num_threads(),
        memory_gb=round(_memory() / 1e9, 1),
        device=torch.cuda.get_device_name(device) if gpu else "cpu",
    )


def _cpu() -> str:
    if _CPU_FACTS.is_file():
        for line in _CPU_FACTS.read_text(encoding="utf-8").splitlines():
            field, _, value = line.partition(":")
            if field.strip() == "model name":
                return value.strip()
    return platform.processor() or "unknown"


def _memory() -> int:
    """Bytes of the machine's memory; 0 where it does not say."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, OSError, ValueError):
        return 0


def _versions() -> dict[str, str]:
    found: dict[str, str] = {}
    for library in LIBRARIES:
        try:
            found[library] = metadata.version(library)
        except metadata.PackageNotFoundError:
            continue
    return found
