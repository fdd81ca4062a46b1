"""What moves a plan's key, and that no changed plan is ever handed out."""

from __future__ import annotations

import hashlib
import json
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from models.compiling.engine_cache import (
    FORMAT,
    VARIABLE,
    CacheUnsafe,
    EngineCache,
    Fault,
    Measured,
    PlanDamaged,
    Profile,
    Quality,
    Recipe,
    Record,
    plan_name,
)
from models.engine import Precision

PLAN = b"a plan" * 100


def recipe(**changes: object) -> Recipe:
    fields: dict[str, object] = {
        "onnx_sha256": "a" * 64,
        "flavour": "tensorrt-rtx",
        "version": "1.7",
        "targets": ("sm89",),
        "profiles": (Profile(least=1, best=1, most=1), Profile(least=8, best=8, most=8)),
        "precision": Precision.FP16,
        "flags": ("strongly_typed",),
    }
    return Recipe.model_validate(fields | changes)


def record(made: Recipe | None = None, *, plan: bytes = PLAN) -> Record:
    made, digest = made or recipe(), hashlib.sha256(plan).hexdigest()
    return Record(
        recipe=made,
        source="b" * 64,
        bundle="tiny",
        net="coarse",
        graph="coarse-whole",
        plan=plan_name(made, digest),
        plan_sha256=digest,
        plan_bytes=len(plan),
        onnx_bytes=10,
        export_seconds=1.0,
        build_seconds=2.0,
        kernels=59,
        fused_attentions=6,
        depth=6,
    )


@pytest.fixture
def cache(tmp_path: Path) -> EngineCache:
    return EngineCache(tmp_path / "engines")


CHANGES: dict[str, object] = {
    "format": 99,
    "onnx_sha256": "c" * 64,
    "flavour": "tensorrt",
    "version": "1.8",
    "targets": ("sm89", "sm120"),
    "profiles": (Profile(least=1, best=4, most=8),),
    "precision": Precision.BF16,
    "quantisation": "d" * 64,
    "flags": (),
}


def test_every_part_of_a_recipe_is_tried() -> None:
    assert set(CHANGES) == set(Recipe.model_fields)


@pytest.mark.parametrize("part", CHANGES)
def test_every_part_of_a_recipe_moves_its_key(part: str) -> None:
    assert recipe(**{part: CHANGES[part]}).key != recipe().key
    assert recipe().key == recipe().key


def test_what_is_stored_comes_back(cache: EngineCache) -> None:
    cache.store(record(), PLAN)
    (found,) = cache.records()
    assert found == record()
    assert cache.plan(found) == PLAN
    assert not [path for path in cache.root.iterdir() if path.name.startswith(".")]


def test_the_directory_is_its_owners_alone(cache: EngineCache) -> None:
    cache.store(record(), PLAN)
    assert stat.S_IMODE(cache.root.stat().st_mode) & 0o077 == 0


