"""Where the API listens: checked before anything is started, and asked whether it answers."""

from __future__ import annotations

import errno
import http.client
import json
import socket
from dataclasses import dataclass

from workers.contracts.catalogue import WorkerState
from workers.contracts.errors import GriditError, PortInUse

ANY = {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}
"""Where to reach a server that listens everywhere."""


class NoSuchAddress(GriditError):
    """The address cannot be listened on by this user on this machine; the message names the remedy."""

    code = "no_such_address"


@dataclass(frozen=True)
class Address:
    """A host and a port to listen on."""

    host: str
    port: int

    @property
    def url(self) -> str:
        """Where a client on this machine finds it."""
        host = ANY.get(self.host, self.host)
        return f"http://{f'[{host}]' if ':' in host else host}:{self.port}"


def free(host: str, port: int) -> Address:
    """The address if it can be listened on (port 0: with a port that is free now). Raises PortInUse, NoSuchAddress."""
    try:
        family, *_, place = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        with socket.create_server((str(place[0]), port), family=family) as listener:
            return Address(host, listener.getsockname()[1])
    except socket.gaierror as error:
        raise NoSuchAddress(f"no such host to listen on: {host} ({error.strerror}); see --host") from error
    except OSError as error:
        kind = PortInUse if error.errno == errno.EADDRINUSE else NoSuchAddress
        raise kind(f"port {port} on {host} {_why(error)}", param="port") from error


def readiness(address: Address, *, timeout: float = 2.0) -> tuple[WorkerState, ...] | None:
    """The workers that the API knows, or None while it takes no requests."""
    connection = http.client.HTTPConnection(ANY.get(address.host, address.host), address.port, timeout=timeout)
    try:
        connection.request("GET", "/readyz")
        response = connection.getresponse()
        if response.status != 200:
            return None
        return tuple(WorkerState.model_validate(state) for state in json.load(response).get("workers", ()))
    except (OSError, http.client.HTTPException, ValueError):
        return None
    finally:
        connection.close()


def _why(error: OSError) -> str:
    match error.errno:
        case errno.EADDRINUSE:
            return "is in use by another program; choose another port with --port (0: any that is free)"
        case errno.EACCES:
            return "may not be used by this user; choose a port above 1023 with --port"
        case errno.EADDRNOTAVAIL:
            return "is no address of this machine; see --host"
        case _:
            return f"cannot be listened on: {error.strerror}"
