"""What is held against a build that failed, and for how long."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from models.compiling.engine_failures import DIRECTORY, Attempt, Failures, versions
from models.compiling.owned import NotOwn
from models.engine import Precision


def attempt(**changes: object) -> Attempt:
    fields = {"bundle": "a" * 64, "name": "tiny", "engine": "openvino", "precision": Precision.FP32}
    return Attempt.model_validate(fields | changes)


@pytest.fixture
def failures(tmp_path: Path) -> Failures:
    return Failures(tmp_path / "engines")


def test_it_may_be_tried_as_often_as_is_allowed(failures: Failures) -> None:
    for count in range(3):
        assert failures.may_try(attempt(), tries=count + 1)
        assert not failures.may_try(attempt(), tries=count)
        failures.record(attempt(), reason=f"reason {count}")
    failure = failures.find(attempt())
    assert failure is not None
    assert (failure.count, failure.reason, failure.versions) == (3, "reason 2", versions())
    assert (datetime.now(UTC) - failure.at).total_seconds() < 60


def test_it_is_kept_over_restarts(failures: Failures, tmp_path: Path) -> None:
    failures.record(attempt(), reason="why")
    assert not Failures(tmp_path / "engines").may_try(attempt(), tries=1)


@pytest.mark.parametrize(
    "other",
    [{"bundle": "b" * 64}, {"engine": "tensorrt"}, {"precision": Precision.BF16}],
    ids=lambda other: next(iter(other)),
)
def test_another_attempt_has_nothing_against_it(failures: Failures, other: dict[str, object]) -> None:
    failures.record(attempt(), reason="why")
    assert failures.may_try(attempt(**other), tries=1)
    failures.record(attempt(**other), reason="another why")
    assert {failure.reason for failure in failures.all()} == {"why", "another why"}


def test_a_bundle_may_change_its_name(failures: Failures) -> None:
    failures.record(attempt(), reason="why")
    assert not failures.may_try(attempt(name="renamed"), tries=1)


def test_another_version_of_anything_is_a_new_chance(failures: Failures) -> None:
    failure = failures.record(attempt(), reason="why")
    assert failure.versions
    for name in failure.versions:
        older = failure.model_copy(update={"versions": failure.versions | {name: "0.0"}})
        failures.path(attempt()).write_text(older.model_dump_json())
        assert failures.find(attempt()) is None
        assert failures.may_try(attempt(), tries=1)
    assert failures.record(attempt(), reason="again").count == 1


def test_what_is_forgotten_may_be_tried(failures: Failures) -> None:
    failures.forget(attempt())
    failures.record(attempt(), reason="why")
    failures.forget(attempt())
    assert failures.may_try(attempt(), tries=1)
    assert not list(failures.all())


@pytest.mark.parametrize("content", ["", "{}", "nonsense"])
def test_what_cannot_be_read_is_held_against_nobody(failures: Failures, content: str) -> None:
    failures.record(attempt(), reason="why")
    failures.path(attempt()).write_text(content)
    assert failures.may_try(attempt(), tries=1)


def test_nothing_is_recorded_where_others_may_write(failures: Failures, tmp_path: Path) -> None:
    failures.record(attempt(), reason="why")
    (tmp_path / "engines" / DIRECTORY).chmod(0o777)
    with pytest.raises(NotOwn):
        failures.record(attempt(), reason="why")
