"""What every test may ask for. Nothing here replaces a part of ours: servers are real, clocks are arguments."""

import pytest


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    """Tests that are coroutines run on asyncio, as the service does."""
    return "asyncio"
