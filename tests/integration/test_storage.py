"""The stores' laws, the same for a directory and for an object store: whole or absent, written once, never outside."""

from __future__ import annotations

import os
import random
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.integration.objects import S3, running_s3
from workers.contracts.errors import StorageFull, StoreError, StoreGone
from workers.contracts.job import StoredObject
from workers.storage import DirectoryStore, Store
from workers.storage.objects import CHUNK, ObjectStore
from workers.storage.store import ASIDE

PNG = "image/png"


@pytest.fixture(scope="module")
def server() -> Iterator[S3]:
    with running_s3() as server:
        yield server


@pytest.fixture(params=["directory", "memory", "s3"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    """An empty store of each kind."""
    if request.param == "directory":
        return DirectoryStore(tmp_path / "new" / "root")
    if request.param == "memory":
        return ObjectStore("memory:///")
    server: S3 = request.getfixturevalue("server")
    server.clear()
    return ObjectStore(server.url)


def test_what_is_put_is_read(store: Store) -> None:
    stored = store.put("jobs/a/coarse/0000-ab.png", b"pixels", media_type=PNG, width=3, height=2)
    assert store.read(stored) == b"pixels"
    assert (stored.bytes, stored.media_type, stored.width, stored.height) == (6, PNG, 3, 2)
    (found,) = store.files()
    assert (found.path, found.bytes) == (stored.path, 6)


def test_a_path_is_written_once(store: Store) -> None:
    first = store.put("a/b", b"one", media_type=PNG)
    assert store.put("a/b", b"one", media_type=PNG) == first
    with pytest.raises(StoreError, match="written once"):
        store.put("a/b", b"two", media_type=PNG)
    assert store.read(first) == b"one"


def test_of_many_writers_of_one_path_one_is_right(store: Store) -> None:
    def write(content: bytes) -> StoredObject | None:
        try:
            return store.put("a/b", content, media_type=PNG)
        except StoreError:
            return None

    contents = [bytes([index]) * 1000 for index in range(8)]
    with ThreadPoolExecutor(8) as pool:
        (winner,) = [stored for stored in pool.map(write, contents) if stored is not None]
    assert store.read(winner) in contents
    assert len(list(store.files())) == 1


@pytest.mark.parametrize("path", ["", "/etc/passwd", "../x", "a/../../x", "a/./b", "a\0b", "a\\b", "."])
def test_no_path_leads_out(store: Store, path: str) -> None:
    stored = StoredObject(path=path, sha256="", bytes=0, media_type=PNG)
    for attempt in (
        lambda: store.put(path, b"x", media_type=PNG),
        lambda: store.read(stored),
        lambda: list(store.chunks(stored, stop=1)),
        lambda: store.delete([path]),
        lambda: store.delete_tree(path),
        lambda: store.folders(path),
    ):
        with pytest.raises(StoreError, match="no path inside"):
            attempt()


def test_ranges_are_slices(store: Store) -> None:
    data, dice = os.urandom(2 * CHUNK + 7), random.Random(4)
    stored = store.put("video.mp4", data, media_type="video/mp4")
    assert b"".join(store.chunks(stored)) == data
    for _ in range(10):
        start, stop = sorted(dice.choices(range(len(data) + 1), k=2))
        pieces = list(store.chunks(stored, start=start, stop=stop))
        assert b"".join(pieces) == data[start:stop]
        assert all(len(piece) <= CHUNK for piece in pieces)


def test_loss_is_told(store: Store) -> None:
    stored = store.put("x", b"one", media_type=PNG)
    store.delete(["x", "never/was"])
    with pytest.raises(StoreGone):
        store.read(stored)
    with pytest.raises(StoreGone):
        list(store.chunks(stored))


def test_damage_is_told(tmp_path: Path, server: S3) -> None:
    server.clear()
    here, there = DirectoryStore(tmp_path), ObjectStore(server.url)
    stored = here.put("x", b"one", media_type=PNG)
    there.put("x", b"one", media_type=PNG)
    here.path(stored).write_bytes(b"two")
    server.client.put_object(Bucket="bucket", Key="some/prefix/x", Body=b"two")
    for store in (here, there):
        with pytest.raises(StoreError, match="damaged"):
            store.read(stored)


def test_a_tree_goes_whole_and_alone(store: Store) -> None:
    for path in ("jobs/a/x", "jobs/a/deep/er/y", "jobs/ab/x", "jobs/b/x"):
        store.put(path, path.encode(), media_type=PNG)
    assert store.folders("jobs") == ["a", "ab", "b"]
    assert store.folders("nothing") == []
    store.delete_tree("jobs/a")
    store.delete_tree("jobs/a")
    assert sorted(found.path for found in store.files()) == ["jobs/ab/x", "jobs/b/x"]
    assert [found.path for found in store.files("jobs/b")] == ["jobs/b/x"]


def test_two_who_delete_one_tree_leave_nothing(tmp_path: Path) -> None:
    store = DirectoryStore(tmp_path)
    for turn in range(20):
        for index in range(30):
            (tmp_path / f"jobs/{turn}/{index % 3}").mkdir(parents=True, exist_ok=True)
            (tmp_path / f"jobs/{turn}/{index % 3}/{index}").touch()
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(store.delete_tree, [f"jobs/{turn}"] * 4))
        assert not list(store.files())


def test_a_link_does_not_lead_out(tmp_path: Path) -> None:
    store = DirectoryStore(tmp_path / "root")
    (tmp_path / "secret").mkdir()
    (tmp_path / "secret" / "key").write_bytes(b"secret")
    (store.root / "link").symlink_to(tmp_path / "secret")
    with pytest.raises(StoreError, match="out of the store"):
        store.read(StoredObject(path="link/key", sha256="", bytes=0, media_type=PNG))


def test_a_reader_sees_all_or_nothing(tmp_path: Path) -> None:
    store = DirectoryStore(tmp_path)
    data = os.urandom(1 << 20)
    sizes: set[int] = set()
    done = threading.Event()

    def watch() -> None:
        while not done.is_set():
            sizes.update(p.stat().st_size for p in tmp_path.glob("[!.]*"))

    watcher = threading.Thread(target=watch)
    watcher.start()
    for index in range(20):
        store.put(f"file-{index}", data, media_type=PNG)
    done.set()
    watcher.join()
    assert sizes <= {len(data)}
    assert not list(tmp_path.glob(f"{ASIDE}*"))


def test_a_root_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(StoreError, match=str(tmp_path / "file")) as refused:
        DirectoryStore(tmp_path / "file" / "root")
    assert not isinstance(refused.value, StorageFull)


def test_room_is_known_where_there_is_a_disk(tmp_path: Path) -> None:
    stat = os.statvfs(tmp_path)
    room = DirectoryStore(tmp_path).free_bytes()
    assert room is not None
    assert abs(room - stat.f_bavail * stat.f_frsize) < 1 << 30
    assert ObjectStore("memory:///").free_bytes() is None
