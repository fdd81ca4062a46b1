"""What every TCP connection to Redis is told, so that a link which silently drops packets is noticed in bounded time.

A call that waits for its answer has a timeout of its own. A listener waits for as long as it takes: for it, and for
what was sent and is not acknowledged, the kernel must look after the link itself.
"""

from __future__ import annotations

import socket
from typing import Any

IDLE_SECONDS, PROBE_SECONDS, PROBES = 4, 2, 3
SILENCE_SECONDS = IDLE_SECONDS + PROBE_SECONDS * PROBES
"""After so long without a sign of the other side a connection is closed, whatever was asked of it."""


def watched(url: str) -> dict[str, Any]:
    """Arguments of `from_url` besides; none for a socket file, which has no link that could fail."""
    if url.startswith("unix://"):
        return {}
    return {"socket_keepalive": True, "socket_keepalive_options": _options()}


def _options() -> dict[int, int]:
    """Of level IPPROTO_TCP; names differ between systems, and some lack one."""
    wanted = {
        "TCP_KEEPIDLE": IDLE_SECONDS,
        "TCP_KEEPALIVE": IDLE_SECONDS,  # macOS's word for it
        "TCP_KEEPINTVL": PROBE_SECONDS,
        "TCP_KEEPCNT": PROBES,
        "TCP_USER_TIMEOUT": SILENCE_SECONDS * 1000,  # milliseconds; the one that bounds what was sent
    }
    return {getattr(socket, name): value for name, value in wanted.items() if hasattr(socket, name)}
