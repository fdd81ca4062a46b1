"""`gridit up` on a machine that seems to have two GPUs: a worker for each, which sees only its own.

The GPUs are a stand-in's, so the workers, left to choose (auto), compute on the CPU and say so.
"""

from __future__ import annotations

import os
from pathlib import Path

import httpx
import pytest

from tests.fake_nvidia_smi import install, listing, uuid
from tests.integration.up_fixtures import ONE_THREAD, Up, refused, up
from tests.tiny import tiny_bundle
from workers.supervisor.devices import VISIBLE

pytestmark = [
    pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="reads environments in /proc"),
    pytest.mark.timeout(300),
]


def environment_of(running: Up, name: str) -> dict[str, str]:
    pairs = Path(f"/proc/{running.pid(name)}/environ").read_bytes().decode().split("\0")
    return dict(pair.split("=", 1) for pair in pairs if pair)


def test_each_worker_sees_its_own_gpu_and_says_what_it_computes_on(tmp_path: Path) -> None:
    bundle = tiny_bundle(tmp_path / "tiny").path
    path = f"{install(tmp_path / 'bin')}:{os.environ['PATH']}"
    machine = {"PATH": path, "FAKE_GPUS": listing(2), "GRIDIT_BUNDLES": str(bundle), **ONE_THREAD}
    with up(tmp_path / "data", **machine) as running:
        seen = [environment_of(running, name)[VISIBLE] for name in ("worker-1", "worker-2")]
        assert seen == [uuid(0), uuid(1)]
        ready = httpx.get(f"{running.url}/readyz", timeout=30).json()
        assert [worker["device"] for worker in ready["workers"]] == ["cpu", "cpu"]
        assert any(f"worker-2 on cpu; NVIDIA H200 ({uuid(1)}) is not used" in line for line in running.said)
    said = refused(tmp_path / "data", "--device", "cuda:2", **machine)
    assert "device cuda:2 is not there" in said
    assert f"cuda:1 is NVIDIA H200 ({uuid(1)})" in said
