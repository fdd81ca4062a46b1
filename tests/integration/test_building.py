"""Builds in a process of their own: what is told of them, every way they can end, and that no child is left behind.

Most children here are toys that speak the builder's lines; the leash, and the last tests, are the builder itself.
"""

from __future__ import annotations

import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from models.builds import build_child
from models.builds.building import Build, Failed, Progress, Succeeded, attempt_of, forgive
from models.bundle import Bundle, BundleError
from models.compiling.engine_cache import VARIABLE, EngineCache
from models.compiling.engine_failures import Attempt, Failures
from models.engine import Precision
from tests.tiny import tiny_bundle

ROOT = Path(build_child.__file__).parents[1]
TOLD = 'print(\'{"doing": "export", "graph": "coarse-whole", "index": 1, "total": 4}\', flush=True)'
DONE = "print('{\"done\": true}', flush=True)"
HANG = "import time; time.sleep(60)"


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return tiny_bundle(tmp_path_factory.mktemp("bundle") / "tiny")


@pytest.fixture
def cache(tmp_path: Path) -> EngineCache:
    return EngineCache(tmp_path / "engines")


@pytest.fixture
def attempt(bundle: Bundle) -> Attempt:
    return attempt_of(bundle.spec, engine="openvino", precision=Precision.FP32)


@pytest.fixture
def begin(bundle: Bundle, cache: EngineCache) -> Iterator[Callable[..., Build]]:
    """Start a toy that runs these lines of Python."""
    builds: list[Build] = []

    def start(*lines: str, limit: float = 60) -> Build:
        program = (sys.executable, "-I", "-S", "-c", "\n".join(lines))
        options = {"engine": "openvino", "precision": Precision.FP32, "cache": cache}
        builds.append(Build.start(bundle.path, program=program, limit=limit, **options))  # type: ignore[arg-type]
        return builds[-1]

    yield start
    for build in builds:
        build.stop()


