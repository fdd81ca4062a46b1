"""What every test may ask for. Nothing here replaces a part of ours: servers are real, clocks are arguments."""

import os

# Tests run beside one another and beside servers of ours: a pool of waiting threads would only take turns.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# Bytes are compared with what torch draws; engines that are compiled beside the work have tests of their own.
os.environ.setdefault("GRIDIT_ENGINE", "torch")

from collections.abc import Iterator

import pytest


@pytest.fixture(scope="session", autouse=True)
def engine_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Engines that the user of this machine has built are not for tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GRIDIT_ENGINE_CACHE", str(tmp_path_factory.mktemp("engines")))
        yield


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    """Tests that are coroutines run on asyncio, as the service does."""
    return "asyncio"
