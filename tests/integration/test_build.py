"""What TensorRT is asked for, and what it makes of a tiny graph: what cannot be asked for is said before any work."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from models.builds.compile import buckets_of, targets_of
from models.compiling.build import FusionLost, build
from models.compiling.compiler import BuildFailed
from models.compiling.orders import Profiles
from models.engine import EngineUnavailable, Precision
from models.spec import Stage
from tests.exported import exported, graph, needs_export
from tests.ordered import needs_rtx, small
from tests.tiny import DEPTH

pytestmark = [needs_export, needs_rtx, pytest.mark.timeout(900)]


def test_fusion_is_counted() -> None:
    onnx, wanted, of = exported(Stage.COARSE, Precision.FP16), small(buckets=[1, 4]), graph(Stage.COARSE)
    assert build(onnx, wanted, graph=of).fused_attentions == DEPTH
    with pytest.raises(FusionLost, match=f"coarse-whole: {DEPTH} of {DEPTH + 1} attentions are fused"):
        build(onnx, wanted, graph=replace(of, attentions=DEPTH + 1))


def test_one_wide_profile_and_many_targets_build_too() -> None:
    every = small(targets=["sm75", "sm80", "sm86", "sm89", "sm120", "sm121"], buckets=[1, 8], profiles=Profiles.ONE)
    assert build(exported(Stage.COARSE, Precision.FP16), every, graph=graph(Stage.COARSE)).fused_attentions == DEPTH


def test_a_graph_that_is_none_is_told_in_the_compilers_words() -> None:
    with pytest.raises(BuildFailed, match="parse"):
        build(b"no graph", small(), graph=graph(Stage.COARSE))


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"targets": ["sm90"]}, "cannot build for sm90, only for sm75, sm80, sm86, sm89, sm120, sm121"),
    ({"precision": Precision.FP32}, "fp32; ask for fp16 or bf16"),
    ({"precision": Precision.INT8}, "int8 is for CPUs"),
    ({"precision": Precision.BF16, "targets": ["sm75", "sm89"]}, "sm75 has no bf16, which sm80 and later have"),
    ({"precision": Precision.FP8, "targets": ["sm86", "sm89"]}, "sm86 has no fp8, which sm89 and later have"),
    ({"buckets": [0, 4]}, "buckets: 0 is no batch size; choose some of 1 to 1024"),
    ({"buckets": [1, 2048]}, "2048 is no batch size"),
    ({"buckets": []}, "buckets: none are named"),
]


@pytest.mark.parametrize(("options", "said"), REFUSED)
def test_what_cannot_be_asked_for(options: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        small(**options)


def test_targets_are_put_in_order() -> None:
    assert small(targets=targets_of("SM120, sm89,sm89")).targets == ("sm89", "sm120")


@pytest.mark.parametrize("text", [" ,", ""])
def test_no_targets(text: str) -> None:
    with pytest.raises(ValueError, match="no target"):
        targets_of(text)


def test_buckets_ascend_and_are_numbers() -> None:
    assert buckets_of("8, 1,2,8") == (1, 2, 8)
    with pytest.raises(ValueError, match="buckets: 'x' is no number"):
        buckets_of("1,x")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_the_current_gpu_cannot_be_a_target_where_there_is_none() -> None:
    with pytest.raises(EngineUnavailable, match=r"no NVIDIA GPU .* such as --target sm89"):
        small(targets=["current"])
