"""Several hosts in one machine: network namespaces on a bridge of their own, links that can be cut, and their programs.

Nothing of it lies in the machine's own network but one end of a cable to the bridge and one to each host that has a
front. All of it goes when the network is closed; what a killed run left goes before the next one is laid.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path

from workers.supervisor import leash

MARK = "gridit"
"""Our namespaces are `gridit<process>-<network>-<host>`."""
_COUNT = itertools.count()
ESTABLISHED = "01"
"""A connection's state in /proc/net/tcp."""
ROOT = Path(__file__).resolve().parents[2]


class Cut(Enum):
    """A way to lose a link."""

    DOWN = "down"
    """The host's own interface goes down: what it sends fails at once."""
    SILENT = "silent"
    """The bridge forgets the cable: everything is dropped and nobody is told."""


@dataclass
class Host:
    """A namespace with an address on the bridge, and perhaps a front: a second cable, from this process to it alone."""

    name: str
    namespace: str
    lan: str
    address: str
    front: str | None = None
    programs: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def start(self, command: list[str], *, log: Path, environment: Mapping[str, str]) -> subprocess.Popen[bytes]:
        """A program on this host, that ends with this process."""
        keeper = [sys.executable, "-I", "-S", leash.__file__, "exec", str(os.getpid()), str(int(signal.SIGKILL))]
        with log.open("ab") as file:
            program = subprocess.Popen(
                [*keeper, "ip", "netns", "exec", self.namespace, *command],
                cwd=ROOT,
                env={**os.environ, **environment},
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
            )
        self.programs.append(program)
        return program

    def cut(self, how: Cut) -> None:
        """Take the host off the bridge."""
        if how is Cut.DOWN:
            ip("-n", self.namespace, "link", "set", "eth0", "down")
        else:
            ip("-n", self.lan, "link", "set", self.name, "nomaster")

    def heal(self) -> None:
        """Undo every cut."""
        ip("-n", self.namespace, "link", "set", "eth0", "up")
        ip("-n", self.lan, "link", "set", self.name, "master", "bridge")

    def connections(self, port: int) -> int:
        """How many TCP connections from here to that port elsewhere are held to be alive."""
        table = Path(f"/proc/{self.programs[0].pid}/net/tcp").read_text().splitlines()[1:]  # of the whole namespace
        remotes = [line.split()[2] for line in table if line.split()[3] == ESTABLISHED]
        return sum(int(remote.partition(":")[2], 16) == port for remote in remotes)

    def stop(self) -> None:
        """Kill its programs."""
        for program in self.programs:
            program.kill()
            program.wait()


class Network:
    """Lays hosts; a context manager that takes everything away again."""

    def __init__(self) -> None:
        number = next(_COUNT)
        self._prefix = f"{MARK}{os.getpid()}-{number}"
        self._lan = f"{self._prefix}-lan"
        self._near = f"{MARK[0]}{os.getpid()}-{number}"
        self._net = (os.getpid() + number) % 256
        self.hosts: list[Host] = []

    def __enter__(self) -> Network:
        clear()
        ip("netns", "add", self._lan)
        ip("-n", self._lan, "link", "add", "bridge", "type", "bridge")
        ip("-n", self._lan, "link", "set", "bridge", "up")
        self._cable("here", self._lan, here=self._near, address=f"198.18.{self._net}.1/24")
        return self

    def __exit__(self, *_: object) -> None:
        for host in self.hosts:
            host.stop()
        for name in namespaces():
            if name.startswith(f"{self._prefix}-"):
                remove(name)

    def host(self, name: str) -> Host:
        """A new host on the bridge."""
        number = len(self.hosts) + 2
        host = Host(name, f"{self._prefix}-{name}", self._lan, f"198.18.{self._net}.{number}")
        ip("netns", "add", host.namespace)
        ip("-n", self._lan, "link", "add", name, "type", "veth", "peer", "name", "eth0", "netns", host.namespace)
        ip("-n", self._lan, "link", "set", name, "master", "bridge", "up")
        ip("-n", host.namespace, "address", "add", f"{host.address}/24", "dev", "eth0")
        for device in ("lo", "eth0"):
            ip("-n", host.namespace, "link", "set", device, "up")
        self.hosts.append(host)
        return host

    def lay_front(self, host: Host) -> None:
        """A cable from this process to the host, which no cut of its link to the bridge touches."""
        near, host.front = f"198.19.{self._net}.1/24", f"198.19.{self._net}.2"
        here = f"{self._near}f"
        ip("link", "add", here, "type", "veth", "peer", "name", "front", "netns", host.namespace)
        ip("address", "add", near, "dev", here)
        ip("link", "set", here, "up")
        ip("-n", host.namespace, "address", "add", f"{host.front}/24", "dev", "front")
        ip("-n", host.namespace, "link", "set", "front", "up")

    def _cable(self, far: str, namespace: str, *, here: str, address: str) -> None:
        ip("link", "add", here, "type", "veth", "peer", "name", far, "netns", namespace)
        ip("-n", namespace, "link", "set", far, "master", "bridge", "up")
        ip("address", "add", address, "dev", here)
        ip("link", "set", here, "up")


def refusal() -> str:
    """Why there can be no such network here; "" if there can."""
    if shutil.which("ip") is None:
        return "needs the program ip (iproute2)"
    probe = f"{MARK}{os.getpid()}-probe"
    try:
        ip("netns", "add", probe)
        ip("-n", probe, "link", "add", "bridge", "type", "bridge")
    except subprocess.CalledProcessError as error:
        return f"may not lay network namespaces here: {error.stderr.strip()}"
    finally:
        with contextlib.suppress(subprocess.CalledProcessError):
            ip("netns", "delete", probe)
    return ""


def clear() -> None:
    """Take away what runs left that were killed."""
    for name in namespaces():
        match = re.fullmatch(rf"{MARK}(\d+)-.+", name)
        if match and not Path(f"/proc/{match[1]}").exists():
            remove(name)


def remove(namespace: str) -> None:
    """End its programs and forget it; its cables go with it."""
    for pid in ip("netns", "pids", namespace).split():
        with contextlib.suppress(ProcessLookupError):
            os.kill(int(pid), signal.SIGKILL)
    deadline = time.monotonic() + 10
    while ip("netns", "pids", namespace).split() and time.monotonic() < deadline:
        time.sleep(0.02)
    ip("netns", "delete", namespace)


def namespaces() -> Iterator[str]:
    """Those of this machine, ours or not."""
    for line in ip("netns", "list").splitlines():
        yield line.split()[0]


def ip(*arguments: str) -> str:
    """What `ip` says. Raises CalledProcessError."""
    return subprocess.run(["ip", *arguments], capture_output=True, text=True, check=True).stdout
