"""A store at a URL, against a real S3 server: what start-up refuses, and a service whose files are there alone."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
import time
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from tests.integration.following import expected_frames, pixels
from tests.integration.objects import S3, SECRET, running_s3
from tests.integration.service_fixtures import Api, png, running_service, wait_for
from tests.integration.test_api import assert_problem
from workers.contracts import keys
from workers.contracts.errors import StoreError, StoreUnavailable
from workers.contracts.job import Job
from workers.contracts.settings import Settings
from workers.storage import open_store
from workers.storage.objects import CHUNK, RETRY_SECONDS, ObjectStore

PNG = "image/png"
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def server() -> Iterator[S3]:
    with running_s3() as server:
        yield server


@pytest.fixture
def s3(server: S3) -> S3:
    server.clear()
    return server


def test_what_passes_is_tried_again(s3: S3) -> None:
    store = ObjectStore(s3.url)
    s3.gate.failures = 2
    stored = store.put("x", b"one", media_type=PNG)
    s3.gate.failures = 2
    assert store.read(stored) == b"one"


@pytest.mark.faults
def test_what_lasts_is_told_in_bounded_time(s3: S3) -> None:
    store = ObjectStore(s3.url)
    s3.gate.failures = 1000
    began = time.monotonic()
    with pytest.raises(StoreUnavailable, match="does not answer"):
        store.put("x", b"one", media_type=PNG)
    took = time.monotonic() - began
    print(f"\na lasting failure was told after {took:.1f} s, {1000 - s3.gate.failures} tries")
    assert took < 2 * RETRY_SECONDS


@pytest.mark.faults
def test_a_server_that_is_not_there_stops_start_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    with pytest.raises(StoreError, match=r"GRIDIT_STORE=s3://b/p cannot be used.*check"):
        open_store(Settings(store="s3://b/p"))


def test_start_up_leaves_nothing_and_refuses_what_cannot_be_used(s3: S3) -> None:
    open_store(Settings(store=s3.url))
    assert not s3.names()
    with pytest.raises(StoreError, match=r"GRIDIT_STORE=s3://no-such-bucket cannot be used.*check") as refused:
        open_store(Settings(store="s3://no-such-bucket"))
    assert SECRET not in str(refused.value)
    s3.gate.unconditional = True
    with pytest.raises(StoreError, match="conditional"):
        open_store(Settings(store=s3.url))


@pytest.fixture
def api(s3: S3, redis_url: str, tmp_path: Path) -> Iterator[Api]:
    with running_service(redis_url, tmp_path / "data", store=s3.url) as api:
        api.reset()
        yield api
    assert not list((tmp_path / "data").rglob("*")), "nothing was kept on this machine"


def test_ranges_are_read_as_ranges(api: Api, s3: S3) -> None:
    path = f"/v1/videos/{api.create()['id']}/content"
    hand, data = api.hand(), os.urandom(3 * CHUNK)
    hand.complete(hand.claim(), video=data)
    whole = api.http.get(path)
    assert whole.content == data
    assert (whole.headers["content-length"], whole.headers["accept-ranges"]) == (str(len(data)), "bytes")
    s3.gate.seen.clear()
    etag = whole.headers["etag"]
    for asked, part in {
        "bytes=2-4": data[2:5],
        "bytes=-3": data[-3:],
        f"bytes={len(data) - 2}-": data[-2:],
        "bytes=5-999999999": data[5:],
    }.items():
        got = api.http.get(path, headers={"range": asked, "if-range": etag})
        start = len(data) - len(part) if asked != "bytes=2-4" else 2
        assert (got.status_code, got.content) == (206, part)
        assert got.headers["content-range"] == f"bytes {start}-{start + len(part) - 1}/{len(data)}"
    reads = [asked for method, _, asked in s3.gate.seen if method == "GET"]
    assert len(reads) == 6, "three small reads, and three pieces of the long one"
    assert all(reads), "each reads a range"


def test_what_is_no_single_range_is_answered_whole_or_refused(api: Api) -> None:
    path = f"/v1/videos/{api.create()['id']}/content"
    hand = api.hand()
    hand.complete(hand.claim(), video=b"0123456789")
    for asked in ("bytes=0-1,4-5", "lines=1-2", "bytes=-"):
        got = api.http.get(path, headers={"range": asked})
        assert (got.status_code, got.content) == (200, b"0123456789")
    assert api.http.get(path, headers={"range": "bytes=1-2", "if-range": '"another"'}).status_code == 200
    for asked in ("bytes=10-", "bytes=5-4", "bytes=-0"):
        refused = api.http.get(path, headers={"range": asked})
        assert (refused.status_code, refused.headers["content-range"]) == (416, "bytes */10")
    etag = api.http.get(path).headers["etag"]
    assert api.http.get(path, headers={"if-none-match": etag}).status_code == 304


def test_what_is_gone_is_404(api: Api) -> None:
    path = f"/v1/videos/{api.create()['id']}"
    hand = api.hand()
    job = hand.make()
    hand.store.delete_tree(f"jobs/{job.id}")
    for tail in ("/content", "/frames/0", "/content?variant=frames"):
        assert_problem(api.http.get(f"{path}{tail}"), 404, "not_found")


def test_how_the_store_is_reached_is_told_to_nobody(api: Api, s3: S3) -> None:
    path = f"/v1/videos/{api.create()['id']}"
    api.hand().make()
    s3.gate.failures = 1_000_000
    refused = api.http.get(f"{path}/frames/0")
    assert_problem(refused, 503, "store_unavailable")
    assert int(refused.headers["retry-after"]) > 0
    assert not [word for word in ("127.0.0.1", "bucket", "prefix", SECRET) if word in refused.text]
    s3.gate.failures = 0
    assert api.http.get(f"{path}/frames/0").status_code == 200


def test_frames_archives_uploads_and_inline_events_come_from_there(api: Api, s3: S3) -> None:
    path = f"/v1/videos/{api.create()['id']}"
    api.hand().make()
    assert api.http.get(f"{path}/frames/2").content == png(32, 2)
    with zipfile.ZipFile(io.BytesIO(api.http.get(f"{path}/content?variant=frames").content)) as archive:
        assert archive.read("0003.png") == png(32, 3)
    assert '"data": "' in api.http.get(f"{path}/events?inline=1").text
    upload = api.http.post("/v1/files", data={"purpose": "batch"}, files={"file": ("a.jsonl", b"{}\n")}).json()
    assert api.http.get(f"/v1/files/{upload['id']}/content").content == b"{}\n"
    api.http.delete(f"/v1/files/{upload['id']}")
    api.http.delete(path)
    assert not s3.names()


def test_a_job_of_a_real_worker_lives_there_alone(s3: S3, api: Api, tmp_path: Path) -> None:
    with worker(api.settings.redis_url, tmp_path / "worker", s3.url):
        wait_for(lambda: "twin" in api.get("/readyz")["models"])
        created = api.http.post("/v1/videos", json={"model": "twin", "num_frames": 10, "seed": 3})
        assert created.status_code == 202, created.text
        path = f"/v1/videos/{created.json()['id']}"
        wait_for(lambda: api.get(path)["status"] == "completed")
        check_pictures(api, Job.from_hash(api.redis.hgetall(keys.job(created.json()["id"]))))  # type: ignore[arg-type]
        assert api.http.get(f"{path}/content", headers={"range": "bytes=4-7"}).content == b"ftyp"
        wait_for(lambda: not any("/results/" in name for name in s3.names()))
        assert api.http.delete(path).status_code == 200
        wait_for(lambda: not any("/jobs/" in name for name in s3.names()))
    assert not list((tmp_path / "worker").rglob("*"))


@pytest.mark.faults
def test_an_outage_of_the_store_is_waited_for(s3: S3, api: Api, tmp_path: Path) -> None:
    """By the job in hand; and by the one that is claimed meanwhile, whose raw results cannot be read now."""
    redis_url = api.settings.redis_url
    with (
        worker(redis_url, tmp_path / "a", s3.url) as first,
        worker(redis_url, tmp_path / "b", s3.url, name="second") as second,
    ):
        wait_for(lambda: "twin" in api.get("/readyz")["models"])
        path = f"/v1/videos/{api.create(model='twin', prompt=None, num_frames=200, num_inference_steps=10)['id']}"
        wait_for(lambda: api.get(path)["frames"]["refined_done"] >= 8)
        s3.gate.failures = 1_000_000
        time.sleep(12)
        done = api.get(path)["frames"]["refined_done"]
        s3.gate.failures = 0
        began = time.monotonic()
        wait_for(lambda: api.get(path)["frames"]["refined_done"] > done)
        print(f"\nframes again {time.monotonic() - began:.1f} s after an outage of 12 s")
        s3.gate.failures = 1_000_000
        holder(api, {"w": first, "second": second}).kill()
        time.sleep(15)
        s3.gate.failures = 0
        wait_for(lambda: api.get(path)["status"] == "completed")
    job = Job.from_hash(api.redis.hgetall(keys.job(path.rpartition("/")[2])))  # type: ignore[arg-type]
    assert job.stalled_attempts <= 1, "an outage costs no attempt"
    check_pictures(api, job)


def holder(api: Api, processes: Mapping[str, subprocess.Popen[bytes]]) -> subprocess.Popen[bytes]:
    """The worker that has the one job in hand."""
    (name,) = [name for name in processes if api.redis.scard(f"rq:worker:{name}:executions")]
    return processes[name]


def check_pictures(api: Api, job: Job) -> None:
    """Every frame over HTTP is what the twin makes, alone and undisturbed."""
    for (stage, index), expected in expected_frames(job.spec).items():
        frame = api.http.get(f"/v1/videos/{job.id}/frames/{index}?stage={stage.value}").content
        np.testing.assert_array_equal(pixels(frame), expected)


@contextmanager
def worker(redis_url: str, data_dir: Path, store: str, *, name: str = "w") -> Iterator[subprocess.Popen[bytes]]:
    """A worker process around the twin, with this process's environment; stopped in the end, unless it was killed."""
    named = {"REDIS_URL": redis_url, "DATA_DIR": str(data_dir), "STORE": store, "LOG_LEVEL": "error"}
    environment = os.environ | {f"GRIDIT_{setting}": value for setting, value in named.items()}
    process = subprocess.Popen([sys.executable, "-m", "tests.twins", "--name", name], env=environment, cwd=ROOT)
    try:
        yield process
        process.terminate()
        assert process.wait(30) in (0, -signal.SIGKILL)
    finally:
        process.kill()
        process.wait()
