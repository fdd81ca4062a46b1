"""Reading what TensorRT lists, and choosing a flavour among what is installed."""

from __future__ import annotations

import sys
from types import SimpleNamespace

import pytest
import torch

from models.compiling import flavours
from models.compiling.flavours import Kernels, Log, TensorRT, TensorRTRTX, count
from models.engine import EngineUnavailable

LISTING = """Layers:
Name: __mye31783_0_myl0_0, LayerType: shape_call, Inputs: [], Outputs: [], TacticName: , StreamId: 0, Metadata:
Name: __mye6916, LayerType: wait, Inputs: [], Outputs: [], TacticName: , StreamId: 1, Metadata: __mye6916
Name: blocks/mha_value/MatMul_myl0_4, LayerType: gemm, Inputs: [ { Name: x, Dimensions: [1] }], Outputs: []
Name: __myl_FcAdd_myl0_3, LayerType: runtime_fusion, Inputs: [ { Name: _gemm_mha_v2_out }], Outputs: []
Name: _gemm_mha_v2_myl0_5, LayerType: kgen, Inputs: [], Outputs: [], TacticName: _gemm_mha_v2_0x957a, StreamId: 0
Name: _gemm_mha_v2_myl1_5, LayerType: kgen, Inputs: [], Outputs: [], TacticName: _gemm_mha_v2_0x957b, StreamId: 0

I/O Tensors:
 Name: x, IOMode: Input, DataType: Float, Dimensions: [-1,3,64,64], Location: Device
"""


def test_kernels_and_fused_attentions_are_counted() -> None:
    assert count(LISTING) == Kernels(total=4, fused_attentions=2)
    assert count("") == Kernels(total=0, fused_attentions=0)


def test_the_log_keeps_problems_and_the_last_listing() -> None:
    log = Log()
    log.take("Layers:\nName: a", problem=None)
    log.take("chatter", problem=None)
    log.take("bad", problem="error")
    assert (log.layers, log.problems) == ("Layers:\nName: a", ["bad"])
    log.clear()
    assert (log.layers, log.problems) == ("", [])


def module(version: str) -> SimpleNamespace:
    """As much of the bindings as choosing takes."""

    class ILogger:
        Severity = SimpleNamespace(INTERNAL_ERROR=0, ERROR=1)

    return SimpleNamespace(__version__=version, ILogger=ILogger, Builder=object)


def installed(monkeypatch: pytest.MonkeyPatch, **found: object) -> None:
    for name in ("tensorrt", "tensorrt_rtx", "tensorrt_rtx_bindings"):
        monkeypatch.setitem(sys.modules, name, found.get(name))  # None: importing it fails


def test_nothing_installed_names_the_extras(monkeypatch: pytest.MonkeyPatch) -> None:
    installed(monkeypatch)
    with pytest.raises(EngineUnavailable, match=r"gridit-serve\[tensorrt\] or gridit-serve\[tensorrt-rtx\]"):
        flavours.detect.__wrapped__()


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_without_a_gpu_the_flavour_that_builds_without_one_comes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    installed(monkeypatch, tensorrt=module("10.14"), tensorrt_rtx=module("1.7"))
    assert isinstance(flavours.detect.__wrapped__(), TensorRTRTX)
    installed(monkeypatch, tensorrt=module("10.14"))
    found = flavours.detect.__wrapped__()
    assert isinstance(found, TensorRT)
    assert (found.name, found.version) == ("tensorrt", "10.14")


def test_a_package_without_its_libraries_is_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    installed(monkeypatch, tensorrt=SimpleNamespace(__version__="0"), tensorrt_rtx_bindings=module("1.7"))
    assert flavours.detect.__wrapped__().version == "1.7"


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_tensorrt_proper_cannot_aim_without_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    installed(monkeypatch, tensorrt=module("10.14"))
    with pytest.raises(EngineUnavailable, match="no NVIDIA GPU"):
        flavours.detect.__wrapped__().targets(["current"])
