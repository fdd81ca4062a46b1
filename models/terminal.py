"""What the commands of the models share at a terminal: the console, progress bars, an orderly end on Ctrl-C."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, TextColumn

DEMO = Path(__file__).parent / "bundles" / "demo"
"""The bundle that ships."""

console = Console(stderr=True)
"""Where commands talk; what they are asked for goes to files or to standard output."""


def progress_bar(*columns: ProgressColumn) -> Progress:
    """A bar with a description before it and `columns` after it."""
    return Progress(TextColumn("{task.description}"), BarColumn(), *columns, console=console)


@contextmanager
def asked_to_stop() -> Iterator[threading.Event]:
    """Set by the first interrupt or request to end, so that a step in progress is finished and saved."""
    asked = threading.Event()
    before = {number: signal.signal(number, lambda *_: asked.set()) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
