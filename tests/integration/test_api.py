"""The HTTP surface against a real Redis: what goes in, what comes out, and that a refusal leaves nothing behind."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image

from tests.integration.conftest import Server
from tests.integration.service_fixtures import (
    CLASSES,
    MAX_FRAMES,
    SAMPLERS,
    Api,
    png,
    running_service,
)
from workers.contracts.job import MAX_SEED, Stage


@pytest.fixture(scope="module")
def service(shared_server: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    with running_service(shared_server.url, tmp_path_factory.mktemp("data")) as running:
        yield running


@pytest.fixture
def api(service: Api) -> Api:
    service.reset()
    return service


def assert_problem(response: httpx.Response, status: int, code: str) -> dict[str, Any]:
    """Every error has this one shape."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    body: dict[str, Any] = response.json()
    assert body["status"] == status
    assert body["code"] == body["error"]["code"] == code
    assert body["detail"] == body["error"]["message"]
    assert body["instance"] == response.request.url.path
    assert body["request_id"] == response.headers["x-request-id"]
    assert set(body) >= {"type", "title", "retryable"}
    assert ("retry-after" in response.headers) == (status in (429, 503))
    assert (response.headers.get("x-should-retry") == "false") == (status in (409, 422))
    return body


class TestCreate:
    def test_the_job_has_every_default_and_is_found_again(self, api: Api) -> None:
        response = api.http.post("/v1/videos", json={"prompt": "sky"})
        video = response.json()
        assert response.status_code == 202
        assert response.headers["location"] == f"/v1/videos/{video['id']}"
        asked = {"object": "video", "status": "queued", "progress": 0, "model": "demo", "prompt": "sky", "fps": 8}
        derived = {"num_frames": 16, "seconds": "2", "size": "32x32", "sampler": "euler", "queue_position": 1}
        assert asked | derived == {name: video[name] for name in asked | derived}
        assert 0 <= video["seed"] <= MAX_SEED
        assert api.get(f"/v1/videos/{video['id']}") == video

    def test_form_and_json_ask_the_same(self, api: Api) -> None:
        fields = {"prompt": "lava", "seconds": "0.5", "seed": "7", "stages": "coarse", "guidance_scale": "2.5"}
        by_json = api.http.post("/v1/videos", json=fields | {"metadata": {"a": "b"}, "seed": 7, "guidance_scale": 2.5})
        by_form = api.http.post("/v1/videos", files={n: (None, v) for n, v in (fields | {"metadata[a]": "b"}).items()})
        differing = {"id", "created_at", "queue_position", "urls"}
        one, other = by_json.json(), by_form.json()
        assert one["num_frames"] == 4
        assert {n: v for n, v in one.items() if n not in differing} == {
            n: v for n, v in other.items() if n not in differing
        }

    def test_the_same_idempotency_key_and_body_give_the_same_job(self, api: Api) -> None:
        first = api.http.post("/v1/videos", json={"prompt": "sky"}, headers={"idempotency-key": "k"})
        again = api.http.post("/v1/videos", files={"prompt": (None, "sky")}, headers={"idempotency-key": "k"})
        assert again.json()["id"] == first.json()["id"]
        assert again.headers["idempotent-replayed"] == "true"
        other = api.http.post("/v1/videos", json={"prompt": "lava"}, headers={"idempotency-key": "k"})
        assert_problem(other, 422, "idempotency_key_reused")
        assert len(api.get("/v1/videos")["data"]) == 1

    def test_one_key_sent_many_times_at_once_is_one_job(self, api: Api) -> None:
        def create(_: int) -> str:
            response = api.http.post("/v1/videos", json={"prompt": "sky"}, headers={"idempotency-key": "k"})
            return str(response.json()["id"])

        with ThreadPoolExecutor(8) as pool:
            assert len(set(pool.map(create, range(24)))) == 1
        assert len(api.get("/v1/videos")["data"]) == 1

    def test_put_queues_under_the_callers_id(self, api: Api) -> None:
        for _ in range(2):
            response = api.http.put("/v1/videos/mine-1", json={"prompt": "sky"})
            assert response.status_code == 202
            assert response.json()["id"] == "mine-1"
        assert_problem(api.http.put("/v1/videos/mine-1", json={"prompt": "lava"}), 422, "idempotency_key_reused")
        assert_problem(api.http.put("/v1/videos/a%20b", json={"prompt": "sky"}), 422, "invalid_request")

    def test_the_request_id_is_the_callers_where_it_is_plain(self, api: Api) -> None:
        assert api.http.get("/livez", headers={"x-request-id": "abc-1"}).headers["x-request-id"] == "abc-1"
        assert api.http.get("/livez", headers={"x-request-id": "a b"}).headers["x-request-id"] != "a b"