@pytest.mark.parametrize("at", [0, len(PLAN) // 2, len(PLAN) - 1])
def test_a_flipped_bit_is_refused_and_nothing_deleted(cache: EngineCache, at: int) -> None:
    cache.store(record(), PLAN)
    path = cache.path(record())
    path.write_bytes(PLAN[:at] + bytes([PLAN[at] ^ 1]) + PLAN[at + 1 :])
    before = sorted(cache.root.iterdir())
    with pytest.raises(PlanDamaged, match="changed after it was built"):
        cache.plan(record())
    assert sorted(cache.root.iterdir()) == before


def test_a_plan_cut_short_or_gone_is_refused(cache: EngineCache) -> None:
    cache.store(record(), PLAN)
    cache.path(record()).write_bytes(PLAN[:-1])
    with pytest.raises(PlanDamaged):
        cache.plan(record())
    cache.path(record()).unlink()
    with pytest.raises(PlanDamaged, match="gone"):
        cache.plan(record())


def test_a_later_build_of_the_same_recipe_takes_its_place(cache: EngineCache) -> None:
    cache.store(record(), PLAN)
    cache.store(record(plan=b"other"), b"other")
    (found,) = cache.records()
    assert cache.plan(found) == b"other"


@pytest.mark.parametrize(
    "content", ["", "{}", "[1]", "7", json.dumps({"recipe": {}}), json.dumps({"record": {}, "seal": ""})]
)
def test_an_unreadable_record_is_passed_over(cache: EngineCache, content: str) -> None:
    cache.store(record(), PLAN)
    (cache.root / "broken.json").write_text(content)
    assert [found.net for found in cache.records()] == ["coarse"]
    with pytest.raises(PlanDamaged, match=r"broken\.json"):
        cache.read(cache.root / "broken.json")


def edit(cache: EngineCache, change: Callable[[dict[str, Any]], None], *, reseal: bool = False) -> PlanDamaged:
    """Change a stored record by hand, perhaps with its seal made anew; what reading it says."""
    cache.store(record(), PLAN)
    path = cache.record_path(record())
    parts = json.loads(path.read_bytes())
    change(parts["record"])
    if reseal:
        parts["seal"] = hashlib.sha256(json.dumps(parts["record"], sort_keys=True).encode()).hexdigest()
    path.write_text(json.dumps(parts))
    with pytest.raises(PlanDamaged) as told:
        cache.read(path)
    assert not list(cache.records())
    return told.value


def leaves(content: Any, *, at: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    """The way to every value in a JSON document."""
    if not isinstance(content, dict | list) or not content:
        yield at
        return
    for key, value in content.items() if isinstance(content, dict) else enumerate(content):
        yield from leaves(value, at=(*at, key))


@pytest.mark.parametrize("way", list(leaves(record().model_dump(mode="json"))), ids=str)
def test_an_edit_of_any_field_shows(cache: EngineCache, way: tuple[str | int, ...]) -> None:
    def change(content: Any) -> None:
        for key in way[:-1]:
            content = content[key]
        content[way[-1]] = "other"

    assert edit(cache, change).fault is Fault.TAMPERED


def test_an_edited_recipe_does_not_fit_its_key_though_it_is_sealed(cache: EngineCache) -> None:
    def change(content: dict[str, Any]) -> None:
        content["recipe"]["targets"] = ["sm90"]

    error = edit(cache, change, reseal=True)
    assert error.fault is Fault.TAMPERED


def test_a_record_cannot_vouch_for_another_entrys_plan(cache: EngineCache) -> None:
    other = record(recipe(version="1.8"), plan=b"other")

    def change(content: dict[str, Any]) -> None:
        content.update(plan=other.plan, plan_sha256=other.plan_sha256, plan_bytes=other.plan_bytes)

    assert "another entry's" in str(edit(cache, change, reseal=True))


def test_a_plan_in_the_place_of_another_is_refused(cache: EngineCache) -> None:
    cache.store(record(), PLAN)
    cache.path(record()).write_bytes(PLAN[::-1])
    cache.glance(record())
    with pytest.raises(PlanDamaged, match="changed after it was built"):
        cache.plan(record())


def test_a_record_of_an_older_format_is_stale(cache: EngineCache) -> None:
    def change(content: dict[str, Any]) -> None:
        content["recipe"]["format"] = FORMAT - 1

    assert edit(cache, change, reseal=True).fault is Fault.STALE


def test_a_link_in_the_place_of_a_plan_or_record_is_refused(cache: EngineCache, tmp_path: Path) -> None:
    cache.store(record(), PLAN)
    for path in (cache.path(record()), cache.record_path(record())):
        elsewhere = tmp_path / path.name
        path.rename(elsewhere)
        path.symlink_to(elsewhere)
    with pytest.raises(PlanDamaged, match="symbolic link") as told:
        cache.plan(record())
    assert told.value.fault is Fault.TAMPERED
    assert not list(cache.records())


def test_what_others_may_write_is_refused(cache: EngineCache) -> None:
    cache.store(record(), PLAN)
    cache.path(record()).chmod(0o660)
    for look in (cache.plan, cache.glance):
        with pytest.raises(PlanDamaged, match="by others") as told:
            look(record())
        assert told.value.fault is Fault.TAMPERED


def test_from_a_directory_that_others_may_write_nothing_is_taken(cache: EngineCache) -> None:
    cache.store(record(), PLAN)
    cache.root.chmod(0o777)
    assert not list(cache.records())
    with pytest.raises(PlanDamaged, match="by others"):
        cache.plan(record())
    with pytest.raises(CacheUnsafe, match=f"{VARIABLE}.*chmod go-w"):
        cache.store(record(), PLAN)
    with pytest.raises(CacheUnsafe):
        cache.building("a" * 64)


def test_a_directory_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(CacheUnsafe, match=VARIABLE):
        EngineCache(tmp_path / "file" / "engines").building("a" * 64)


def test_records_are_found_by_what_they_were_made_of(cache: EngineCache) -> None:
    cache.store(record(), PLAN)
    assert list(cache.find("b" * 64, flavour="tensorrt-rtx", version="1.7")) == [record()]
    assert not list(cache.find("c" * 64, flavour="tensorrt-rtx", version="1.7"))
    assert not list(cache.find("b" * 64, flavour="tensorrt", version="1.7"))
    assert not list(cache.find("b" * 64, flavour="tensorrt-rtx", version="1.8"))


class TestAmending:
    """What becomes known later."""

    measured = Measured(
        device="cpu", parity=1e-6, seconds={1: 0.5, 4: 1}, torch_precision=Precision.FP32, torch_seconds={1: 1, 4: 4}
    )
    quality = Quality(accepted=True, unquantised={"drift": 0.1}, quantised={"drift": 0.2})

    def test_it_is_added_to_what_is_known_already(self, cache: EngineCache) -> None:
        cache.store(record(), PLAN)
        cache.amend(record().model_copy(update={"measured": self.measured}))
        amended = cache.amend(record().model_copy(update={"quality": self.quality}))
        assert (amended.measured, amended.quality) == (self.measured, self.quality)
        (found,) = cache.records()
        assert found == amended
        assert cache.plan(found) == PLAN
        assert found.measured is not None
        assert found.measured.speedup == pytest.approx(8**0.5)

    def test_nothing_else_is_changed(self, cache: EngineCache) -> None:
        cache.store(record(), PLAN)
        cache.amend(record().model_copy(update={"bundle": "other", "build_seconds": 99.0}))
        assert list(cache.records()) == [record()]

    def test_an_entry_that_is_gone_stays_gone(self, cache: EngineCache) -> None:
        with pytest.raises(PlanDamaged, match="gone"):
            cache.amend(record())
        assert not list(cache.records())

    def test_another_build_is_not_told_what_this_one_did(self, cache: EngineCache) -> None:
        cache.store(record(plan=b"newer"), b"newer")
        with pytest.raises(PlanDamaged, match="another build"):
            cache.amend(record().model_copy(update={"measured": self.measured}))
        (found,) = cache.records()
        assert found.measured is None


def test_a_record_under_another_name_is_passed_over(cache: EngineCache) -> None:
    cache.store(record(), PLAN)
    (path,) = cache.root.glob("*.json")
    path.rename(path.with_name("0" * 64 + ".json"))
    assert not list(cache.records())


def test_a_record_cannot_name_a_plan_elsewhere() -> None:
    with pytest.raises(ValueError, match="plan"):
        Record.model_validate(record().model_dump() | {"plan": "../x.plan"})


def test_the_directory_can_be_chosen(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv(VARIABLE, str(tmp_path / "here"))
    assert EngineCache.default().root == tmp_path / "here"
    monkeypatch.delenv(VARIABLE)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert EngineCache.default().root == tmp_path / "gridit" / "engines"


def test_an_empty_cache_has_no_records(cache: EngineCache) -> None:
    assert not list(cache.records())


def test_profiles_say_which_batches_they_serve() -> None:
    assert recipe().serves(1)
    assert recipe().serves(8)
    assert not recipe().serves(4)
    assert recipe(profiles=(Profile(least=1, best=4, most=8),)).serves(4)
