"""The tiny bundle, and a server of the test's own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from models.bundle import Bundle
from tests.integration.conftest import Server
from tests.tiny import tiny_bundle


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """Random weights, every part awake."""
    return tiny_bundle(tmp_path_factory.mktemp("bundles") / "tiny")


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    """A running server, which may be killed."""
    server = Server(tmp_path / "redis")
    server.start()
    yield server
    server.kill()
