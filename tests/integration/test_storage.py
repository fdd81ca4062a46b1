"""The object store's laws: whole or absent, written once, never outside the root."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from workers.contracts.errors import StoreError
from workers.contracts.job import StoredObject
from workers.storage import DirectoryStore
from workers.storage.store import ASIDE

PNG = "image/png"


def test_what_is_put_is_read(tmp_path: Path) -> None:
    store = DirectoryStore(tmp_path / "new" / "root")
    stored = store.put("jobs/a/coarse/0000-ab.png", b"pixels", media_type=PNG, width=3, height=2)
    assert store.read(stored) == b"pixels"
    assert (stored.bytes, stored.media_type, stored.width, stored.height) == (6, PNG, 3, 2)
    assert store.path(stored) == store.root / "jobs/a/coarse/0000-ab.png"


def test_a_path_is_written_once(tmp_path: Path) -> None:
    store = DirectoryStore(tmp_path)
    first = store.put("a/b", b"one", media_type=PNG)
    assert store.put("a/b", b"one", media_type=PNG) == first
    with pytest.raises(StoreError, match="written once"):
        store.put("a/b", b"two", media_type=PNG)
    assert store.read(first) == b"one"


@pytest.mark.parametrize("path", ["", "/etc/passwd", "../x", "a/../../x", "a/./b", "a\0b", "a\\b", "."])
def test_no_path_leads_out(tmp_path: Path, path: str) -> None:
    store = DirectoryStore(tmp_path / "root")
    with pytest.raises(StoreError):
        store.put(path, b"x", media_type=PNG)
    with pytest.raises(StoreError):
        store.path(StoredObject(path=path, sha256="", bytes=0, media_type=PNG))
    with pytest.raises(StoreError):
        store.delete_tree(path)


def test_a_link_does_not_lead_out(tmp_path: Path) -> None:
    store = DirectoryStore(tmp_path / "root")
    (tmp_path / "secret").mkdir()
    (tmp_path / "secret" / "key").write_bytes(b"secret")
    (store.root / "link").symlink_to(tmp_path / "secret")
    with pytest.raises(StoreError, match="out of the store"):
        store.read(StoredObject(path="link/key", sha256="", bytes=0, media_type=PNG))


def test_damage_and_loss_are_noticed(tmp_path: Path) -> None:
    store = DirectoryStore(tmp_path)
    stored = store.put("x", b"one", media_type=PNG)
    store.path(stored).write_bytes(b"two")
    with pytest.raises(StoreError, match="damaged"):
        store.read(stored)
    store.path(stored).unlink()
    with pytest.raises(StoreError, match="cannot be read"):
        store.read(stored)


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
    with pytest.raises(StoreError, match=str(tmp_path / "file")):
        DirectoryStore(tmp_path / "file" / "root")


def test_delete_tree(tmp_path: Path) -> None:
    store = DirectoryStore(tmp_path)
    store.put("jobs/a/x", b"1", media_type=PNG)
    kept = store.put("jobs/b/x", b"2", media_type=PNG)
    store.delete_tree("jobs/a")
    store.delete_tree("jobs/a")
    assert not (tmp_path / "jobs/a").exists()
    assert store.read(kept) == b"2"
