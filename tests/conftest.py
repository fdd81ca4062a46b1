"""What every test may ask for. Nothing here replaces a part of ours: servers are real, clocks are arguments."""

import os

# Tests run beside one another and beside servers of ours: a pool of waiting threads would only take turns.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# Bytes are compared with what torch draws; engines that are compiled beside the work have tests of their own.
os.environ.setdefault("GRIDIT_ENGINE", "torch")

import pytest


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    """Tests that are coroutines run on asyncio, as the service does."""
    return "asyncio"
