"""`gridit up`: the command, and its lines on the terminal."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.status import Status

from workers.contracts import settings as settings_module
from workers.contracts.settings import LogLevel, Settings
from workers.supervisor import address, devices
from workers.supervisor.children import Died, Started
from workers.supervisor.directory import DataDirectory, default_directory
from workers.supervisor.facts import Fact, OrphansStopped, Ready, Released, Stopping
from workers.supervisor.machine import Machine
from workers.supervisor.wake import Wake

app = typer.Typer(add_completion=False)


@app.command()
def up(
    port: Annotated[int | None, typer.Option(help="Port of the API (default 8000); 0: any free one.")] = None,
    host: Annotated[str | None, typer.Option(help="Address to listen on (default 127.0.0.1).")] = None,
    data_dir: Annotated[Path | None, typer.Option(help="Where jobs and pictures are kept.")] = None,
    workers: Annotated[int | None, typer.Option(min=1, max=64, help="Default: one a GPU, or one on the CPU.")] = None,
    device: Annotated[str | None, typer.Option(help="auto (GPUs, if any), cpu, cuda or cuda:<number>.")] = None,
    log_level: Annotated[LogLevel | None, typer.Option(help="Of the logs in the data directory.")] = None,
    stop_with_stdin: Annotated[bool, typer.Option("--stop-with-stdin", hidden=True)] = False,
) -> None:
    """Start the server, the API and a worker for each GPU of this machine, keep them running, stop them with Ctrl-C.

    Jobs of an earlier run on the same data directory go on where they were.
    """
    settings = settings_module.load(host=host, port=port, log_level=log_level, data_dir=data_dir, device=device)
    seats = devices.seats(settings.device, gpus=devices.find_gpus(os.environ), workers=workers)
    leash = sys.stdin.fileno() if stop_with_stdin else None
    console = Console(highlight=False, soft_wrap=True)
    with DataDirectory.claim(_directory(settings)) as directory, Wake(leash=leash) as wake:
        where = address.free(settings.host, settings.port)
        console.print(f"[bold]GriDiT Serve[/] [dim]data in {directory.path}[/]")
        machine = Machine(settings, directory=directory, where=where, seats=seats)
        with contextlib.closing(machine.run(wake)) as facts, _starting(console) as spinner:
            for fact in facts:
                for line in lines(fact):
                    console.print(line)
                if isinstance(fact, Ready):
                    spinner.stop()
    console.print("stopped")


def _starting(console: Console) -> Status:
    """A spinner, which only a terminal shows."""
    return (console if console.is_terminal else Console(quiet=True)).status("starting")


def lines(fact: Fact) -> Iterator[str]:
    """A fact in words, in rich's markup."""
    match fact:
        case Started(name, _, pid, again=True):
            yield f"[green]{name} runs again[/] [dim]as process {pid}[/]"
        case Died(name, _, pid, status, restart_in):
            when = f"in {restart_in:g} s" if restart_in else "now"
            yield f"[red]{name} ended[/] [dim](process {pid}, status {status});[/] starting it again {when}"
        case Released(instance, jobs):
            yield f"{jobs} {'job' if jobs == 1 else 'jobs'} of {instance} back in the queue"
        case OrphansStopped(processes):
            yield f"stopped {len(processes)} processes that a killed gridit up had left"
        case Stopping(patience):
            yield f"stopping; jobs have {patience:g} s to get on, then they wait for the next start (Ctrl-C: at once)"
        case Ready():
            yield from _ready_lines(fact)


def _ready_lines(fact: Ready) -> Iterator[str]:
    yield f"[bold green]ready[/] in {fact.seconds:.1f} s at [bold]{fact.url}[/]"
    engines = {name: info for worker in fact.workers for name, info in worker.engines.items()}
    for name, info in sorted(engines.items()):
        yield f"  [cyan]{name}[/] {info.engine} {info.precision}"
    for worker, seat in zip(fact.workers, fact.seats, strict=True):
        unused = (
            f"; [yellow]{seat.label} is not used; --device cuda tells why[/]"
            if seat.gpu and worker.device == "cpu"
            else ""
        )
        yield f"  {worker.name.rsplit('-', 2)[0]} on {worker.device}{unused}"
    yield f"  [dim]{fact.server}, {len(fact.workers)} worker(s) of {fact.workers[0].slots} slots; Ctrl-C stops[/]"


def _directory(settings: Settings) -> Path:
    return settings.data_dir if "data_dir" in settings.model_fields_set else default_directory()
