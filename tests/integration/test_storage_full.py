"""A store with too little room: new jobs are refused before anything is written, and all else is served."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from service.pump import TURN_SECONDS
from tests.integration.service_fixtures import Api, png, running_service, wait_for
from tests.integration.test_api import assert_problem
from tests.integration.test_references import data_url
from workers.patience import EPISODE_SECONDS, RECENT_SECONDS, Patience
from workers.queue.batches import PUMP

NEVER = 1 << 60
"""No disk has so much room."""


@pytest.fixture
def roomy(redis_url: str, tmp_path: Path) -> Iterator[Api]:
    with running_service(redis_url, tmp_path, store_free_bytes=0) as api:
        api.reset()
        yield api


@pytest.fixture
def full(roomy: Api, redis_url: str, tmp_path: Path) -> Iterator[Api]:
    """A second process on the same queue and store."""
    with running_service(redis_url, tmp_path, store_free_bytes=NEVER) as api:
        yield api


def assert_full(response: httpx.Response) -> None:
    body = assert_problem(response, 503, "storage_full")
    assert "GRIDIT_STORE_FREE_BYTES" in body["detail"]
    assert body["retryable"]
    assert 1 <= int(response.headers["retry-after"]) <= 120


def test_nothing_is_written_for_a_job_that_is_refused(full: Api) -> None:
    reference = data_url(png(16, 3))
    assert_full(full.http.post("/v1/videos", json={"prompt": "sky"}))
    assert_full(full.http.put("/v1/videos/mine", json={"prompt": "sky"}))
    assert_full(full.http.post("/v1/videos", json={"prompt": "sky", "input_reference": reference}))
    assert_full(full.http.post("/v1/files", data={"purpose": "batch"}, files={"file": ("a.jsonl", b"{}\n")}))
    assert not full.traces
    assert not list(full.settings.store_dir.iterdir())


def test_what_was_queued_before_is_found_served_and_deleted(roomy: Api, full: Api) -> None:
    first, again = keyed(roomy), keyed(full)
    assert (again.status_code, again.json()["id"]) == (202, first.json()["id"])
    full.hand().make()
    path = f"/v1/videos/{first.json()['id']}"
    assert full.http.get(f"{path}/frames/0").content == png(32, 0)
    assert full.http.delete(path).status_code == 200
    assert_full(keyed(full))


def keyed(api: Api) -> httpx.Response:
    """One request with its idempotency key."""
    headers = {"idempotency-key": "one"}
    return api.http.post("/v1/videos", json={"prompt": "sky", "num_frames": 4}, headers=headers)


def test_readiness_tells_and_holds(roomy: Api, full: Api) -> None:
    assert roomy.get("/readyz")["storage"] == "ok"
    assert "GRIDIT_STORE_FREE_BYTES" in full.get("/readyz")["storage"]


def test_a_batch_waits_for_room(redis_url: str, tmp_path: Path) -> None:
    with running_service(redis_url, tmp_path, store_free_bytes=0) as api:
        api.reset()
        body = {"prompt": "sky", "num_frames": 1}
        lines = json.dumps({"custom_id": "a", "method": "POST", "url": "/v1/videos", "body": body})
        file = api.http.post("/v1/files", data={"purpose": "batch"}, files={"file": ("a.jsonl", lines)}).json()
        api.redis.delete(PUMP)
    with running_service(redis_url, tmp_path, store_free_bytes=NEVER) as api:
        asked = {"input_file_id": file["id"], "endpoint": "/v1/videos", "completion_window": "24h"}
        batch = api.http.post("/v1/batches", json=asked).json()
        wait_for(lambda: api.get(f"/v1/batches/{batch['id']}")["status"] == "in_progress")
        time.sleep(1.5 * TURN_SECONDS)
        assert api.get("/readyz")["queues"]["low"] == 0
        api.redis.delete(PUMP)  # the lead of a process that ends lasts a few seconds
    with running_service(redis_url, tmp_path, store_free_bytes=0) as api:
        wait_for(lambda: api.get("/readyz")["queues"]["low"] == 1)
        api.hand().make()
        wait_for(lambda: api.get(f"/v1/batches/{batch['id']}")["status"] == "completed")


def test_patience_is_one_clock_for_all_in_hand_and_begins_anew() -> None:
    patience = Patience(seconds=200.0)
    assert not patience.is_tried(0.0)
    for now in range(1000, 1200, 40):  # tries that hang for 40 s each
        patience.failed(now)
        assert patience.is_tried(now)
        assert not patience.is_over(now, held_since=0.0)
    patience.failed(1200.0)
    assert patience.is_over(1200.0, held_since=0.0)
    assert not patience.is_over(1200.0, held_since=1001.0), "claimed since the first failure"
    assert patience.is_over(1200.0, held_since=1000.0)
    assert not patience.is_tried(1200.0 + RECENT_SECONDS)
    patience.relieved()
    assert not patience.is_tried(1200.0)
    patience.failed(1201.0)
    assert not patience.is_over(1201.0, held_since=0.0)
    patience.failed(1201.0 + EPISODE_SECONDS)
    patience.failed(1500.0)
    assert not patience.is_over(1500.0, held_since=0.0), "nobody had tried for a while"