REFUSED = [
    ({"prompt": "sky", "colour": "red"}, "invalid_request", "colour", "num_frames"),
    ({"prompt": "sky", "model": "other"}, "model_not_found", "model", "'demo'"),
    ({"prompt": "sky", "sampler": "magic"}, "invalid_request", "sampler", f"{SAMPLERS[0]!r}, {SAMPLERS[1]!r}"),
    ({"prompt": "sea"}, "invalid_request", "prompt", f"{CLASSES[0]!r}, {CLASSES[1]!r}"),
    ({}, "invalid_request", "prompt", f"{CLASSES[0]!r}, {CLASSES[1]!r}"),
    ({"prompt": "sky", "num_frames": 0}, "invalid_request", "num_frames", "at least 1"),
    ({"prompt": "sky", "num_frames": -3}, "invalid_request", "num_frames", "at least 1"),
    ({"prompt": "sky", "num_frames": MAX_FRAMES + 1}, "invalid_request", "num_frames", f"at most {MAX_FRAMES}"),
    ({"prompt": "sky", "num_frames": True}, "invalid_request", "num_frames", "must be a number"),
    ({"prompt": "sky", "seconds": "1000"}, "invalid_request", "seconds", "at most 8 seconds"),
    ({"prompt": "sky", "seconds": "1", "num_frames": 9}, "invalid_request", "num_frames", "send one of them"),
    ({"prompt": "sky", "size": "720x1280"}, "invalid_request", "size", "32x32"),
    ({"prompt": "sky", "guidance_scale": 9}, "invalid_request", "guidance_scale", "at most 8"),
    ({"prompt": "sky", "num_inference_steps": 101}, "invalid_request", "num_inference_steps", "at most 100"),
    ({"prompt": "sky", "seed": 2**53}, "invalid_request", "seed", f"at most {MAX_SEED}"),
    ({"prompt": "sky", "priority": "urgent"}, "invalid_request", "priority", "'high', 'normal' or 'low'"),
    ({"prompt": "sky", "mode": "official"}, "invalid_request", "mode", "'sound'"),
    ({"prompt": "sky", "mode": "wild"}, "invalid_request", "mode", "'sound' or 'official'"),
    ({"prompt": "sky", "webhook_url": "http://x"}, "unsupported", "webhook_url", "leave it out"),
    ({"prompt": "sky", "input_reference": "x"}, "invalid_request", "input_reference", "data URL"),
    ({"prompt": "sky", "input_reference": []}, "invalid_request", "input_reference", "at least one"),
    ({"prompt": "sky", "spacing": 2}, "invalid_request", "spacing", "'linear', 'trailing' or 'log_snr'"),
    ({"prompt": "sky", "slow_motion": 16}, "invalid_request", "slow_motion", "at most 15"),
    ({"prompt": "sky", "cache": 0}, "invalid_request", "cache", "at least 1"),
    ({"prompt": "sky", "cache": 2}, "unsupported", "cache", "leave it out"),
    ({"prompt": "sky", "output": {"format": "gif"}}, "unsupported", "output.format", "'mp4'"),
]


