"""`gridit worker`: one worker on its own."""

from __future__ import annotations

import os
import secrets
import socket
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from workers.contracts import logs, settings
from workers.contracts.errors import BundleUnavailable
from workers.contracts.settings import EngineBuilds, Settings
from workers.tasks import Engine

app = typer.Typer(help="Run jobs of the queue on this machine's device.", add_completion=False)


@app.command()
def worker(
    name: Annotated[str | None, typer.Option(help="Its name in the queue; unique among living workers.")] = None,
    redis_url: Annotated[str | None, typer.Option(help="The queue.")] = None,
    data_dir: Annotated[Path | None, typer.Option(help="Where the object store lies.")] = None,
    slots: Annotated[int | None, typer.Option(help="Jobs in hand at once.")] = None,
    device: Annotated[str | None, typer.Option(help="auto, cpu, cuda or cuda:<number>.")] = None,
) -> None:
    """Claim jobs and run them until stopped (SIGTERM: finish or give back; once more: give back at once).

    Everything else is set by GRIDIT_* variables.
    """
    # Threads of an engine on a CPU wait asleep: one that spins while another is not let run costs whole time slices.
    # Read by the OpenMP library when torch is imported.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    chosen = settings.load(redis_url=redis_url, data_dir=data_dir, slots=slots, device=device)
    logs.configure(level=chosen.log_level, format=chosen.log_format)
    from workers import metrics
    from workers.worker import Worker

    metrics.export(chosen.metrics_port)
    running = Worker(chosen, partial(load, chosen), name=name or default_name())
    running.handle_signals()
    try:
        status = running.run()
    finally:
        metrics.retire()
    if running.stuck:
        os._exit(status)  # a thread that cannot be ended would keep the process
    raise typer.Exit(status)


def load(chosen: Settings) -> Engine:
    """The runner with this machine's bundles and engines; heavy imports happen here.

    Raises BundleUnavailable that says what is wrong with a bundle, or why the engine asked for cannot run.
    """
    from models.bundle import BundleError
    from models.engine import EngineUnavailable
    from workers import loading
    from workers.childbuilds import ChildBuilder

    builds = chosen.engine_builds is EngineBuilds.BACKGROUND
    try:
        return loading.load(
            chosen.bundles,
            engine=chosen.engine.value,
            precision=chosen.precision.value,
            device=chosen.device,
            threads=chosen.threads,
            builder=ChildBuilder(tries=chosen.engine_build_tries) if builds else None,
            tries=chosen.engine_build_tries,
        )
    except (BundleError, EngineUnavailable) as error:
        raise BundleUnavailable(str(error)) from error


def default_name() -> str:
    """Host and process, and a bit more: containers share host names and process numbers."""
    return f"{socket.gethostname()}.{os.getpid()}.{secrets.token_hex(3)}"
