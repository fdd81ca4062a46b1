"""Only what nobody else can have written is read."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from models.compiling import owned
from models.compiling.owned import NotOwn

SOMEBODY = 12345
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "own" / "file"
    owned.make_directory(path.parent)
    owned.write(path, b"content")
    return path


def test_what_is_written_is_read(file: Path) -> None:
    assert owned.read(file) == b"content"
    owned.write(file, b"other")
    assert owned.read(file) == b"other"
    assert list(file.parent.iterdir()) == [file]
    owned.check_directory(file.parent)


@pytest.mark.parametrize("mode", [0o620, 0o602, 0o666])
def test_a_file_that_others_may_write_is_not_read(file: Path, mode: int) -> None:
    file.chmod(mode)
    with pytest.raises(NotOwn, match=f"may be written by others .mode {mode:o}.; remove it"):
        owned.read(file)


def test_others_may_read_a_file(file: Path) -> None:
    file.chmod(0o644)
    assert owned.read(file) == b"content"


@pytest.mark.parametrize("mode", [0o770, 0o707, 0o1777])
def test_a_directory_that_others_may_write_is_refused_with_a_remedy(file: Path, mode: int) -> None:
    file.parent.chmod(mode)
    with pytest.raises(NotOwn, match="chmod go-w"):
        owned.check_directory(file.parent)
    with pytest.raises(NotOwn, match="directory inside it"):
        owned.make_directory(file.parent)
    owned.make_directory(file.parent / "inside")


@needs_root
def test_what_belongs_to_somebody_else_is_refused(file: Path) -> None:
    os.chown(file, SOMEBODY, -1)
    with pytest.raises(NotOwn, match=f"belongs to user {SOMEBODY}"):
        owned.read(file)
    os.chown(file.parent, SOMEBODY, -1)
    with pytest.raises(NotOwn, match=f"belongs to user {SOMEBODY}"):
        owned.check_directory(file.parent)


def test_a_symbolic_link_is_not_followed(file: Path) -> None:
    link = file.with_name("link")
    link.symlink_to(file)
    with pytest.raises(NotOwn, match="symbolic link"):
        owned.read(link)
    broken = file.with_name("broken")
    broken.symlink_to(file.with_name("nowhere"))
    with pytest.raises(NotOwn, match="symbolic link"):
        owned.read(broken)


def test_a_pipe_is_no_file_and_nobody_waits_for_it(file: Path) -> None:
    os.mkfifo(file.with_name("pipe"), 0o600)
    with pytest.raises(NotOwn, match="no regular file"):
        owned.read(file.with_name("pipe"))


def test_the_directory_itself_may_be_reached_by_a_link(file: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(file.parent)
    owned.check_directory(tmp_path / "link")


def test_a_writing_that_fails_leaves_the_old_content(file: Path) -> None:
    with pytest.raises(TypeError):
        owned.write(file, "no bytes")  # type: ignore[arg-type]
    assert owned.read(file) == b"content"
    assert list(file.parent.iterdir()) == [file]
