"""`gridit demo`, `generate` and `watch` as a user calls them, on a tiny bundle: what they leave and what not."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from tests.integration.up_fixtures import ONE_THREAD, Up, processes_of, up, wait_for
from tests.tiny import tiny_bundle

GRIDIT = (sys.executable, "-m", "service.cli")
RESULT = {"video.mp4", "sequence.gif", "contact-sheet.png", "frames", "job.json", "events.jsonl"}

pytestmark = [
    pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="looks for processes in /proc"),
    pytest.mark.timeout(300),
]


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """A tiny bundle, and a temporary directory by which the demo's processes can be told."""
    bundle = tiny_bundle(tmp_path_factory.mktemp("bundles") / "tiny").path
    return {
        **os.environ,
        **ONE_THREAD,
        "GRIDIT_BUNDLES": str(bundle),
        "TMPDIR": str(tmp_path_factory.mktemp("temporary")),
    }


@pytest.fixture(scope="module")
def service(environment: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    with up(tmp_path_factory.mktemp("data"), **environment) as running:
        yield running


def call(*arguments: str, environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*GRIDIT, *arguments], env=environment, capture_output=True, text=True, timeout=280, check=False
    )


def start(*arguments: str, environment: dict[str, str]) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [*GRIDIT, *arguments],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def nothing_is_left(environment: dict[str, str]) -> bool:
    return not processes_of(Path(environment["TMPDIR"]))


def test_a_demo_leaves_its_result_and_nothing_else(environment: dict[str, str], tmp_path: Path) -> None:
    out = tmp_path / "out" / "demo"
    done = call("demo", "--out", str(out), "--num-frames", "20", "--class", "lava", environment=environment)
    assert done.returncode == 0, done.stderr
    assert nothing_is_left(environment)
    assert not list(Path(environment["TMPDIR"]).iterdir())
    assert {entry.name for entry in out.iterdir()} == RESULT
    assert [entry.name for entry in out.parent.iterdir()] == ["demo"]
    assert sorted(entry.name for entry in (out / "frames").iterdir()) == [f"{index:04d}.png" for index in range(20)]
    job = json.loads((out / "job.json").read_text())
    assert (job["status"], job["prompt"], job["seed"]) == ("completed", "lava", 1)
    assert "\x1b" not in done.stdout, "colours where there is no terminal"
    assert "completed in" in done.stdout
    assert "first coarse" in done.stdout


def test_a_demo_that_is_refused_says_why_and_leaves_nothing(environment: dict[str, str], tmp_path: Path) -> None:
    done = call("demo", "--out", str(tmp_path / "demo"), "--class", "lavva", environment=environment)
    assert done.returncode == 1
    assert done.stderr == "error: prompt must be one of 'lava', 'sky' (got 'lavva').\n"
    assert nothing_is_left(environment)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_demo_leaves_nothing(
    number: signal.Signals, environment: dict[str, str], tmp_path: Path
) -> None:
    arguments = ("demo", "--out", str(tmp_path / "demo"), "--num-frames", "256")
    with start(*arguments, environment=environment) as process:
        assert process.stdout is not None
        assert any("drawing" in line for line in process.stdout)
        process.send_signal(number)
        assert process.wait(60) == 130
    assert nothing_is_left(environment)
    assert not list(tmp_path.iterdir())
    assert not list(Path(environment["TMPDIR"]).iterdir())


def test_the_service_of_a_killed_demo_stops_by_itself(environment: dict[str, str], tmp_path: Path) -> None:
    with start("demo", "--out", str(tmp_path / "demo"), environment=environment) as process:
        assert process.stdout is not None
        assert any("service ready" in line for line in process.stdout)
        assert not nothing_is_left(environment)
        process.kill()
        assert wait_for(lambda: nothing_is_left(environment), seconds=60)


def test_generate_and_watch_work_on_a_running_service(service: Up, environment: dict[str, str], tmp_path: Path) -> None:
    arguments = ("--url", service.url, "--num-frames", "5", "--seed", "4", "--prompt", "sky")
    made = call("generate", "--out", str(tmp_path / "a"), *arguments, environment=environment)
    assert made.returncode == 0, made.stderr
    assert {entry.name for entry in (tmp_path / "a").iterdir()} == RESULT
    with Image.open(tmp_path / "a" / "frames" / "0004.png") as frame:
        assert frame.size == (8, 8)
    job = json.loads((tmp_path / "a" / "job.json").read_text())
    watched = call("watch", job["id"], "--url", service.url, environment=environment)
    assert watched.returncode == 0, watched.stderr
    assert "completed, coarse 5/5, refined 5/5" in watched.stdout
    unknown = call("watch", "video_nobody", "--url", service.url, environment=environment)
    assert unknown.returncode == 1
    assert unknown.stderr.startswith("error: ")
