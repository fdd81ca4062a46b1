"""Integers for CPUs: rows stay independent of one another, little is lost, nothing is said and nobody is called.

The oracle is torch in float32. `gridit compile` to integers is tried from end to end with the engines' suite.
"""

from __future__ import annotations

import sys
from functools import cache
from importlib.util import find_spec
from typing import Any

import pytest
import torch
from torch import Tensor

from models.engine import Precision, Rows
from models.spec import Stage
from tests.exported import graph

pytestmark = pytest.mark.skipif(
    any(find_spec(package) is None for package in ("openvino", "nncf")),
    reason="openvino and nncf come with the extra int8, which is not installed",
)


@cache
def rows(seed: int) -> Rows:
    return Rows(*graph(Stage.COARSE).example(12, seed=seed))


@cache
def quantised() -> Any:
    from models.quantise import int8

    return int8.quantised(graph(Stage.COARSE), rows(1))


@cache
def engine() -> Any:
    from models.engines.openvino import OpenVINOEngine, plan_of

    whole = graph(Stage.COARSE)
    plans = {whole.name: plan_of(quantised(), precision=Precision.INT8)}
    made = OpenVINOEngine([whole], plans, precision=Precision.INT8, buckets=(1, 4))
    made.prepare()
    return made


def answered(x: Tensor, modulation: Tensor) -> Tensor:
    out: Tensor = engine().run(Rows(x, modulation)).clone()
    return out


def test_integers_are_near_float32_but_not_the_same() -> None:
    given = rows(2)
    assert given.modulation is not None
    right = graph(Stage.COARSE).answer((given.x, given.modulation))[0]
    gap = float(torch.dist(answered(given.x[:4], given.modulation[:4]), right[:4]) / right[:4].norm())
    assert 1e-3 < gap < 0.1


def test_a_row_in_integers_does_not_depend_on_the_others() -> None:
    given = rows(2)
    assert given.modulation is not None
    together = answered(given.x[:4], given.modulation[:4])
    alone = [answered(given.x[row : row + 1], given.modulation[row : row + 1]) for row in range(4)]
    assert torch.equal(together, torch.cat(alone))


def test_layers_that_would_lose_most_are_left_alone() -> None:
    names = [op.get_friendly_name() for op in quantised().get_ops() if op.get_type_name() == "FakeQuantize"]
    assert len(names) >= 3 * graph(Stage.COARSE).attentions
    assert not [name for name in names for part in ("x_embedder", "final_layer", "fc2", "gelu") if part in name.lower()]


def test_nothing_is_printed_and_nobody_is_called(capfd: pytest.CaptureFixture[str]) -> None:
    from models.quantise import int8

    int8.quantised(graph(Stage.COARSE), Rows(rows(3).x[:2], rows(3).modulation[:2]))  # type: ignore[index]
    assert capfd.readouterr() == ("", "")
    assert sys.modules["openvino_telemetry"] is None
