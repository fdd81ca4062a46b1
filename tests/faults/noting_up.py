"""`gridit up` with workers that note what they compute; else the same machine, directory and lines."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from tests.faults.noting import Within
from workers.contracts import settings
from workers.supervisor import address, devices
from workers.supervisor.commands import lines
from workers.supervisor.directory import DataDirectory
from workers.supervisor.machine import Machine
from workers.supervisor.wake import Wake


class NotingMachine(Machine):
    """A machine whose workers are a program of the tests."""


def main(
    data_dir: Annotated[Path, typer.Option()],
    port: Annotated[int, typer.Option()],
    notes: Annotated[Path, typer.Option()],
    workers: Annotated[int, typer.Option()] = 1,
    within: Annotated[Within, typer.Option()] = Within.RUNNER,
    tick: Annotated[float, typer.Option()] = 0.0,
) -> None:
    """Run until stopped."""
    options = ("--notes", str(notes), "--within", within.value, "--tick", str(tick))
    NotingMachine.worker_command = (sys.executable, "-m", "tests.faults.noting", *options)
    chosen = settings.load(port=port, data_dir=data_dir)
    with DataDirectory.claim(data_dir) as directory, Wake() as wake:
        where = address.free(chosen.host, chosen.port)
        seats = devices.seats("cpu", gpus=(), workers=workers)
        for fact in NotingMachine(chosen, directory=directory, where=where, seats=seats).run(wake):
            for line in lines(fact):
                print(line, flush=True)


if __name__ == "__main__":
    typer.run(main)
