"""What every TCP connection to Redis is told, so that a link which silently drops packets is noticed in bounded time.

A call that waits for its answer has a timeout of its own. A listener waits for as long as it takes: for it, and for
what was sent and is not acknowledged, the kernel must look after the link itself.
"""

from __future__ import annotations

import socket
from typing import Any

IDLE_SECONDS, PROBE_SECONDS, PROBES = 4, 2, 3
"""After ten seconds without a sign of the other side a connection is closed, whatever was asked of it."""


def watched(url: str) -> dict[str, Any]:
    """Arguments of `from_url` besides; none for a socket file, which has no link that could fail."""
    if url.startswith("unix://"):
        return {}
    options = tcp_options(idle_seconds=IDLE_SECONDS, probe_seconds=PROBE_SECONDS, probes=PROBES)
    return {"socket_keepalive": True, "socket_keepalive_options": options}


def tcp_options(*, idle_seconds: int, probe_seconds: int, probes: int) -> dict[int, int]:
    """Of level IPPROTO_TCP, for a socket with SO_KEEPALIVE: how long the other side may say nothing at all.

    Their names differ between systems, and some systems lack one.
    """
    wanted = {
        "TCP_KEEPIDLE": idle_seconds,
        "TCP_KEEPALIVE": idle_seconds,  # macOS's word for it
        "TCP_KEEPINTVL": probe_seconds,
        "TCP_KEEPCNT": probes,
        "TCP_USER_TIMEOUT": (idle_seconds + probe_seconds * probes) * 1000,  # the one that bounds what was sent
    }
    return {getattr(socket, name): value for name, value in wanted.items() if hasattr(socket, name)}
