"""What moves a plan's key, and that no changed plan is ever handed out."""

from __future__ import annotations

import hashlib
import json
import stat
from pathlib import Path

import pytest

from models.engine import Precision
from models.engine_cache import VARIABLE, EngineCache, PlanDamaged, Profile, Recipe, Record, plan_name

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


@pytest.mark.parametrize("content", ["", "{}", "[1]", json.dumps({"recipe": {}})])
def test_an_unreadable_record_is_passed_over(cache: EngineCache, content: str) -> None:
    cache.store(record(), PLAN)
    (cache.root / "broken.json").write_text(content)
    assert [found.net for found in cache.records()] == ["coarse"]


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
