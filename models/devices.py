"""The device that a process computes on: what was asked for, as torch finds it here, or an error that names what is.

A process has one device. The programs that decide how many processes there are, and which GPU each of them sees, are
the worker's supervisors; nothing here knows of several.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from models.engine import EngineUnavailable

AUTO, CPU, GPU = "auto", "cpu", "cuda"


def present() -> tuple[str, ...]:
    """What torch can compute on here: the CPU first, then every GPU that this process may see."""
    return (CPU, *(f"{GPU}:{index}" for index in range(torch.cuda.device_count())))


def choose(wish: str, *, among: Sequence[str]) -> str:
    """The device that `wish` ("auto", "cpu", "cuda", "cuda:1") stands for: "auto" is the first GPU, else the CPU.

    `EngineUnavailable` names those there are.
    """
    gpus = [name for name in among if name != CPU]
    match wish:
        case "auto":
            return gpus[0] if gpus else CPU
        case "cuda" if gpus:
            return gpus[0]
        case name if name in among:
            return name
    why = "" if gpus else f" ({_no_gpu()})"
    raise EngineUnavailable(
        f"device {wish!r} is not there{why}; this process sees: {', '.join(among)}; choose one of them with --device "
        "or GRIDIT_DEVICE, or leave the choice to it with auto"
    )


def use(wish: str = AUTO) -> torch.device:
    """The device, made the process's current one, which CUDA's own libraries take. `EngineUnavailable` as `choose`."""
    device = torch.device(choose(wish, among=present()))
    if device.type == GPU:
        torch.cuda.set_device(device)
    return device


def sent(tensor: Tensor, device: torch.device | None) -> Tensor:
    """A tensor of the CPU's, on `device`; to a GPU through pinned memory, so that nobody waits for the copy."""
    if device is None or device.type != GPU:
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)


def described(device: torch.device) -> str:
    """The device for people: "cpu", or place, name and identity of a GPU, since every process counts from 0."""
    if device.type != GPU:
        return str(device)
    properties = torch.cuda.get_device_properties(device)
    return f"{device} {properties.name} {properties.uuid}"


def _no_gpu() -> str:
    if torch.version.cuda is None:
        return "this build of torch has no CUDA"
    return "torch finds no NVIDIA GPU: is its driver installed, and does CUDA_VISIBLE_DEVICES leave one?"
