"""Which device a worker takes: pure choices among those there are, and what the real engines say on this machine."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from models import devices
from models.engine import EngineUnavailable
from models.engines import select
from models.spec import Stage
from tests.tiny import tiny_bundle
from workers import loading

CPU_ONLY = ("cpu",)
TWO_GPUS = ("cpu", "cuda:0", "cuda:1")


@pytest.mark.parametrize(
    ("wish", "among", "device"),
    [
        ("auto", CPU_ONLY, "cpu"),
        ("cpu", CPU_ONLY, "cpu"),
        ("auto", TWO_GPUS, "cuda:0"),
        ("cpu", TWO_GPUS, "cpu"),
        ("cuda", TWO_GPUS, "cuda:0"),
        ("cuda:1", TWO_GPUS, "cuda:1"),
    ],
)
def test_a_wish_is_one_of_the_devices_there_are(wish: str, among: tuple[str, ...], device: str) -> None:
    assert devices.choose(wish, among=among) == device


@pytest.mark.parametrize(("wish", "among"), [("cuda", CPU_ONLY), ("cuda:0", CPU_ONLY), ("cuda:2", TWO_GPUS)])
def test_a_device_that_is_not_there_names_those_that_are(wish: str, among: tuple[str, ...]) -> None:
    with pytest.raises(EngineUnavailable) as refused:
        devices.choose(wish, among=among)
    said = str(refused.value)
    assert repr(wish) in said
    assert ", ".join(among) in said
    assert "GRIDIT_DEVICE" in said
    assert ("GPU" in said or "CUDA" in said) == (among == CPU_ONLY)


def test_a_worker_serves_on_the_device_asked_for_and_says_so(tmp_path: Path) -> None:
    bundle = tiny_bundle(tmp_path / "tiny")
    served = loading.load([bundle.path], device="cpu", threads=1)
    (entry,) = served.catalogue()
    assert {info.device for info in entry.engines.values()} == {"cpu"}
    choice = select(bundle, Stage.COARSE, engine="torch", device=torch.device("cpu"))
    assert (choice.engine.name, choice.engine.device.type, choice.reason) == ("torch", "cpu", "asked for")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_a_gpu_that_torch_does_not_find_is_refused_before_any_net_is_read(tmp_path: Path) -> None:
    with pytest.raises(EngineUnavailable, match="device 'cuda' is not there"):
        loading.load([tmp_path / "no-such-bundle"], device="cuda")
