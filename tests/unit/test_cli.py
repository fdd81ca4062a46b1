"""The command line: light until a command is called, and one line for every mistake."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from service import cli

HEAVY = ("torch", "fastapi", "redis", "rq", "httpx", "PIL", "numpy", "uvicorn")


def gridit(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "service.cli", *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, **environment},
        check=False,
    )


def test_help_names_every_command_and_imports_nothing_heavy() -> None:
    code = (
        "import sys; from service import cli; assert cli.run(['--help']) == 0; "
        f"sys.exit(', '.join(set({HEAVY!r}) & set(sys.modules)) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    for group in cli.COMMANDS.values():
        for name, command in group.items():
            assert f"  {name} " in done.stdout
            assert command.help in done.stdout


@pytest.mark.parametrize("name", [name for group in cli.COMMANDS.values() for name in group])
def test_every_command_of_the_table_exists(name: str) -> None:
    done = gridit(name, "--help")
    assert done.returncode == 0, done.stderr
    assert f"gridit {name}" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        (["sevre"], 2, "did you mean serve?"),
        (["--colour"], 2, "no such option: --colour"),
        (["up", "--prot", "1"], 2, "--prot"),
        (["up", "--port", "70000", "--data-dir", "{tmp}"], 1, "GRIDIT_PORT"),
        (["watch", "video_1", "--url", "http://127.0.0.1:1"], 1, "is the service running?"),
        (["demo", "--out", "{tmp}/file"], 1, "is a file"),
    ],
)
def test_a_mistake_is_one_line_with_its_remedy(arguments: list[str], status: int, said: str, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    done = gridit(*[part.replace("{tmp}", str(tmp_path)) for part in arguments])
    assert (done.returncode, done.stdout) == (status, "")
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert len(done.stderr.splitlines()) == 1 or "Usage:" in done.stderr


def test_debug_adds_the_traceback() -> None:
    done = gridit("--debug", "watch", "video_1", "--url", "http://127.0.0.1:1")
    assert "Traceback" in done.stderr
    assert done.stderr.splitlines()[-1].startswith("error: no answer from http://127.0.0.1:1")


def test_an_unknown_setting_in_the_environment_stops_it(tmp_path: Path) -> None:
    done = gridit("up", "--data-dir", str(tmp_path), GRIDIT_PROT="1")
    assert done.returncode == 1
    assert "GRIDIT_PROT: no such setting" in done.stderr


def test_the_version_is_told() -> None:
    done = gridit("--version")
    assert (done.returncode, done.stdout) == (0, f"gridit {cli.version()}\n")


def test_no_command_shows_the_help_and_is_a_mistake() -> None:
    done = gridit()
    assert done.returncode == 2
    assert "Usage:" in done.stdout
