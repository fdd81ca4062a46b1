"""What the service says when something is missing: Redis, a catalogue, its port; and how it goes away."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests import twins
from tests.integration.conftest import Server
from tests.integration.service_fixtures import PATIENCE, Api, running_service, told, wait_for

PYTHON = (sys.executable, "-P", "-m")


@pytest.fixture
def api(own_server: Server, tmp_path: Path) -> Iterator[Api]:
    with running_service(own_server.url, tmp_path / "data") as service:
        yield service


@contextlib.contextmanager
def process(*command: str, said: Path, environment: dict[str, str]) -> Iterator[subprocess.Popen[bytes]]:
    """A program of ours that writes what it says to a file; killed at the end if it is still there."""
    settings = environment | {"PYTHONPATH": str(Path.cwd())}
    with (
        said.open("wb") as log,
        subprocess.Popen([*PYTHON, *command], env=os.environ | settings, stderr=log) as running,
    ):
        try:
            yield running
        finally:
            running.kill()


@contextlib.contextmanager
def free_port() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        yield taken.getsockname()[1]


class TestReadiness:
    def test_without_a_catalogue_it_lives_but_is_not_ready(self, api: Api) -> None:
        for path in ("/readyz", "/v2/health/ready"):
            answer = api.http.get(path)
            assert answer.status_code == 503
            assert answer.json()["checks"] == {
                "redis": "ok",
                "catalogue": answer.json()["checks"]["catalogue"],
                "process": "ok",
            }
            assert "gridit worker" in answer.json()["checks"]["catalogue"]
        assert api.http.get("/livez").status_code == api.http.get("/v2/health/live").status_code == 200
        refused = api.http.post("/v1/videos", json={"prompt": "sky"})
        assert (refused.status_code, refused.json()["code"]) == (503, "unavailable")
        assert not api.traces

    def test_with_a_catalogue_it_is_ready_even_while_no_worker_lives(self, api: Api) -> None:
        api.reset()
        ready = api.get("/readyz")
        assert (ready["status"], ready["models"], ready["workers"]) == ("ready", ["demo"], [])
        assert api.get("/v2/health/ready")["status"] == "ready"
        assert api.create()["status"] == "queued"

    def test_redis_out_is_503_with_a_remedy_and_over_when_it_is_back(self, api: Api, own_server: Server) -> None:
        api.reset()
        kept = api.create()
        own_server.kill()
        assert api.http.get("/livez").status_code == 200
        assert api.http.get("/readyz").json()["checks"]["redis"] != "ok"
        for refused in (api.http.post("/v1/videos", json={"prompt": "sky"}), api.http.get(f"/v1/videos/{kept['id']}")):
            assert (refused.status_code, refused.json()["code"]) == (503, "unavailable")
            assert refused.json()["retryable"]
            assert 1 <= int(refused.headers["retry-after"]) <= 120
        own_server.start()
        wait_for(lambda: api.http.get("/readyz").status_code == 200)
        assert api.get(f"/v1/videos/{kept['id']}")["status"] == "queued"
        assert len(api.get("/v1/videos")["data"]) == 1

    def test_a_stream_breaks_with_a_word_and_resumes_when_redis_is_back(self, api: Api, own_server: Server) -> None:
        api.reset()
        job_id = api.create()["id"]
        with api.http.stream("GET", f"/v1/videos/{job_id}/events") as response:
            events = told(response.iter_lines())
            assert next(events).type == "video.queued"
            own_server.kill()
            own_server.start()
            api.hand().make()
            rest = list(events)
        assert [event.id for event in rest if event.id] == list(range(2, 13)) or rest[-1].data["code"] == "unavailable"


class TestProcess:
    def test_a_port_in_use_is_named_with_a_remedy(self, shared_server: Server, tmp_path: Path) -> None:
        environment = {"GRIDIT_REDIS_URL": shared_server.url, "GRIDIT_DATA_DIR": str(tmp_path / "data")}
        log = tmp_path / "log"
        with free_port() as taken:
            command = ("service.cli", "serve", "--port", str(taken))
            with process(*command, said=log, environment=environment) as serve:
                assert serve.wait(timeout=PATIENCE) == 1
        said = log.read_text()
        assert f"port {taken} on 127.0.0.1 is in use" in said
        assert "--port" in said
        assert "Traceback" not in said

    def test_a_data_directory_that_cannot_be_written_is_named(self, shared_server: Server, tmp_path: Path) -> None:
        blocked = tmp_path / "file"
        blocked.touch()
        environment = {"GRIDIT_REDIS_URL": shared_server.url, "GRIDIT_DATA_DIR": str(blocked)}
        log = tmp_path / "log"
        with process("service.cli", "serve", "--port", "0", said=log, environment=environment) as serve:
            assert serve.wait(timeout=PATIENCE) == 1
        said = log.read_text()
        assert str(blocked) in said
        assert "Traceback" not in said

    def test_a_job_goes_all_the_way_and_sigterm_ends_open_streams(self, own_server: Server, tmp_path: Path) -> None:
        with free_port() as port:
            pass
        shared = tmp_path / "metrics"
        shared.mkdir()
        environment = {
            "GRIDIT_REDIS_URL": own_server.url,
            "GRIDIT_DATA_DIR": str(tmp_path),
            "GRIDIT_PORT": str(port),
            "PROMETHEUS_MULTIPROC_DIR": str(shared),
        }
        with (
            process("service.cli", "serve", said=tmp_path / "api.log", environment=environment) as serve,
            process("tests.twins", "--name", "twin-1", said=tmp_path / "worker.log", environment=environment),
            httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=PATIENCE) as http,
        ):
            wait_for(lambda: is_ready(http))
            created = http.post("/v1/videos", json={"model": twins.MODEL, "num_frames": 6})
            job_id = created.json()["id"]
            with http.stream("GET", f"/v1/videos/{job_id}/events") as response:
                events = [event for event in told(response.iter_lines()) if event.id]
            assert [event.id for event in events] == list(range(1, len(events) + 1))
            assert events[-1].data["video"]["status"] == "completed"
            frames = [(event.data["stage"], event.data["index"]) for event in events if event.type == "video.frame"]
            for stage in ("coarse", "refined"):
                assert [index for kind, index in frames if kind == stage] == list(range(6))
            assert http.get(f"/v1/videos/{job_id}/content").headers["content-type"] == "video/mp4"
            assert http.get("/readyz").json()["workers"][0]["name"] == "twin-1"
            metrics = samples(http)
            assert metrics['gridit_frames_total{stage="refined"}'] == 6
            assert metrics['gridit_queue_depth{queue="normal"}'] == 0

            slow = http.post("/v1/videos", json={"model": twins.MODEL, "num_frames": 400}).json()["id"]
            with http.stream("GET", f"/v1/videos/{slow}/events") as response:
                lines = response.iter_lines()
                next(lines)
                began = time.monotonic()
                serve.send_signal(signal.SIGTERM)
                list(lines)
                assert serve.wait(timeout=PATIENCE) == 0
                assert time.monotonic() - began < 15


def samples(http: httpx.Client) -> dict[str, float]:
    """Of the API's and the worker's process, each name once."""
    lines = [line for line in http.get("/metrics").text.splitlines() if not line.startswith("#")]
    pairs = [line.rsplit(" ", 1) for line in lines]
    assert len({name for name, _ in pairs}) == len(pairs)
    return {name: float(value) for name, value in pairs}


def is_ready(http: httpx.Client) -> bool:
    try:
        answer = http.get("/readyz")
    except httpx.TransportError:
        return False
    return answer.status_code == 200 and bool(answer.json()["workers"])
