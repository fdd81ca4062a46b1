"""Children and their directory, with toy programs: restarts, leashes, and who holds a data directory."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from workers.supervisor import leash
from workers.supervisor.children import DELAYS, Children, ChildSpec, Died, Started
from workers.supervisor.directory import DataDirectory, DirectoryInUse, DirectoryNotWritable
from workers.supervisor.process import Process, began, stop_all

SLEEPER = ("sleep", "60")
HOLDER = """
import signal, sys
from pathlib import Path
from workers.supervisor.children import Children, ChildSpec
from workers.supervisor.directory import DataDirectory
with DataDirectory.claim(Path(sys.argv[1])) as directory:
    children = Children()
    children.add(ChildSpec("toy", ("sleep", "60"), Path(sys.argv[1]) / "toy.log"))
    children.tick(now=0.0)
    directory.record(url="http://toy", children=tuple(children.processes()))
    print(*(process.pid for process in children.processes()), flush=True)
    signal.pause()
"""


def wait_for(condition: Callable[[], object], *, seconds: float = 2.0) -> bool:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


@pytest.fixture
def children() -> Iterator[Children]:
    family = Children()
    yield family
    family.kill()


@pytest.fixture
def holder(tmp_path: Path) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """Another process that holds `tmp_path` and has one child; and the child's number."""
    command = [sys.executable, "-c", HOLDER, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        yield process, int(process.stdout.readline())
        process.kill()


def toy(tmp_path: Path, *command: str, patience: float = 5.0) -> ChildSpec:
    return ChildSpec("toy", command, tmp_path / "logs" / "toy.log", patience=patience)


def died(family: Children, *, now: float) -> Died:
    """The next death; time stands still at `now`."""
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline:
        for fact in family.tick(now=now):
            if isinstance(fact, Died):
                return fact
        time.sleep(0.01)
    raise AssertionError("nobody died")


def test_a_killed_child_runs_again_at_once_under_a_new_name(tmp_path: Path, children: Children) -> None:
    children.add(toy(tmp_path, *SLEEPER))
    (first,) = children.tick(now=0.0)
    assert isinstance(first, Started)
    assert not first.again
    os.kill(first.pid, signal.SIGKILL)
    assert wait_for(lambda: not began(first.pid))
    death, second = children.tick(now=1.0)
    assert death == Died("toy", first.instance, first.pid, -signal.SIGKILL, restart_in=0.0)
    assert isinstance(second, Started)
    assert second.again
    assert second.instance != first.instance
    assert [process.pid for process in children.processes()] == [second.pid]


def test_a_child_that_keeps_dying_waits_longer_each_time(tmp_path: Path, children: Children) -> None:
    children.add(toy(tmp_path, "sh", "-c", "exit 3"))
    now, waits = 0.0, []
    for _ in range(len(DELAYS) + 1):
        death = died(children, now=now)
        assert death.status == 3
        waits.append(death.restart_in)
        assert children.tick(now=now + 0.99 * death.restart_in) == [] or not death.restart_in
        now += death.restart_in
    assert waits == [*DELAYS, DELAYS[-1]]


def test_a_name_of_its_own_is_passed_on_and_what_it_says_is_kept(tmp_path: Path, children: Children) -> None:
    children.add(toy(tmp_path, "sh", "-c", "echo I am {instance}; exec sleep 60"))
    (started,) = children.tick(now=0.0)
    log = tmp_path / "logs" / "toy.log"
    assert wait_for(lambda: log.read_text() == f"I am {started.instance}\n")


def test_stopping_is_patient_first_and_thorough_in_the_end(tmp_path: Path, children: Children) -> None:
    stubborn = f"trap '' TERM; sleep 60 & echo $! > {tmp_path}/grandchild; while :; do sleep 0.1; done"
    children.add(toy(tmp_path, "sh", "-c", stubborn, patience=0.5))
    (started,) = children.tick(now=0.0)
    assert wait_for(lambda: (tmp_path / "grandchild").exists() and (tmp_path / "grandchild").read_text())
    start = time.monotonic()
    for _ in children.stop(["toy"]):
        time.sleep(0.02)
    assert 0.5 <= time.monotonic() - start < 1.5
    assert not began(started.pid)
    assert wait_for(lambda: not began(int((tmp_path / "grandchild").read_text())))
    assert children.tick(now=1.0) == []


@pytest.mark.parametrize("mode", ["exec", "watch"])
def test_on_a_leash_a_command_dies_with_its_parent(mode: str, tmp_path: Path) -> None:
    if mode == "exec" and sys.platform != "linux":
        pytest.skip("asks the Linux kernel")
    script = f"{sys.executable} -I -S {leash.__file__} {mode} $$ 9 sh -c 'echo $$; exec sleep 60' & wait"
    with subprocess.Popen(["sh", "-c", script], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        command = int(parent.stdout.readline())
        assert began(command)
        parent.kill()
        assert wait_for(lambda: not began(command))


def test_a_leash_whose_parent_is_gone_starts_nothing() -> None:
    done = subprocess.run(
        [sys.executable, leash.__file__, "exec", "1", "9", "echo", "run"], capture_output=True, check=False
    )
    assert (done.returncode, done.stdout) == (1, b"")


def test_a_watching_leash_passes_on_the_stop_and_the_status() -> None:
    command = [sys.executable, leash.__file__, "watch", str(os.getpid()), "9"]
    script = "trap 'exit 7' TERM; echo up; while :; do sleep 0.05; done"
    with subprocess.Popen([*command, "sh", "-c", script], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.terminate()
        assert process.wait(5) == 7


def test_a_directory_in_use_is_refused_naming_its_holder(
    tmp_path: Path, holder: tuple[subprocess.Popen[str], int]
) -> None:
    with pytest.raises(DirectoryInUse, match=rf"process {holder[0].pid} serving http://toy.*--data-dir"):
        DataDirectory.claim(tmp_path)


def test_a_killed_holder_leaves_no_child_and_its_directory_is_free(
    tmp_path: Path, holder: tuple[subprocess.Popen[str], int]
) -> None:
    process, child = holder
    process.kill()
    process.wait()
    assert wait_for(lambda: not began(child))
    with DataDirectory.claim(tmp_path) as directory:
        assert [left.pid for left in directory.left_behind] == [child]
        assert not directory.left_behind[0].alive


def test_a_directory_given_back_has_nothing_left_behind(tmp_path: Path) -> None:
    with DataDirectory.claim(tmp_path) as directory:
        directory.record(children=(Process(pid=os.getpid(), began=began(os.getpid())),))
    with DataDirectory.claim(tmp_path) as directory:
        assert directory.left_behind == ()


def test_orphans_are_stopped_but_never_a_later_process_with_the_same_number(tmp_path: Path) -> None:
    with subprocess.Popen(["sleep", "60"]) as orphan, subprocess.Popen(["sleep", "60"]) as stranger:
        recorded = [
            Process(pid=orphan.pid, began=began(orphan.pid)),
            Process(pid=stranger.pid, began="another time"),
        ]
        assert [process.pid for process in stop_all(recorded, patience=2)] == [orphan.pid]
        assert orphan.wait(1) == -signal.SIGTERM
        assert stranger.poll() is None
        stranger.kill()


@pytest.mark.parametrize("path", ["file", "file/below", "/proc/gridit"])
def test_a_directory_that_cannot_be_written_is_an_error_with_its_remedy(path: str, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(DirectoryNotWritable, match=r"cannot be written.*--data-dir"):
        DataDirectory.claim(tmp_path / path)
