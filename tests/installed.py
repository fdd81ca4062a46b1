"""What only an extra installs, looked for without importing it: OpenVINO's import must be `models.engines`' own."""

from __future__ import annotations

from importlib.util import find_spec

import pytest


def need_openvino() -> None:
    """Skip the test, or the module that says so, where it is not installed."""
    if find_spec("openvino") is None:
        pytest.skip("openvino comes with the extra openvino, which is not installed", allow_module_level=True)
