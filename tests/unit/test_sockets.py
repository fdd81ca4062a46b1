"""A link that silently drops packets is noticed: what connections are told, as the kernel has it."""

from __future__ import annotations

import socket

import pytest
import redis

from service.commands import listen
from workers.contracts.settings import Settings
from workers.queue.connect import connect, connect_bytes
from workers.queue.sockets import watched

pytestmark = pytest.mark.skipif(not hasattr(socket, "TCP_USER_TIMEOUT"), reason="no TCP_USER_TIMEOUT on this system")


def silence_allowed(connection: socket.socket) -> tuple[int, int]:
    """Seconds that the other side may say nothing: asked something, and not asked anything."""
    options = (socket.TCP_USER_TIMEOUT, socket.TCP_KEEPIDLE, socket.TCP_KEEPINTVL, socket.TCP_KEEPCNT)
    sent, idle, probe, probes = (connection.getsockopt(socket.IPPROTO_TCP, option) for option in options)
    assert connection.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
    return sent // 1000, idle + probe * probes


@pytest.mark.parametrize("make", [connect, connect_bytes])
def test_a_connection_to_redis_allows_ten_seconds(make: type[redis.Redis]) -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as server,
        make(f"redis://127.0.0.1:{server.getsockname()[1]}") as client,
    ):
        connection = client.connection_pool.make_connection()
        with connection._connect() as made:
            assert silence_allowed(made) == (10, 10)


def test_a_socket_file_has_no_link() -> None:
    assert watched("unix:///tmp/r.sock") == {}


def test_a_client_of_the_api_is_allowed_a_minute() -> None:
    with listen(Settings(port=0)) as listener, socket.create_connection(listener.getsockname()[:2]):
        accepted, _ = listener.accept()
        with accepted:
            assert silence_allowed(accepted) == (60, 60)
