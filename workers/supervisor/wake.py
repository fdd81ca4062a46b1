"""Waiting for signals and for time, without handlers that do anything."""

from __future__ import annotations

import os
import selectors
import signal
import socket
from types import FrameType, TracebackType
from typing import Self

HEARD = (signal.SIGCHLD, signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
STOPS = frozenset({signal.SIGINT, signal.SIGTERM, signal.SIGHUP})


class Wake:
    """While entered, the signals of HEARD are collected for `wait`; main thread only.

    The end of the stream `leash` (a descriptor), if there is one, counts as SIGTERM.
    """

    def __init__(self, *, leash: int | None = None) -> None:
        self._leash = leash

    def __enter__(self) -> Self:
        self._inbox, self._outbox = socket.socketpair()
        for end in (self._inbox, self._outbox):
            end.setblocking(False)
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._inbox, selectors.EVENT_READ)
        if self._leash is not None:
            self._selector.register(self._leash, selectors.EVENT_READ)
        self._old_fd = signal.set_wakeup_fd(self._outbox.fileno(), warn_on_full_buffer=False)
        self._old = {number: signal.signal(number, _ignore) for number in HEARD}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._old.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(self._old_fd)
        self._selector.close()
        self._inbox.close()
        self._outbox.close()

    def wait(self, timeout: float) -> list[int]:
        """The signals that came, in order; empty when `timeout` seconds passed without one."""
        heard: list[int] = []
        for key, _ in self._selector.select(max(timeout, 0.0)):
            if key.fileobj is self._inbox:
                heard += self._inbox.recv(4096)
            elif not os.read(key.fd, 4096):
                self._selector.unregister(key.fd)
                heard.append(signal.SIGTERM)
        return heard

    def stop_asked(self, timeout: float) -> bool:
        """Wait likewise; whether a signal to stop was among them."""
        return not STOPS.isdisjoint(self.wait(timeout))


def _ignore(_number: int, _frame: FrameType | None) -> None:
    """A handler must stand for the number to be passed on."""
