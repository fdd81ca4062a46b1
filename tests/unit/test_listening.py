"""The API's socket: what every connection inherits from it."""

from __future__ import annotations

import socket

from service.commands import listen
from workers.contracts.settings import Settings


def test_no_connection_holds_a_body_back_until_its_headers_are_acknowledged() -> None:
    with listen(Settings(port=0)) as listener, socket.create_connection(listener.getsockname()[:2]):
        accepted, _ = listener.accept()
        with accepted:
            assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
