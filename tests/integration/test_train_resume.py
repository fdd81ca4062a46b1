"""Training as a user has it, in processes of its own: killed at any moment it goes on to the same weights, and many
processes learn what one does."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from models import bundle as bundles
from models.media import png
from models.spec import Stage
from models.train.commands import app
from models.train.session import Session
from tests.footage import moving, write_video

ROOT = Path(__file__).resolve().parents[2]
STEPS = 200
NET = ["--coarse-size", "8", "--grid", "2", "--width", "32", "--depth", "1", "--heads", "2", "--batch", "4"]
"""Nothing to be proud of, but quick."""


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten small videos."""
    folder = tmp_path_factory.mktemp("data") / "videos"
    for index in range(10):
        write_video(folder / f"clip{index}.mp4", moving(10 + index, seed=index))
    return folder


def arguments(videos: Path, runs: Path, *more: str) -> list[str]:
    return ["coarse", "--data", str(videos), "--runs", str(runs), *NET, *more]


def start(command: Sequence[str], log: Path) -> subprocess.Popen[bytes]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with log.open("ab") as said:
        return subprocess.Popen(command, cwd=ROOT, env=environment, stdout=said, stderr=said)


def gridit(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "service.cli", "train", *arguments]


def kill_after(process: subprocess.Popen[bytes], run: Path, *, step: int) -> int:
    """Kill a training, without a chance to save, once its losses reach so far; the step of its last save."""
    losses = run / "loss.csv"
    while not losses.exists() or losses.read_bytes().count(b"\n") < step:
        assert process.poll() is None, "it ended before it could be killed"
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()
    return Session(run).reopen().step


def assert_same(one: Path, other: Path) -> None:
    """Equal to the last bit: both weights, the optimiser, the step; but not the place."""
    states = [torch.load(run / "state.pt", weights_only=True) for run in (one, other)]
    assert states[0]["step"] == states[1]["step"] == STEPS
    for kind in ("net", "ema"):
        assert states[0][kind].keys() == states[1][kind].keys()
        assert all(torch.equal(tensor, states[1][kind][key]) for key, tensor in states[0][kind].items())
    moments = [state["optimiser"]["state"] for state in states]
    for index, moment in moments[0].items():
        assert all(torch.equal(moment[key], moments[1][index][key]) for key in moment)


def test_killed_twice_and_resumed_it_is_the_unbroken_run(videos: Path, tmp_path: Path) -> None:
    length = ["--total-steps", str(STEPS), "--save-every", "20"]
    unbroken = CliRunner().invoke(app, arguments(videos, tmp_path / "unbroken", *length))
    assert unbroken.exit_code == 0, unbroken.output

    run = tmp_path / "broken" / "videos-coarse"
    log = tmp_path / "log"
    first = kill_after(start(gridit(*arguments(videos, tmp_path / "broken", *length)), log), run, step=45)
    go_on = ["coarse", "--name", "videos", "--runs", str(tmp_path / "broken"), "--save-every", "20"]
    second = kill_after(start(gridit(*go_on), log), run, step=first + 50)
    assert 0 < first < second < STEPS
    last = CliRunner().invoke(app, [*go_on, "--bundle", str(tmp_path / "bundle")])
    assert last.exit_code == 0, last.output

    assert_same(tmp_path / "unbroken" / "videos-coarse", run)
    lines = [(path / "loss.csv").read_text().splitlines() for path in (tmp_path / "unbroken" / "videos-coarse", run)]
    losses = [[line.split(",")[:3] for line in each] for each in lines]
    assert losses[0] == losses[1]
    assert png.decode((run / f"sheet-{STEPS:06d}.png").read_bytes()).ndim == 3
    assert not [path for path in run.iterdir() if path.name.startswith(".")]
    assert bundles.load(tmp_path / "bundle").spec.stages == (Stage.COARSE,)


def test_two_processes_learn_what_one_does(videos: Path, tmp_path: Path) -> None:
    length = ["--total-steps", "12", "--learning-rate", "0.0001"]
    alone = CliRunner().invoke(app, arguments(videos, tmp_path / "alone", *length))
    assert alone.exit_code == 0, alone.output
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command = [*torchrun, "-m", "service.cli", "train", *arguments(videos, tmp_path / "together", *length)]
    process = start(command, tmp_path / "log")
    assert process.wait() == 0, (tmp_path / "log").read_text()

    one, two = (Session(tmp_path / place / "videos-coarse").reopen() for place in ("alone", "together"))
    assert one.step == two.step == 12
    for key, tensor in one.net.state_dict().items():
        torch.testing.assert_close(two.net.state_dict()[key], tensor, rtol=1e-4, atol=5e-5)
    curves = [(tmp_path / place / "videos-coarse" / "loss.csv").read_text() for place in ("alone", "together")]
    losses = [[float(line.split(",")[1]) for line in curve.splitlines()] for curve in curves]
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)
