"""Runs a command that must not outlive the process that asked for it. Executed as a script, standard library only.

    leash.py MODE PARENT_PID SIGNAL COMMAND...

MODE `exec` (Linux) asks the kernel to send SIGNAL when the parent dies, and becomes the command. MODE `watch`
(elsewhere) stays in between: it looks for its parent, passes stop signals on, and ends as the command ends.
"""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import time

PR_SET_PDEATHSIG = 1
LOOK_SECONDS = 0.25


def main(arguments: list[str]) -> int:
    mode, parent, orphan_signal, *command = arguments
    if mode == "exec":
        bind_and_become(int(parent), int(orphan_signal), command)
    return run_and_watch(int(parent), int(orphan_signal), command)


def bind_and_become(parent: int, orphan_signal: int, command: list[str]) -> None:
    """Never returns; the kernel keeps the request over the exec."""
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, orphan_signal)
    if os.getppid() != parent:  # it died before the kernel was asked
        sys.exit(1)
    os.execvp(command[0], command)


def run_and_watch(parent: int, orphan_signal: int, command: list[str]) -> int:
    """The command's exit status, in the shell's numbering for signals."""
    received: list[int] = []
    for number in (signal.SIGTERM, signal.SIGINT):  # before there is a child: a stop in between would orphan it
        signal.signal(number, lambda stop, _frame: received.append(stop))
    child = subprocess.Popen(command)
    while child.poll() is None:
        while received:
            child.send_signal(received.pop(0))
        if os.getppid() != parent:
            child.send_signal(orphan_signal)
        time.sleep(LOOK_SECONDS)
    return child.returncode if child.returncode >= 0 else 128 - child.returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
