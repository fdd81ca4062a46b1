"""`gridit serve`: the HTTP API alone, until it is told to stop.

On the first signal it drains: event streams end (their clients resume elsewhere), requests in flight are answered.
"""

from __future__ import annotations

import errno
import logging
import signal
import socket
from pathlib import Path
from types import FrameType
from typing import Annotated

import typer
import uvicorn
from fastapi import FastAPI

from service.app import create_app
from workers.contracts import logs
from workers.contracts.errors import PortInUse
from workers.contracts.settings import Settings, load
from workers.queue.sockets import tcp_options

log = logging.getLogger(__name__)
app = typer.Typer(add_completion=False)
GRACE_SECONDS = 5
"""For requests in flight, after the signal."""
BACKLOG = 2048
SILENT_CLIENTS = tcp_options(idle_seconds=30, probe_seconds=10, probes=3)
"""A client whose network vanished takes no leave; after a minute without a sign of it its stream is given up."""


@app.command()
def serve(
    host: Annotated[str | None, typer.Option(help="Address to listen on.")] = None,
    port: Annotated[int | None, typer.Option(help="0: any free one.")] = None,
    redis_url: Annotated[str | None, typer.Option(help="redis://, rediss:// or unix://")] = None,
    data_dir: Annotated[Path | None, typer.Option(help="The same as the workers'.")] = None,
) -> None:
    """The HTTP API alone; options win over GRIDIT_* variables."""
    settings = load(host=host, port=port, redis_url=redis_url, data_dir=data_dir)
    logs.configure(level=settings.log_level, format=settings.log_format)
    with listen(settings) as listener:
        host, port = listener.getsockname()[:2]
        log.info("listening", extra={"action": "listen", "host": host, "port": port})
        Server(settings).run(sockets=[listener])


def listen(settings: Settings) -> socket.socket:
    """A bound socket; raises PortInUse, so that nothing is started for an address that is taken."""
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    try:
        listener = socket.create_server((settings.host, settings.port), family=family, backlog=BACKLOG)
    except OSError as error:
        if error.errno != errno.EADDRINUSE:
            raise
        remedy = "stop what listens there, or choose another with --port (0: any free one)"
        raise PortInUse(f"port {settings.port} on {settings.host} is in use; {remedy}", param="port") from None
    # Inherited by every connection; asyncio sets it only on sockets whose protocol was named. Without it a body waits
    # 40 ms behind its headers, for the client's delayed acknowledgement.
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in SILENT_CLIENTS.items():
        listener.setsockopt(socket.IPPROTO_TCP, option, value)
    return listener


class Server(uvicorn.Server):
    """uvicorn, that tells the app of a signal at once, so that endless streams end by themselves."""

    def __init__(self, settings: Settings) -> None:
        self.app: FastAPI = create_app(settings)
        config = uvicorn.Config(
            self.app,
            log_config=None,  # ours is set already
            log_level="warning",
            access_log=False,  # the middleware logs requests, with their ids
            timeout_graceful_shutdown=GRACE_SECONDS,
            server_header=False,
        )
        super().__init__(config)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Unlike uvicorn's own, does not die of the signal afterwards: a clean stop has exit status 0."""
        services = getattr(self.app.state, "services", None)
        if services is not None:
            services.draining.set()
        self.force_exit = self.should_exit and sig == signal.SIGINT
        self.should_exit = True
