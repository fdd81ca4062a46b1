"""A service of one's own for a while: `gridit up` as a child, on a free port and a data directory that goes away."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import httpx

from workers.contracts.errors import GriditError

COMMAND = (sys.executable, "-P", "-m", "service.cli", "up", "--stop-with-stdin", "--workers", "1")
HOME = Path(__file__).resolve().parents[2]
ONE_SEQUENCE = {"GRIDIT_ENGINE_BUILDS": "off"}
"""It does not live long enough to gain by faster engines; those that are built already are used."""
START_SECONDS = 300.0
"""Opening engines may take long on a GPU."""
STOP_SECONDS = 30.0
LOOK_SECONDS = 0.05


class ServiceNotStarted(GriditError):
    """`gridit up` ended, or did not get ready; the message holds what it said."""

    code = "service_not_started"


@contextlib.contextmanager
def service() -> Iterator[str]:
    """The URL of a warm service. It ends with the block, and with this process however that ends."""
    with tempfile.TemporaryDirectory(prefix="gridit-demo-", ignore_cleanup_errors=True) as directory:
        said = Path(directory) / "up.log"
        url = f"http://127.0.0.1:{_free_port()}"
        with said.open("wb") as log:
            process = subprocess.Popen(
                [*COMMAND, "--port", url.rpartition(":")[2], "--data-dir", str(Path(directory) / "data")],
                stdin=subprocess.PIPE,  # never written to: its end tells the child that we are gone
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**ONE_SEQUENCE, **os.environ, "PYTHONPATH": _python_path()},
                start_new_session=True,
            )
        try:
            _wait_until_warm(url, process, said=said)
            yield url
        finally:
            _stop(process)


def _wait_until_warm(url: str, process: subprocess.Popen[bytes], *, said: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    with httpx.Client(base_url=url, timeout=5.0) as client:
        while not _warm(client):
            if process.poll() is not None:
                raise ServiceNotStarted(f"the service did not start: {said.read_text(errors='replace').strip()}")
            if time.monotonic() > deadline:
                raise ServiceNotStarted(f"the service was not ready within {START_SECONDS:g} s")
            time.sleep(LOOK_SECONDS)


def _warm(client: httpx.Client) -> bool:
    try:
        answer = client.get("/readyz")
    except httpx.TransportError:
        return False
    return answer.is_success and any(worker["phase"] == "ready" for worker in answer.json().get("workers", ()))


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()  # its children notice by themselves
        process.wait()
    if process.stdin is not None:
        process.stdin.close()


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


def _python_path() -> str:
    return os.pathsep.join(filter(None, (str(HOME), os.environ.get("PYTHONPATH"))))
