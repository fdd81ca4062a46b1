"""One worker a device: who gets which GPU, from what a stand-in for nvidia-smi lists. No GPU is touched.

The form of the listing is that of `nvidia-smi -L`; no test here has run beside a real one.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.fake_nvidia_smi import H200, MIG, install, listing, uuid
from workers.supervisor.devices import VISIBLE, DeviceUnavailable, Gpu, Seat, find_gpus, parse_listing, seats


def machine(
    tmp_path: Path, *, gpus: int | None, visible: str | None = None, split: tuple[int, ...] = ()
) -> tuple[Gpu, ...]:
    """What is found where so many GPUs are; None: no driver."""
    environment = {"PATH": str(install(tmp_path))}
    if gpus is not None:
        environment["FAKE_GPUS"] = listing(gpus, split=split)
    return find_gpus(environment if visible is None else environment | {VISIBLE: visible})


def test_each_gpu_gets_a_worker_that_sees_only_its_own(tmp_path: Path) -> None:
    given = seats("auto", gpus=machine(tmp_path, gpus=4), workers=None)
    assert [seat.environment[VISIBLE] for seat in given] == [uuid(number) for number in range(4)]
    assert {seat.environment["GRIDIT_DEVICE"] for seat in given} == {"auto"}
    assert given[3].label == f"{H200} ({uuid(3)})"


def test_fewer_workers_take_the_first_gpus_and_more_are_refused(tmp_path: Path) -> None:
    gpus = machine(tmp_path, gpus=2)
    assert [seat.environment[VISIBLE] for seat in seats("auto", gpus=gpus, workers=1)] == [uuid(0)]
    with pytest.raises(DeviceUnavailable, match=r"--workers 3.*2.*--device cpu"):
        seats("auto", gpus=gpus, workers=3)


def test_a_gpu_by_number_is_that_one_and_one_that_is_not_there_names_those_that_are(tmp_path: Path) -> None:
    gpus = machine(tmp_path, gpus=2)
    (seat,) = seats("cuda:1", gpus=gpus, workers=None)
    assert seat.environment == {"GRIDIT_DEVICE": "cuda", VISIBLE: uuid(1)}
    with pytest.raises(DeviceUnavailable, match=rf"cuda:2 is not there; cuda:0 is .*{uuid(0)}.*cuda:1 is .*{uuid(1)}"):
        seats("cuda:2", gpus=gpus, workers=None)


@pytest.mark.parametrize("wish", ["cuda", "cuda:0"])
@pytest.mark.parametrize(("gpus", "visible"), [(None, None), (0, None), (2, ""), (2, "-1")])
def test_without_gpus_one_that_is_asked_for_is_refused(
    tmp_path: Path, wish: str, gpus: int | None, visible: str | None
) -> None:
    with pytest.raises(DeviceUnavailable, match="no GPU was found"):
        seats(wish, gpus=machine(tmp_path, gpus=gpus, visible=visible), workers=None)


def test_without_gpus_there_is_one_worker_or_as_many_as_asked_for(tmp_path: Path) -> None:
    gpus = machine(tmp_path, gpus=None)
    assert seats("auto", gpus=gpus, workers=None) == (Seat("auto", {"GRIDIT_DEVICE": "auto"}),)
    assert seats("auto", gpus=gpus, workers=3) == (Seat("cpu", {"GRIDIT_DEVICE": "cpu"}),) * 3
    assert seats("cpu", gpus=machine(tmp_path, gpus=2), workers=2) == (Seat("cpu", {"GRIDIT_DEVICE": "cpu"}),) * 2


@pytest.mark.parametrize(
    ("visible", "tokens"),
    [
        ("1", ["1"]),
        ("1,0", ["1", "0"]),
        (" 1 , -1, 0", ["1"]),
        (f"{uuid(1)}", [uuid(1)]),
        ("GPU-00000001", ["GPU-00000001"]),
    ],
)
def test_what_the_user_made_visible_is_all_there_is(tmp_path: Path, visible: str, tokens: list[str]) -> None:
    gpus = machine(tmp_path, gpus=2, visible=visible)
    assert [seat.environment[VISIBLE] for seat in seats("auto", gpus=gpus, workers=None)] == tokens
    assert {gpu.name for gpu in gpus} == {H200}


def test_a_visible_gpu_that_is_not_there_is_named_with_those_that_are(tmp_path: Path) -> None:
    with pytest.raises(DeviceUnavailable, match=rf"names '7'.*0: {H200}.*1: {H200}"):
        machine(tmp_path, gpus=2, visible="0,7")


def test_the_users_word_is_taken_where_nothing_can_be_listed(tmp_path: Path) -> None:
    assert machine(tmp_path, gpus=None, visible="0,1") == (Gpu("0"), Gpu("1"))


def test_a_split_gpu_is_its_parts(tmp_path: Path) -> None:
    gpus = machine(tmp_path, gpus=3, split=(1,))
    parts = [uuid(10, kind="MIG"), uuid(11, kind="MIG")]
    assert [gpu.token for gpu in gpus] == [uuid(0), *parts, uuid(2)]
    assert [gpu.name for gpu in gpus] == [H200, MIG, MIG, H200]


def test_a_listing_that_is_no_listing_is_no_gpu() -> None:
    assert parse_listing("No devices were found\n") == ()
