"""A stand-in for NVIDIA's `nvidia-smi` in tests of machines with GPUs: lists what FAKE_GPUS says, like `nvidia-smi -L`.

Written into a directory of a test's own by `install`, which then goes first on PATH. It knows one option.
"""

from __future__ import annotations

import sys
from pathlib import Path

H200 = "NVIDIA H200"
MIG = "MIG 1g.18gb"
SCRIPT = """#!{python} -S
import os, sys
if sys.argv[1:] != ["-L"]:
    sys.exit("only -L is known here")
if "FAKE_GPUS" not in os.environ:
    sys.exit("NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver.")
print(os.environ["FAKE_GPUS"])
"""


def install(directory: Path) -> Path:
    """Put the program into `directory`; the directory."""
    directory.mkdir(parents=True, exist_ok=True)
    program = directory / "nvidia-smi"
    program.write_text(SCRIPT.format(python=sys.executable), encoding="utf-8")
    program.chmod(0o755)
    return directory


def uuid(number: int, *, kind: str = "GPU") -> str:
    """Of the GPU (or part) of that number."""
    return f"{kind}-{number:08x}-1111-2222-3333-444444444444"


def listing(gpus: int, *, split: tuple[int, ...] = ()) -> str:
    """What the real one prints for so many GPUs; those in `split` are cut in two."""
    lines = []
    for number in range(gpus):
        lines.append(f"GPU {number}: {H200} (UUID: {uuid(number)})")
        if number in split:
            lines += [f"  {MIG}     Device  {i}: (UUID: {uuid(10 * number + i, kind='MIG')})" for i in range(2)]
    return "\n".join(lines)