def until(condition: Callable[[], object], *, seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def ended(build: Build) -> Succeeded | Failed:
    until(lambda: not isinstance(build.poll(), Progress))
    end = build.poll()
    assert not isinstance(end, Progress)
    return end


def failed(build: Build) -> Failed:
    end = ended(build)
    assert isinstance(end, Failed)
    return end


def runs(pid: int) -> bool:
    """Whether a process is there that is not merely unburied."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_a_good_build_is_told_to_its_end(begin: Callable[..., Build]) -> None:
    build = begin(TOLD, "input()", DONE)
    assert build.poll() in (Progress("start"), Progress("export", "coarse-whole", 1, 4))
    until(lambda: build.poll() == Progress("export", "coarse-whole", 1, 4))
    assert runs(build.pid)
    build.stop()
    good = ended(begin(TOLD, DONE))
    assert isinstance(good, Succeeded)
    assert good.seconds > 0


def test_it_is_given_its_commission(begin: Callable[..., Build], bundle: Bundle, cache: EngineCache) -> None:
    lines = [
        "import json, os, sys",
        "given = json.loads(sys.argv[1])",
        f"assert given['bundle'] == {str(bundle.path)!r} and given['engine'] == 'openvino'",
        f"assert given['cache'] == os.environ['GRIDIT_ENGINE_CACHE'] == {str(cache.root)!r}",
        "assert given['precision'] == 'fp32' and given['buckets'] == [1, 2, 4, 8, 16, 32]",
    ]
    assert isinstance(ended(begin(*lines, DONE)), Succeeded)


def test_a_reason_that_is_told_is_the_reason(begin: Callable[..., Build], cache: EngineCache, attempt: Attempt) -> None:
    build = begin("import sys", 'print(\'{"failed": "no such device"}\')', "sys.exit(1)")
    end = failed(build)
    assert (end.reason, end.count) == ("no such device", 1)
    assert build.poll() == end
    failure = Failures(cache.root).find(attempt)
    assert failure is not None
    assert (failure.reason, failure.count) == ("no such device", 1)
    assert failed(begin("import os; os.abort()")).count == 2
    assert not Failures(cache.root).may_try(attempt, tries=2)
    assert isinstance(ended(begin(DONE)), Succeeded)
    assert Failures(cache.root).may_try(attempt, tries=1)


DEATHS = {
    "killed": ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", "it was killed, .* memory runs out"),
    "crashed": ("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", "it crashed with SIGSEGV"),
    "gave up": ("raise SystemExit('nothing to do: really')", "ended with status 1: nothing to do: really"),
    "silent": ("pass", "ended with status 0"),
    "traceback": ("1 / 0", "status 1: .*ZeroDivisionError: division by zero"),
}


@pytest.mark.parametrize("death", DEATHS)
def test_every_death_has_its_words(begin: Callable[..., Build], death: str) -> None:
    program, words = DEATHS[death]
    end = failed(begin(TOLD, program))
    assert re.match(f"stopped at export of coarse-whole: .*{words}", end.reason)


def test_a_build_that_takes_too_long_is_ended(begin: Callable[..., Build]) -> None:
    build = begin(TOLD, HANG, limit=0.5)
    assert failed(build).reason == "stopped at export of coarse-whole after 0.5 s, the most it may take"
    assert not runs(build.pid)


def test_a_stopped_build_leaves_nothing(
    begin: Callable[..., Build], cache: EngineCache, attempt: Attempt, tmp_path: Path
) -> None:
    note = tmp_path / "grandchild"
    build = begin(
        "import subprocess, pathlib",
        "child = subprocess.Popen(['sleep', '60'])",
        f"pathlib.Path({str(note)!r}).write_text(str(child.pid))",
        TOLD,
        HANG,
    )
    until(lambda: build.poll() != Progress("start"))
    grandchild = int(note.read_text())
    assert runs(grandchild)
    build.stop()
    build.stop()
    assert not runs(build.pid)
    until(lambda: not runs(grandchild))
    assert Failures(cache.root).find(attempt) is None


def test_one_that_says_much_is_not_held_up(begin: Callable[..., Build]) -> None:
    build = begin("import sys", "sys.stderr.write('noise\\n' * 400_000)", *[TOLD] * 500, DONE)
    assert isinstance(ended(build), Succeeded)


def test_half_a_line_is_no_news(begin: Callable[..., Build], tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    build = begin(
        "import pathlib, sys, time",
        'sys.stdout.write(\'{"doing": "ex\'); sys.stdout.flush()',
        f"pathlib.Path({str(gate)!r}).write_text('')",
        f"while pathlib.Path({str(gate)!r}).exists(): time.sleep(0.01)",
        "print('port\"}', flush=True)",
        HANG,
    )
    until(gate.exists)
    assert build.poll() == Progress("start")
    gate.unlink()
    until(lambda: build.poll() == Progress("export"))


def test_whoever_asks_for_a_build_is_not_refused_it(
    begin: Callable[..., Build],
    bundle: Bundle,
    cache: EngineCache,
    attempt: Attempt,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    failed(begin("1 / 0"))
    assert not Failures(cache.root).may_try(attempt, tries=1)
    monkeypatch.setenv(VARIABLE, str(cache.root))
    forgive(bundle.path, engine=attempt.engine, precision=attempt.precision)
    assert Failures(cache.root).may_try(attempt, tries=1)


def test_no_bundle_no_build(tmp_path: Path, cache: EngineCache) -> None:
    with pytest.raises(BundleError):
        Build.start(tmp_path / "nowhere", engine="openvino", precision=Precision.FP32, cache=cache)


PARENT = """
import subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", sys.argv[1]], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
child.stdout.readline()
print(child.pid, flush=True)
if sys.argv[2] == "close":
    child.stdin.close()
    child.wait()
    print("buried", flush=True)
time.sleep(60)
"""
LEASHED = (
    "from models.builds.build_child import die_with_parent; die_with_parent(); print(flush=True); import ctypes, time; "
)


@pytest.fixture
def parent() -> Iterator[Callable[..., tuple[subprocess.Popen[str], int]]]:
    """A process with a child on the builder's leash; and the child's number."""
    started: list[subprocess.Popen[str]] = []

    def start(work: str, *, then: str = "sleep") -> tuple[subprocess.Popen[str], int]:
        command = [sys.executable, "-c", PARENT, LEASHED + work, then]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT)
        started.append(process)
        assert process.stdout is not None
        return process, int(process.stdout.readline())

    yield start
    for process in started:
        process.kill()
        process.communicate()


HOLDING = "ctypes.PyDLL(None).sleep(60)"
"""Inside a library that does not let go of Python's lock."""


@pytest.mark.parametrize("work", ["time.sleep(60)", HOLDING])
def test_when_the_parent_dies_the_builder_dies(
    parent: Callable[..., tuple[subprocess.Popen[str], int]], work: str
) -> None:
    process, child = parent(work)
    assert runs(child)
    process.kill()
    process.wait()
    until(lambda: not runs(child), seconds=10)


def test_the_end_of_standard_input_ends_the_builder(
    parent: Callable[..., tuple[subprocess.Popen[str], int]],
) -> None:
    """The leash of systems whose kernel has none."""
    process, _ = parent("time.sleep(60)", then="close")
    assert process.stdout is not None
    assert process.stdout.readline() == "buried\n"
