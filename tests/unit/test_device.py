"""The device thread changes engines between two claims: a job is served by the engines it was claimed for."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from queue import Queue

import pytest

from tests.twins import MODEL, TwinRunner, spec
from workers.contracts.catalogue import CatalogueEntry, EngineInfo
from workers.device import Device, Out, Phase
from workers.heartbeat import engines
from workers.tasks import Opening, Task


class Improving(TwinRunner):
    """A twin that once has something to open; it notes what it was asked, in order."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[str] = []
        self.serves = "torch"
        self.built = threading.Event()
        self.may_open = threading.Event()

    def catalogue(self) -> tuple[CatalogueEntry, ...]:
        (entry,) = super().catalogue()
        return (entry.evolve(engines={"coarse": EngineInfo(engine=self.serves, precision="fp32")}),)

    def admit(self, task: Task) -> None:
        self.asked.append(f"admit {task.job_id} for {self.serves}")
        super().admit(task)

    def improved(self) -> Opening | None:
        if not self.built.is_set():
            return None
        self.built.clear()
        return self

    def open(self) -> None:
        self.asked.append("open")
        assert self.may_open.wait(20)

    def swap(self) -> None:
        self.asked.append("swap")
        self.serves = "openvino"

    def settle(self) -> None:
        self.asked.append("settle")


def until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline, "it did not come true in time"
        time.sleep(0.01)


@pytest.fixture
def engine() -> Improving:
    return Improving()


@pytest.fixture
def device(engine: Improving) -> Device:
    device = Device(lambda: engine, Queue[Out | None](), lease_seconds=4.0)
    device.start()
    until(lambda: device.phase is Phase.READY)
    return device


def serving(device: Device) -> str:
    return engines(device.catalogue)[f"{MODEL}/coarse"].engine


def test_engines_change_between_claims(device: Device, engine: Improving) -> None:
    engine.may_open.set()
    with device.claiming:
        assert serving(device) == "torch"
        engine.built.set()
        until(lambda: "open" in engine.asked)
        time.sleep(0.1)
        assert "swap" not in engine.asked
        device.admit(Task("first", 1, spec(), submitted_at=0.0))
    until(lambda: serving(device) == "openvino")
    device.admit(Task("second", 1, spec(), submitted_at=0.0))
    until(lambda: len(engine.asked) == 4)
    assert engine.asked == ["open", "admit first for torch", "swap", "admit second for openvino"]
    device.close()
    device.join(20)


def test_what_was_claimed_while_engines_were_opened_is_for_the_old_ones(device: Device, engine: Improving) -> None:
    with device.claiming:
        engine.built.set()
        until(lambda: "open" in engine.asked)
        device.admit(Task("first", 1, spec(), submitted_at=0.0))
    engine.may_open.set()
    until(lambda: len(engine.asked) == 3)
    assert engine.asked == ["open", "admit first for torch", "swap"]
    device.close()
    device.join(20)


def test_opening_is_a_phase_of_its_own(device: Device, engine: Improving) -> None:
    engine.built.set()
    until(lambda: device.phase is Phase.OPENING)
    assert device.moves()
    engine.may_open.set()
    until(lambda: device.phase is Phase.READY)
    until(lambda: serving(device) == "openvino")
    device.close()
    device.join(20)


def test_a_device_that_settles_changes_nothing_more(device: Device, engine: Improving) -> None:
    engine.may_open.set()
    with device.claiming:
        engine.built.set()
        until(lambda: "open" in engine.asked)
        device.settle()
    device.close()
    device.join(20)
    assert engine.asked == ["open", "settle"]
    assert not device.is_alive()
