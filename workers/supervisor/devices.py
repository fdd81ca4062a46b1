"""Which workers this machine gets: one for each NVIDIA GPU, each told its own, or workers that share the CPU.

GPUs are found without torch, which the supervisor never loads: by `nvidia-smi`, which comes with the driver, and by
CUDA_VISIBLE_DEVICES. Whether an engine can use what was found is for the worker to say.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from workers.contracts.errors import GriditError

VISIBLE = "CUDA_VISIBLE_DEVICES"
ASK_SECONDS = 20.0
"""A driver that has to wake its GPUs takes seconds."""


class DeviceUnavailable(GriditError):
    """The devices or the number of workers asked for do not fit this machine; the message says what there is."""

    code = "device_unavailable"


@dataclass(frozen=True)
class Gpu:
    """A GPU, or a part of one that its driver offers as a device of its own (MIG)."""

    token: str
    """What CUDA_VISIBLE_DEVICES calls it: its UUID, or the user's own word for it."""
    name: str = ""
    index: int | None = None
    """Its place in the driver's list; a part has none."""

    def __str__(self) -> str:
        return f"{self.name} ({self.token})" if self.name else f"GPU {self.token}"


@dataclass(frozen=True)
class Seat:
    """A place for one worker."""

    label: str
    """For people."""
    environment: Mapping[str, str] = field(default_factory=dict)
    """What its process is told besides."""

    @property
    def gpu(self) -> bool:
        """Whether it is a GPU's."""
        return VISIBLE in self.environment


def find_gpus(environment: Mapping[str, str]) -> tuple[Gpu, ...]:
    """The GPUs that programs started with this environment may use, in the order in which they see them.

    Raises DeviceUnavailable if CUDA_VISIBLE_DEVICES names one that the driver does not list.
    """
    listed = _listed(environment)
    chosen = environment.get(VISIBLE)
    if chosen is None:
        return listed
    return visible(chosen, listed=listed)


def parse_listing(listing: str) -> tuple[Gpu, ...]:
    """What `nvidia-smi -L` says; where a GPU is split (MIG), its parts instead of it, since CUDA offers only those."""
    gpus: list[Gpu] = []
    whole: Gpu | None = None
    for line in listing.splitlines():
        if match := re.match(r"GPU (\d+): (.+?) \(UUID: (GPU-[\w-]+)\)", line):
            whole = Gpu(match[3], name=match[2], index=int(match[1]))
            gpus.append(whole)
        elif match := re.match(r"\s+(MIG .+?)\s+Device\s+\d+: \(UUID: (MIG-[\w/-]+)\)", line):
            if whole in gpus:
                gpus.remove(whole)
            gpus.append(Gpu(match[2], name=match[1]))
    return tuple(gpus)


def visible(chosen: str, *, listed: Sequence[Gpu]) -> tuple[Gpu, ...]:
    """The value of CUDA_VISIBLE_DEVICES as GPUs: numbers or UUIDs (a beginning will do); "" and -1 are none.

    With nothing listed (no nvidia-smi) each is taken at its word. Numbers are passed on as they are: CUDA's order need
    not be the driver's. Raises DeviceUnavailable.
    """
    gpus: list[Gpu] = []
    for token in (part.strip() for part in chosen.split(",")):
        if token in ("", "-1"):
            break
        if listed and not any(_means(token, gpu) for gpu in listed):
            there = "; ".join(f"{gpu.index}: {gpu}" if gpu.index is not None else str(gpu) for gpu in listed)
            raise DeviceUnavailable(f"{VISIBLE} names {token!r}, which is not there; there are: {there}")
        names = {gpu.name for gpu in listed if token.isdigit() or _means(token, gpu)}
        gpus.append(Gpu(token, name=names.pop() if len(names) == 1 else ""))
    return tuple(gpus)


def seats(wish: str, *, gpus: Sequence[Gpu], workers: int | None) -> tuple[Seat, ...]:
    """A seat for each worker. `wish` is the setting `device`; `workers` None: as many as there are devices.

    Raises DeviceUnavailable if a GPU is asked for that is not there, or more workers than GPUs.
    """
    kind, _, number = wish.partition(":")
    if kind == "cpu" or (kind == "auto" and not gpus):
        return _on_cpu(wish, workers=workers or 1)
    if number:
        gpus = _the_one(int(number), gpus)
    if not gpus:
        raise DeviceUnavailable(
            f"device {wish}: no GPU was found (nvidia-smi is not on PATH or lists none, or {VISIBLE} leaves none); "
            "use --device cpu, or install the NVIDIA driver"
        )
    if workers is not None and workers > len(gpus):
        raise DeviceUnavailable(
            f"--workers {workers}: there is one worker a GPU, and to be used are {len(gpus)} "
            f"({'; '.join(map(str, gpus))}); a worker batches all of its jobs, a second one on its GPU would only take "
            "turns with it; ask for fewer, or for --device cpu"
        )
    return tuple(_on_gpu(gpu, kind) for gpu in gpus[:workers])


def _the_one(index: int, gpus: Sequence[Gpu]) -> Sequence[Gpu]:
    if gpus and index >= len(gpus):
        there = "; ".join(f"cuda:{place} is {gpu}" for place, gpu in enumerate(gpus))
        raise DeviceUnavailable(f"device cuda:{index} is not there; {there}")
    return gpus[index : index + 1]


def _on_cpu(wish: str, *, workers: int) -> tuple[Seat, ...]:
    """One worker is left to look for itself (a GPU of another maker); of several, none takes one by accident."""
    if wish == "auto" and workers == 1:
        return (Seat("auto", {"GRIDIT_DEVICE": "auto"}),)
    return (Seat("cpu", {"GRIDIT_DEVICE": "cpu"}),) * workers


def _on_gpu(gpu: Gpu, kind: str) -> Seat:
    """With "auto" a worker whose torch cannot use its GPU falls back to the CPU, and says so; with "cuda" it ends."""
    return Seat(str(gpu), {"GRIDIT_DEVICE": kind, VISIBLE: gpu.token})


def _listed(environment: Mapping[str, str]) -> tuple[Gpu, ...]:
    program = shutil.which("nvidia-smi", path=environment.get("PATH", ""))
    if program is None:
        return ()
    try:
        done = subprocess.run(
            [program, "-L"], capture_output=True, text=True, timeout=ASK_SECONDS, check=True, env=dict(environment)
        )
    except (OSError, subprocess.SubprocessError):
        return ()  # a program without a working driver: no GPU
    return parse_listing(done.stdout)


def _means(token: str, gpu: Gpu) -> bool:
    return gpu.index == int(token) if token.isdigit() else gpu.token.startswith(token)
