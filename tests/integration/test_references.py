"""`input_reference` over HTTP: however frames come, they are kept as small squares, or refused with a reason."""

from __future__ import annotations

import base64
import io
import struct
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from PIL import Image

from tests.integration.service_fixtures import Api, running_service
from tests.integration.test_api import assert_problem
from workers.contracts.job import Job

SIDE = 16


@pytest.fixture(scope="module")
def service(shared_server: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    with running_service(shared_server.url, tmp_path_factory.mktemp("data")) as api:
        yield api


@pytest.fixture
def api(service: Api) -> Api:
    service.reset()
    service.hand().store.delete_tree("jobs")
    return service


def pictures(count: int, *, width: int = 48, height: int = 32) -> list[Image.Image]:
    """Grey pictures, each lighter than the one before, with black sides that a square from the middle has not."""
    made = []
    for index in range(count):
        picture = np.zeros((height, width, 3), np.uint8)
        margin = (width - height) // 2
        picture[:, margin : width - margin] = 40 + 10 * index
        made.append(Image.fromarray(picture))
    return made


def as_file(images: list[Image.Image], kind: str) -> bytes:
    buffer = io.BytesIO()
    if kind in ("GIF", "WEBP"):
        images[0].save(
            buffer, kind, save_all=True, append_images=images[1:], **({"lossless": True} if kind == "WEBP" else {})
        )
    elif kind in ("mp4", "webm"):
        with av.open(buffer, "w", format=kind) as container:
            stream = container.add_stream("h264" if kind == "mp4" else "libvpx-vp9", rate=8)
            stream.width, stream.height, stream.pix_fmt = images[0].width, images[0].height, "yuv420p"
            for image in images:
                container.mux(stream.encode(av.VideoFrame.from_ndarray(np.asarray(image))))
            container.mux(stream.encode(None))
    else:
        images[0].save(buffer, kind)
    return buffer.getvalue()


def data_url(content: bytes, kind: str = "image/png") -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


def kept(api: Api, job_id: str) -> np.ndarray:
    """The frames that a worker would read."""
    record: Any = api.redis.hgetall(f"gridit:job:{job_id}")
    stored = Job.from_hash(record).spec.input_reference
    assert stored is not None
    frames: np.ndarray = np.load(io.BytesIO(api.hand().store.read(stored)), allow_pickle=False)
    return frames


def files(api: Api) -> list[Path]:
    return [path for path in api.settings.store_dir.rglob("*") if path.is_file()]


@pytest.mark.parametrize(
    ("kind", "count"), [("PNG", 1), ("JPEG", 1), ("WEBP", 3), ("GIF", 5), ("mp4", 16), ("webm", 4)]
)
def test_every_kind_of_file_becomes_squares_of_the_coarse_size(api: Api, kind: str, count: int) -> None:
    content = as_file(pictures(count), kind)
    sent = api.http.post("/v1/videos", data={"prompt": "sky"}, files={"input_reference": ("a", content, "x/y")})
    assert sent.status_code == 202, sent.text
    assert sent.json()["reference_frames"] == count
    frames = kept(api, sent.json()["id"])
    assert frames.shape == (count, SIDE, SIDE, 3)
    middle = frames[:, 4:12, 4:12].mean((1, 2, 3))
    assert middle == pytest.approx([40 + 10 * index for index in range(count)], abs=4)


def test_parts_and_json_ask_the_same(api: Api) -> None:
    contents = [as_file([picture], "PNG") for picture in pictures(3)]
    parts = [("input_reference[]", (f"{i}.png", content, "image/png")) for i, content in enumerate(contents)]
    key = {"idempotency-key": "one"}
    form = api.http.post("/v1/videos", data={"prompt": "sky"}, files=parts, headers=key)
    references: list[Any] = [data_url(contents[0]), {"image_url": data_url(contents[1])}, data_url(contents[2])]
    json = api.http.post("/v1/videos", json={"prompt": "sky", "input_reference": references}, headers=key)
    assert (form.status_code, json.status_code) == (202, 202), json.text
    assert json.json()["id"] == form.json()["id"]
    assert len(files(api)) == 1, "the second answer left nothing of its own"
    assert len(kept(api, form.json()["id"])) == 3
    api.http.delete(f"/v1/videos/{form.json()['id']}")
    assert not files(api)


def bomb() -> bytes:
    """A PNG that says it has a hundred thousand pixels a side."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", 100_000, 100_000, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0")) + chunk(b"IEND", b"")


PLAYLIST = b"#EXTM3U\n#EXTINF:1,\nfile:///etc/passwd\n"
BAD: dict[str, tuple[Callable[[], Any], str]] = {
    "text": (lambda: data_url(b"hello"), "does not decode"),
    "playlist": (lambda: data_url(PLAYLIST, "application/x-mpegurl"), "does not decode"),
    "elsewhere": (lambda: "http://169.254.169.254/latest", "nothing is fetched"),
    "a file": (lambda: {"file_id": "file-1"}, "data URL"),
    "base64": (lambda: "data:image/png;base64,!!", "base64 is broken"),
    "plain": (lambda: "data:image/png,abc", "not a base64 data URL"),
    "cut off": (lambda: data_url(as_file(pictures(1), "PNG")[:60]), "does not decode"),
    "video cut off": (lambda: data_url(as_file(pictures(4), "mp4")[:200]), "does not decode"),
    "bomb": (lambda: data_url(bomb()), "pixels"),
    "too many": (lambda: [data_url(as_file([picture], "PNG")) for picture in pictures(17)], "at most 16 frames"),
    "too long": (lambda: data_url(as_file(pictures(17), "GIF")), "at most 16 frames"),
}


@pytest.mark.parametrize("case", BAD)
def test_what_cannot_be_used_is_refused_and_leaves_nothing(api: Api, case: str) -> None:
    make, reason = BAD[case]
    sent = api.http.post("/v1/videos", json={"prompt": "sky", "input_reference": make()})
    body = assert_problem(sent, 422, "invalid_request")
    assert reason in body["detail"]
    assert body["error"]["param"] == "input_reference"
    assert not api.traces
    assert not files(api)


def test_a_sequence_is_at_least_as_long_as_what_it_begins_with(api: Api) -> None:
    reference = data_url(as_file(pictures(5), "GIF"))
    sent = api.http.post("/v1/videos", json={"prompt": "sky", "num_frames": 4, "input_reference": reference})
    assert "at least 5" in assert_problem(sent, 422, "invalid_request")["detail"]
    assert not files(api)


def test_a_refused_job_leaves_no_frames(shared_server: Any, tmp_path: Path) -> None:
    with running_service(shared_server.url, tmp_path, max_queued=1) as api:
        api.reset()
        api.create()
        reference = data_url(as_file(pictures(1), "PNG"))
        sent = api.http.post("/v1/videos", json={"prompt": "sky", "input_reference": reference})
        assert_problem(sent, 429, "queue_full")
        assert not files(api)