class TestRefusals:
    @pytest.mark.parametrize(("fields", "code", "param", "remedy"), REFUSED, ids=[str(case[0]) for case in REFUSED])
    def test_a_bad_field_is_named_with_its_limit(
        self, api: Api, fields: dict[str, Any], code: str, param: str, remedy: str
    ) -> None:
        body = assert_problem(api.http.post("/v1/videos", json=fields), 422, code)
        assert body["error"]["param"] == param
        assert param.split(".")[-1] in body["detail"]
        assert remedy in body["detail"]
        assert not body["retryable"]
        assert not api.traces

    @pytest.mark.parametrize("content", [b"", b"{", b"[1]", b'{"seed": NaN}', b"[" * 100_000])
    def test_a_body_that_is_no_json_object(self, api: Api, content: bytes) -> None:
        sent = api.http.post("/v1/videos", content=content, headers={"content-type": "application/json"})
        assert "body" in assert_problem(sent, 422, "invalid_request")["detail"].lower()
        assert not api.traces

    def test_another_content_type_is_told_which_will_do(self, api: Api) -> None:
        sent = api.http.post("/v1/videos", content=b"x", headers={"content-type": "text/plain"})
        assert "application/json" in assert_problem(sent, 422, "invalid_request")["detail"]

    @pytest.mark.parametrize("declares_its_length", [True, False])
    def test_a_body_too_large(self, api: Api, declares_its_length: bool) -> None:
        content = b'{"endpoint": "' + b"x" * 2_000_000 + b'"}'
        chunks = content if declares_its_length else iter([content[:1_500_000], content[1_500_000:]])
        sent = api.http.post("/v1/batches", content=chunks, headers={"content-type": "application/json"})
        assert str(1024 * 1024) in assert_problem(sent, 413, "request_too_large")["detail"]
        assert not api.traces

    def test_a_job_may_bring_frames_but_not_without_limit(self, api: Api) -> None:
        content = b'{"prompt": "' + b"x" * (16 * 1024 * 1024) + b'"}'
        sent = api.http.post("/v1/videos", content=content, headers={"content-type": "application/json"})
        assert str(16 * 1024 * 1024) in assert_problem(sent, 413, "request_too_large")["detail"]
        assert not api.traces

    def test_no_such_thing(self, api: Api) -> None:
        assert_problem(api.http.get("/v1/videos/video_none"), 404, "not_found")
        assert_problem(api.http.get("/v1/videos/video_none/frames"), 404, "not_found")
        assert_problem(api.http.get("/v1/videos/video_none/content"), 404, "not_found")
        assert_problem(api.http.get("/v1/videos/video_none/events"), 404, "not_found")
        assert_problem(api.http.post("/v1/videos/video_none/cancel"), 404, "not_found")
        assert_problem(api.http.get("/nowhere"), 404, "not_found")
        assert_problem(api.http.put("/livez"), 405, "method_not_allowed")

    def test_a_bad_query_is_named(self, api: Api) -> None:
        body = assert_problem(api.http.get("/v1/videos", params={"limit": 101}), 422, "invalid_request")
        assert body["error"]["param"] == "limit"
        assert "at most 100" in body["detail"]
        assert_problem(api.http.get("/v1/videos", params={"after": "nobody"}), 422, "invalid_request")

    def test_a_full_queue_refuses_before_anything_is_queued(self, shared_server: Server, tmp_path: Path) -> None:
        with running_service(shared_server.url, tmp_path, max_queued=2) as api:
            api.reset()
            api.create()
            api.create()
            before = api.traces
            refused = api.http.post("/v1/videos", json={"prompt": "sky"})
            body = assert_problem(refused, 429, "queue_full")
            assert body["retryable"]
            assert 1 <= int(refused.headers["retry-after"]) <= 120
            assert api.traces == before


