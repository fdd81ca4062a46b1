"""Files and batches against a real Redis: every line ends once, in the output or in the errors, whatever dies."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.integration.conftest import Server
from tests.integration.service_fixtures import Api, catalogue_entry, running_service, wait_for
from workers.contracts.job import JobStatus


@pytest.fixture(scope="module")
def service(shared_server: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    with running_service(shared_server.url, tmp_path_factory.mktemp("data")) as running:
        yield running


@pytest.fixture
def api(service: Api) -> Api:
    service.reset()
    return service


def line(custom_id: str, **changes: Any) -> str:
    request = {
        "custom_id": custom_id,
        "method": "POST",
        "url": "/v1/videos",
        "body": {"prompt": "sky", "num_frames": 2},
    }
    return json.dumps(request | changes)


def upload(api: Api, lines: list[str]) -> str:
    files = {"file": ("input.jsonl", "\n".join(lines).encode())}
    response = api.http.post("/v1/files", files=files, data={"purpose": "batch"})
    assert response.status_code == 200, response.text
    return str(response.json()["id"])


def start(api: Api, lines: list[str]) -> str:
    asked = {"input_file_id": upload(api, lines), "endpoint": "/v1/videos", "completion_window": "24h"}
    response = api.http.post("/v1/batches", json=asked)
    assert response.status_code == 200, response.text
    assert response.json()["status"] == "validating"
    return str(response.json()["id"])


def batch(api: Api, batch_id: str) -> dict[str, Any]:
    return api.get(f"/v1/batches/{batch_id}")


def wait_until(api: Api, batch_id: str, status: str) -> dict[str, Any]:
    wait_for(lambda: batch(api, batch_id)["status"] == status)
    return batch(api, batch_id)


def make_all(api: Api, count: int) -> None:
    """Make so many jobs, as they come."""
    for _ in range(count):
        wait_for(lambda: sum(api.get("/readyz")["queues"].values()) > 0)
        api.hand().make()


def result(api: Api, file_id: str | None) -> list[dict[str, Any]]:
    assert file_id is not None
    return [json.loads(entry) for entry in api.http.get(f"/v1/files/{file_id}/content").text.splitlines()]


class TestBatch:
    def test_ten_lines_with_two_bad_ones_give_eight_videos_and_two_errors(self, api: Api) -> None:
        lines = [line(f"line-{number}") for number in range(1, 11)]
        lines[2] = "{not json"
        lines[6] = line("line-7", body={"prompt": "sea"})
        batch_id = start(api, lines)
        make_all(api, 8)
        ended = wait_until(api, batch_id, "completed")
        assert ended["request_counts"] == {"total": 10, "completed": 8, "failed": 2}
        assert [error["line"] for error in ended["errors"]["data"]] == [3, 7]
        good, bad = result(api, ended["output_file_id"]), result(api, ended["error_file_id"])
        assert [entry["custom_id"] for entry in good] == [f"line-{number}" for number in (1, 2, 4, 5, 6, 8, 9, 10)]
        assert [(entry["line"], entry["custom_id"], entry["error"]["param"]) for entry in bad] == [
            (3, None, None),
            (7, "line-7", "prompt"),
        ]
        for entry in good:
            video = entry["response"]["body"]
            assert video["status"] == "completed"
            assert video["priority"] == "low"
            assert api.http.get(video["content"]["video"]).status_code == 200
        assert len(api.get("/v1/videos?limit=100")["data"]) == 8

    @pytest.mark.parametrize(
        ("bad", "param"),
        [
            (line("a"), "custom_id"),
            (line("x" * 300), "custom_id"),
            (line("b", method="GET"), "method"),
            (line("b", url="/v1/chat/completions"), "url"),
            (line("b", body=[]), "body"),
            (line("b", more=1), "more"),
            (line("b", body={"prompt": "sky", "num_frames": 0}), "num_frames"),
        ],
    )
    def test_a_bad_line_is_named(self, api: Api, bad: str, param: str) -> None:
        batch_id = start(api, [line("a"), bad])
        wait_until(api, batch_id, "in_progress")
        (error,) = batch(api, batch_id)["errors"]["data"]
        assert (error["line"], error["param"]) == (2, param)

    def test_a_file_without_a_good_line_fails(self, api: Api) -> None:
        ended = wait_until(api, start(api, ["{", "nonsense"]), "failed")
        assert [error["line"] for error in ended["errors"]["data"]] == [1, 2]
        assert len(result(api, ended["error_file_id"])) == 2
        assert not api.get("/v1/videos")["data"]

    def test_a_failed_job_is_an_error_of_its_line(self, api: Api) -> None:
        batch_id = start(api, [line("a"), line("b")])
        make_all(api, 1)
        wait_for(lambda: api.get("/readyz")["queues"]["low"] == 1)
        hand = api.hand()
        hand.fail(hand.claim(), code="numerical_error", message="not finite")
        ended = wait_until(api, batch_id, "completed")
        assert ended["request_counts"] == {"total": 2, "completed": 1, "failed": 1}
        (error,) = result(api, ended["error_file_id"])
        assert (error["custom_id"], error["error"]["code"]) == ("b", "numerical_error")

    def test_cancelling_keeps_what_is_done(self, api: Api) -> None:
        batch_id = start(api, [line(name) for name in "abc"])
        make_all(api, 1)
        wait_for(lambda: batch(api, batch_id)["request_counts"]["completed"] == 1)
        for _ in range(2):
            assert api.http.post(f"/v1/batches/{batch_id}/cancel").json()["status"] in ("cancelling", "cancelled")
        ended = wait_until(api, batch_id, "cancelled")
        assert ended["request_counts"] == {"total": 3, "completed": 1, "failed": 2}
        assert [entry["custom_id"] for entry in result(api, ended["output_file_id"])] == ["a"]
        assert [entry["error"]["code"] for entry in result(api, ended["error_file_id"])] == ["cancelled"] * 2
        assert {video["status"] for video in api.get("/v1/videos")["data"]} == {"completed", "cancelled"}

    def test_a_batch_waits_for_a_first_model_and_can_be_cancelled_meanwhile(self, api: Api) -> None:
        api.redis.delete("gridit:catalogue")
        one, other = start(api, [line("a")]), start(api, [line("b")])
        api.http.post(f"/v1/batches/{other}/cancel")
        assert wait_until(api, other, "cancelled")["request_counts"] == {"total": 0, "completed": 0, "failed": 0}
        assert batch(api, one)["status"] == "validating"
        api.hand().ledger.announce([catalogue_entry()])
        make_all(api, 1)
        assert wait_until(api, one, "completed")["request_counts"] == {"total": 1, "completed": 1, "failed": 0}

    def test_two_batches_of_one_file_are_two(self, api: Api) -> None:
        file_id = upload(api, [line("a")])
        asked = {"input_file_id": file_id, "endpoint": "/v1/videos", "completion_window": "24h"}
        ids = {api.http.post("/v1/batches", json=asked | {"metadata": {"n": n}}).json()["id"] for n in "12"}
        make_all(api, 2)
        for batch_id in ids:
            wait_until(api, batch_id, "completed")
        assert {entry["id"] for entry in api.get("/v1/batches")["data"]} == ids

    @pytest.mark.parametrize(
        ("change", "param"),
        [
            ({"input_file_id": "file-none"}, "input_file_id"),
            ({"endpoint": "/v1/embeddings"}, "endpoint"),
            ({"completion_window": "7d"}, "completion_window"),
            ({"other": 1}, "other"),
        ],
    )
    def test_a_bad_field_is_named(self, api: Api, change: dict[str, Any], param: str) -> None:
        asked = {"input_file_id": upload(api, [line("a")]), "endpoint": "/v1/videos", "completion_window": "24h"}
        refused = api.http.post("/v1/batches", json=asked | change)
        assert refused.status_code == 422
        assert refused.json()["error"]["param"] == param
        assert not api.get("/v1/batches")["data"]


class TestPump:
    """On a Redis of their own, so that no other pump takes the lead."""

    def test_batches_leave_room_for_single_requests(self, own_server: Server, tmp_path: Path) -> None:
        with running_service(own_server.url, tmp_path / "data", max_queued=4) as api:
            api.reset()
            batch_id = start(api, [line(str(number)) for number in range(6)])
            wait_for(lambda: api.get("/readyz")["queues"]["low"] == 2)
            api.create()
            make_all(api, 7)
            assert wait_until(api, batch_id, "completed")["request_counts"]["completed"] == 6

    def test_a_batch_goes_on_in_another_process_and_doubles_nothing(self, own_server: Server, tmp_path: Path) -> None:
        with running_service(own_server.url, tmp_path / "data", max_queued=4) as api:
            api.reset()
            batch_id = start(api, [line(str(number)) for number in range(5)])
            make_all(api, 2)
        with running_service(own_server.url, tmp_path / "data") as api:
            make_all(api, 3)
            ended = wait_until(api, batch_id, "completed")
            assert ended["request_counts"] == {"total": 5, "completed": 5, "failed": 0}
            assert [entry["custom_id"] for entry in result(api, ended["output_file_id"])] == [str(n) for n in range(5)]
            assert [video["status"] for video in api.get("/v1/videos")["data"]] == [JobStatus.COMPLETED.value] * 5


class TestFiles:
    def test_an_upload_is_kept_and_deleted(self, api: Api) -> None:
        file_id = upload(api, [line("a")])
        file = api.get(f"/v1/files/{file_id}")
        assert (file["object"], file["filename"], file["purpose"]) == ("file", "input.jsonl", "batch")
        assert api.http.get(f"/v1/files/{file_id}/content").text == line("a")
        assert [entry["id"] for entry in api.get("/v1/files")["data"]] == [file_id]
        for _ in range(2):
            assert api.http.delete(f"/v1/files/{file_id}").json()["deleted"]
        assert api.http.get(f"/v1/files/{file_id}").status_code == 404
        assert not api.get("/v1/files")["data"]

    @pytest.mark.parametrize(
        ("files", "param"),
        [
            ({"purpose": (None, "batch")}, "file"),
            ({"file": ("a", b"x")}, "purpose"),
            ({"file": ("a", b"x"), "purpose": (None, "fine-tune")}, "purpose"),
            ({"file": ("a", b" \n"), "purpose": (None, "batch")}, "file"),
        ],
    )
    def test_a_bad_upload_is_refused_by_field(self, api: Api, files: dict[str, Any], param: str) -> None:
        refused = api.http.post("/v1/files", files=files)
        assert refused.status_code == 422
        assert refused.json()["error"]["param"] == param
        assert not api.traces

    def test_an_upload_may_be_larger_than_a_request_but_not_without_bound(
        self, shared_server: Server, tmp_path: Path
    ) -> None:
        with running_service(shared_server.url, tmp_path, max_body_bytes=2_000_000) as api:
            api.reset()
            upload(api, ["x" * 1_500_000])
            files = {"file": ("a", b"x" * 2_500_000)}
            refused = api.http.post("/v1/files", files=files, data={"purpose": "batch"})
            assert refused.status_code == 413
            assert "2000000" in refused.json()["detail"]
            assert len(api.get("/v1/files")["data"]) == 1
