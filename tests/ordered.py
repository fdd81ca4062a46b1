"""Orders that TensorRT-RTX can carry out where there is no GPU."""

from __future__ import annotations

from typing import Any

import pytest

from models.compiling import flavours
from models.compiling.flavours import TensorRTRTX
from models.compiling.orders import Order, order
from models.engine import EngineUnavailable, Precision


def _rtx() -> bool:
    try:
        return isinstance(flavours.detect(), TensorRTRTX)
    except EngineUnavailable:
        return False


needs_rtx = pytest.mark.skipif(
    not _rtx(), reason="TensorRT-RTX comes with the extra tensorrt-rtx, which is not installed"
)


def small(**options: Any) -> Order:
    """An order that is quick to build."""
    wanted = {"targets": ["sm89"], "precision": Precision.FP16, "buckets": [2]} | options
    return order(flavours.detect(), **wanted)