class TestJobs:
    def test_lists_are_paged_in_either_order(self, api: Api) -> None:
        ids = [api.create()["id"] for _ in range(5)]
        page = api.get("/v1/videos?limit=2&order=asc")
        assert [video["id"] for video in page["data"]] == ids[:2]
        assert page["has_more"]
        assert (page["first_id"], page["last_id"]) == (ids[0], ids[1])
        rest = api.get(f"/v1/videos?order=asc&after={ids[1]}")
        assert [video["id"] for video in rest["data"]] == ids[2:]
        assert not rest["has_more"]
        assert [video["id"] for video in api.get("/v1/videos")["data"]] == ids[::-1]
        assert api.get("/v1/videos?status=failed")["data"] == []

    def test_a_poller_is_told_when_to_come_back_and_what_it_knows(self, api: Api) -> None:
        path = f"/v1/videos/{api.create()['id']}"
        first = api.http.get(path)
        assert int(first.headers["openai-poll-after-ms"]) > 0
        assert api.http.get(path, headers={"if-none-match": first.headers["etag"]}).status_code == 304
        api.hand().make()
        later = api.http.get(path, headers={"if-none-match": first.headers["etag"]})
        assert later.status_code == 200
        assert later.json()["progress"] == 100
        assert "openai-poll-after-ms" not in later.headers

    def test_a_waiting_job_is_cancelled_at_once_and_again(self, api: Api) -> None:
        video = api.create()
        for _ in range(2):
            response = api.http.post(f"/v1/videos/{video['id']}/cancel")
            assert response.status_code == 200
            assert response.json()["status"] == "cancelled"
        assert api.get("/readyz")["queues"] == {"high": 0, "normal": 0, "low": 0}

    def test_a_running_job_is_asked_to_stop_and_keeps_its_frames(self, api: Api) -> None:
        path = f"/v1/videos/{api.create()['id']}"
        hand = api.hand()
        job = hand.claim()
        hand.publish(job, Stage.COARSE, 0)
        asked = api.http.post(f"{path}/cancel").json()
        assert asked["status"] == "in_progress"
        assert asked["cancel_requested_at"] is not None
        assert api.http.get(f"{path}/frames/0?stage=coarse").status_code == 200

    def test_progress_and_error_are_told(self, api: Api) -> None:
        path = f"/v1/videos/{api.create()['id']}"
        hand = api.hand()
        job = hand.claim()
        hand.publish(job, Stage.COARSE, 0, 1, 2, 3)
        running = api.get(path)
        assert running["status"] == "in_progress"
        assert running["progress"] == 50
        assert running["frames"] == {"total": 4, "coarse_done": 4, "refined_done": 0}
        assert running["attempt"] == 1
        hand.fail(job, code="numerical_error", message="not finite")
        failed = api.get(path)
        assert failed["status"] == "failed"
        assert failed["error"] == {"code": "numerical_error", "message": "not finite"}
        assert failed["progress"] == 50

    def test_delete_removes_everything_and_may_be_repeated(self, api: Api) -> None:
        video = api.create()
        api.hand().make()
        folder = api.settings.store_dir / "jobs" / video["id"]
        assert folder.is_dir()
        for _ in range(2):
            deleted = api.http.delete(f"/v1/videos/{video['id']}")
            assert deleted.json() == {"id": video["id"], "object": "video.deleted", "deleted": True}
        assert not folder.exists()
        assert not [key for key in api.traces if video["id"] in key and api.redis.ttl(key) < 0]
        assert_problem(api.http.get(f"/v1/videos/{video['id']}"), 404, "not_found")


class TestPictures:
    def test_frames_are_served_while_the_job_runs(self, api: Api) -> None:
        path = f"/v1/videos/{api.create()['id']}"
        hand = api.hand()
        job = hand.claim()
        hand.publish(job, Stage.COARSE, 0, 1)
        frame = api.http.get(f"{path}/frames/1?stage=coarse")
        assert frame.headers["content-type"] == "image/png"
        assert frame.content == png(16, 1)
        kept = {"if-none-match": frame.headers["etag"]}
        assert api.http.get(f"{path}/frames/1?stage=coarse", headers=kept).status_code == 304
        assert_problem(api.http.get(f"{path}/frames/2?stage=coarse"), 409, "not_ready")
        assert_problem(api.http.get(f"{path}/frames/0"), 409, "not_ready")
        assert_problem(api.http.get(f"{path}/frames/4"), 404, "not_found")
        listed = api.get(f"{path}/frames")["data"]
        assert [(entry["stage"], entry["index"]) for entry in listed] == [("coarse", 0), ("coarse", 1)]
        assert api.http.get(listed[1]["url"]).content == frame.content

    def test_a_frame_that_will_never_be_is_not_found(self, api: Api) -> None:
        path = f"/v1/videos/{api.create()['id']}"
        hand = api.hand()
        job = hand.claim()
        hand.publish(job, Stage.COARSE, 0)
        hand.fail(job, code="internal_error", message="x")
        assert api.http.get(f"{path}/frames/0?stage=coarse").status_code == 200
        assert_problem(api.http.get(f"{path}/frames/1?stage=coarse"), 404, "not_found")

    def test_content_is_there_once_the_job_is_completed(self, api: Api) -> None:
        path = f"/v1/videos/{api.create()['id']}/content"
        assert_problem(api.http.get(path), 409, "not_ready")
        hand = api.hand()
        hand.complete(hand.claim(), video=b"0123456789")
        whole = api.http.get(path)
        assert whole.content == b"0123456789"
        assert whole.headers["content-type"] == "video/mp4"
        part = api.http.get(path, headers={"range": "bytes=2-4", "if-range": whole.headers["etag"]})
        assert (part.status_code, part.content) == (206, b"234")
        assert part.headers["content-range"] == "bytes 2-4/10"
        assert api.http.get(path, headers={"range": "bytes=20-"}).status_code == 416
        assert api.http.get(path, headers={"if-none-match": whole.headers["etag"]}).status_code == 304

    def test_an_unknown_variant_is_told_which_there_are(self, api: Api) -> None:
        path = f"/v1/videos/{api.create()['id']}/content"
        api.hand().make()
        for variant in ("gif", "nonsense"):
            body = assert_problem(api.http.get(path, params={"variant": variant}), 422, "invalid_request")
            assert body["error"]["param"] == "variant"
            assert "frames, npz, video" in body["detail"]

    def test_all_frames_come_as_one_archive(self, api: Api) -> None:
        path = f"/v1/videos/{api.create()['id']}/content?variant=frames"
        assert_problem(api.http.get(path), 409, "not_ready")
        api.hand().make()
        whole = api.http.get(path)
        with zipfile.ZipFile(io.BytesIO(whole.content)) as archive:
            assert archive.namelist() == ["0000.png", "0001.png", "0002.png", "0003.png"]
            assert archive.read("0003.png") == png(32, 3)
        tail = api.http.get(path, headers={"range": "bytes=100-", "if-range": whole.headers["etag"]})
        assert (tail.status_code, tail.content) == (206, whole.content[100:])
        stack = api.http.get(path.replace("frames", "npz"))
        assert stack.headers["etag"] != whole.headers["etag"]
        with np.load(io.BytesIO(stack.content)) as archive:
            assert archive["index"].tolist() == [0, 1, 2, 3]
            with Image.open(io.BytesIO(png(32, 3))) as picture:
                np.testing.assert_array_equal(archive["frames"][3], np.asarray(picture))


class TestOperations:
    def test_models_tell_what_may_be_asked(self, api: Api) -> None:
        (model,) = api.get("/v1/models")["data"]
        assert model == api.get("/v1/models/demo")
        assert model["id"] == "demo"
        assert model["object"] == "model"
        assert model["classes"] == list(CLASSES)
        assert model["limits"]["num_frames"] == MAX_FRAMES
        assert model["sizes"] == {"coarse": "16x16", "refined": "32x32"}
        assert_problem(api.http.get("/v1/models/other"), 404, "not_found")

    def test_metrics_tell_the_depth_of_each_queue_and_refusals(self, api: Api) -> None:
        api.create(priority="low")
        api.http.post("/v1/videos", json={"prompt": "sea"})
        text = api.http.get("/metrics").text
        assert 'gridit_queue_depth{queue="low"} 1.0' in text
        assert 'gridit_queue_depth{queue="high"} 0.0' in text
        assert 'gridit_jobs_rejected_total{reason="invalid_request"}' in text
        assert "gridit_stream_clients 0.0" in text

    def test_the_page_asks_nothing_of_anybody_else(self, api: Api) -> None:
        page = api.http.get("/")
        assert page.headers["content-type"].startswith("text/html")
        assert "GriDiT Serve" in page.text
        assert "http://" not in page.text
        assert "https://" not in page.text

    def test_the_description_covers_every_route(self, api: Api) -> None:
        described = api.get("/openapi.json")
        assert {"/v1/videos", "/v1/videos/{job_id}/events", "/v1/files", "/v1/batches"} <= set(described["paths"])
        assert "num_frames" in described["components"]["schemas"]["VideoRequest"]["properties"]
        for path, methods in described["paths"].items():
            assert all(method["summary"] for method in methods.values()), path
