"""Every kind of damage by hand: what the stock calls it, that it is never loaded, and what removing takes away."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from models.builds import stock
from models.builds.stock import Depth, Entry, Installed, State
from models.compiling.engine_cache import VARIABLE, CacheUnsafe, EngineCache, PlanDamaged
from models.compiling.engine_failures import Attempt, Failures
from models.compiling.engine_record import Measured, Quality
from models.engine import Precision
from service import cli
from tests.unit.test_engine_cache import PLAN, recipe, record

HERE = {"tensorrt-rtx": Installed("1.7", "sm89"), "openvino": Installed("2026.1", "this CPU")}
ATTEMPT = Attempt(bundle="a" * 64, name="tiny", engine="openvino", precision=Precision.BF16)


@pytest.fixture
def cache(tmp_path: Path) -> EngineCache:
    made = EngineCache(tmp_path / "engines")
    made.store(record(), PLAN)
    return made


def only(cache: EngineCache, *, depth: Depth = Depth.BYTES) -> Entry:
    (entry,) = stock.take(cache, HERE, depth=depth)
    return entry


def flip(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[:9] + bytes([content[9] ^ 1]) + content[10:])


def link(path: Path) -> None:
    elsewhere = path.with_name("elsewhere")
    path.rename(elsewhere)
    path.symlink_to(elsewhere)
    elsewhere.rename(path.parents[1] / "elsewhere")


def edit(path: Path) -> None:
    path.write_text(path.read_text().replace('"tiny"', '"huge"'))


def rename(path: Path) -> None:
    path.rename(path.with_name("0" * 64 + ".json"))


PLANS: dict[str, tuple[Callable[[Path], object], State, str]] = {
    "flipped": (flip, State.DAMAGED, "changed after it was built"),
    "cut short": (lambda path: path.write_bytes(PLAN[:-1]), State.DAMAGED, "599 bytes, not 600"),
    "gone": (Path.unlink, State.DAMAGED, "is gone"),
    "a link": (link, State.TAMPERED, "symbolic link"),
    "open to others": (lambda path: path.chmod(0o646), State.TAMPERED, "written by others"),
}
RECORDS: dict[str, tuple[Callable[[Path], object], State, str]] = {
    "cut short": (lambda path: path.write_bytes(path.read_bytes()[:-20]), State.DAMAGED, "no record"),
    "edited": (edit, State.TAMPERED, "edited"),
    "renamed": (rename, State.TAMPERED, "under its own key"),
    "a link": (link, State.TAMPERED, "symbolic link"),
    "open to others": (lambda path: path.chmod(0o660), State.TAMPERED, "written by others"),
    "older": (lambda path: path.write_text(json.dumps({"recipe": {"format": 2}})), State.STALE, "no record"),
}


def test_a_sound_entry_is_ok(cache: EngineCache) -> None:
    for depth in Depth:
        entry = only(cache, depth=depth)
        assert (entry.state, entry.reason, entry.record, entry.bundle) == (State.OK, "", record(), "tiny")
        assert entry.bytes > len(PLAN)
        assert entry.written is not None


@pytest.mark.parametrize("damage", PLANS)
def test_damage_to_a_plan_is_named(cache: EngineCache, damage: str) -> None:
    do, state, words = PLANS[damage]
    do(cache.path(record()))
    entry = only(cache)
    assert (entry.state, words in entry.reason) == (state, True), entry.reason
    with pytest.raises(PlanDamaged, match=words):
        cache.plan(record())
    cache.store(record(), PLAN)
    assert cache.plan(record()) == PLAN


@pytest.mark.parametrize("damage", RECORDS)
def test_damage_to_a_record_is_named(cache: EngineCache, damage: str) -> None:
    do, state, words = RECORDS[damage]
    do(cache.record_path(record()))
    entry = next(stock.take(cache, HERE))
    assert (entry.state, words in entry.reason) == (state, True), entry.reason
    assert not list(cache.records())
    cache.store(record(), PLAN)
    assert list(cache.records()) == [record()]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
@pytest.mark.parametrize("suffix", [".plan", ".json"])
def test_what_somebody_else_wrote_is_told(cache: EngineCache, suffix: str) -> None:
    (path,) = cache.root.glob(f"*{suffix}")
    os.chown(path, 12345, -1)
    entry = next(stock.take(cache, HERE))
    assert entry.state is State.TAMPERED
    assert "belongs to user 12345" in entry.reason


def test_at_a_glance_no_plan_is_read(cache: EngineCache) -> None:
    flip(cache.path(record()))
    assert only(cache, depth=Depth.GLANCE).state is State.OK
    assert only(cache, depth=Depth.BYTES).state is State.DAMAGED


@pytest.mark.parametrize(
    ("installed", "state", "words"),
    [
        ({}, State.FOREIGN, "tensorrt-rtx is not installed here"),
        ({"tensorrt-rtx": Installed("1.8", "sm89")}, State.STALE, "built by tensorrt-rtx 1.7; 1.8 is installed"),
        ({"tensorrt-rtx": Installed("1.7", "sm120")}, State.FOREIGN, "for sm89; here is sm120"),
        ({"tensorrt-rtx": Installed("1.7", None)}, State.FOREIGN, "for sm89; here is no such device"),
    ],
)
def test_another_version_is_stale_and_another_device_foreign(
    cache: EngineCache, installed: dict[str, Installed], state: State, words: str
) -> None:
    (entry,) = stock.take(cache, installed, depth=Depth.BYTES)
    assert (entry.state, entry.reason) == (state, words)


def test_what_a_crash_leaves_is_stale_and_goes(cache: EngineCache) -> None:
    """A plan is written before its record, and both aside first."""
    other = record(recipe(version="1.8"), plan=b"other")
    for name in (other.plan, ".aside-x"):
        (cache.root / name).write_bytes(b"other")
    entries = list(stock.take(cache, HERE))
    assert [entry.state for entry in entries] == [State.OK, State.STALE, State.STALE]
    removed = stock.remove(cache, entries[1:], HERE)
    assert removed == entries[1:]
    assert only(cache).state is State.OK


def test_a_failed_build_is_listed_until_versions_change(cache: EngineCache) -> None:
    failures = Failures(cache.root)
    failure = failures.record(ATTEMPT, reason="memory ran out")
    (_, entry) = stock.take(cache, HERE)
    assert (entry.state, entry.bundle, entry.failure) == (State.FAILED, "tiny", failure)
    assert entry.reason == "tried once; memory ran out"
    older = failure.model_copy(update={"versions": {"torch": "1.0"}})
    failures.path(ATTEMPT).write_text(older.model_dump_json())
    (_, entry) = stock.take(cache, HERE)
    assert entry.state is State.STALE
    stock.remove(cache, [entry], HERE)
    assert failures.may_try(ATTEMPT, tries=1)


def test_what_was_built_anew_meanwhile_is_not_removed(cache: EngineCache) -> None:
    flip(cache.path(record()))
    entry = only(cache)
    cache.store(record(plan=b"newer"), b"newer")
    assert stock.remove(cache, [entry], HERE) == []
    assert [cache.plan(found) for found in cache.records()] == [b"newer"]


def test_in_a_directory_open_to_others_nothing_is_looked_at(cache: EngineCache) -> None:
    cache.root.chmod(0o777)
    with pytest.raises(CacheUnsafe, match="chmod go-w"):
        list(stock.take(cache, HERE))


class TestTheCommand:
    """`gridit engines`, over a directory with one of each kind."""

    @pytest.fixture(autouse=True)
    def shelf(self, cache: EngineCache, monkeypatch: pytest.MonkeyPatch) -> EngineCache:
        monkeypatch.setenv(VARIABLE, str(cache.root))
        monkeypatch.setenv("COLUMNS", "100")
        made = record(recipe(flavour="another"), plan=b"good").model_copy(update=KNOWN)
        cache.store(made, b"good")
        flip(cache.path(record()))
        (cache.root / f"{'9' * 64}-{'9' * 16}.plan").write_bytes(b"left over")
        Failures(cache.root).record(ATTEMPT, reason="memory ran out")
        return cache

    def states(self, capsys: pytest.CaptureFixture[str], command: str = "ls") -> list[str]:
        cli.run(["engines", command, "--json"])
        return sorted(entry["state"] for entry in json.loads(capsys.readouterr().out))

    def test_ls_shows_what_there_is(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert cli.run(["engines", "ls"]) == 0
        shown = capsys.readouterr().out
        assert max(map(len, shown.splitlines()[:12])) <= 100
        for part in ("coarse-whole", "tensorrt-rtx fp16", "2.00 x as fast", "differs 0.004", "quality accepted"):
            assert part in shown
        assert "failed: tried once; memory ran out" in shown
        assert "4 entries" in shown

    def test_verify_fails_as_long_as_something_is_wrong(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert cli.run(["engines", "verify"]) == 1
        told = capsys.readouterr()
        assert "changed after it was built" in told.out
        assert "rm --damaged" in told.err
        assert cli.run(["engines", "rm", "--damaged", "--yes"]) == 0
        assert cli.run(["engines", "verify"]) == 0

    @pytest.mark.parametrize(
        ("options", "left"),
        [
            (["--damaged"], ["failed", "foreign", "stale"]),
            (["--failed"], ["damaged", "foreign", "stale"]),
            ([f"{'9' * 12}"], ["damaged", "failed", "foreign"]),
            (["--bundle", "tiny"], ["stale"]),
            (["--all"], []),
        ],
    )
    def test_rm_takes_what_is_named(
        self, shelf: EngineCache, capsys: pytest.CaptureFixture[str], options: list[str], left: list[str]
    ) -> None:
        assert cli.run(["engines", "rm", *options, "--yes"]) == 0
        capsys.readouterr()
        assert self.states(capsys, "verify") == left

    def test_rm_asks(self, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
        import io

        monkeypatch.setattr("sys.stdin", io.StringIO("n\n"))
        assert cli.run(["engines", "rm", "--all"]) == 1
        capsys.readouterr()
        assert len(self.states(capsys)) == 4

    def test_rm_of_nothing_in_particular_is_a_mistake(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert cli.run(["engines", "rm"]) == 2
        assert cli.run(["engines", "rm", "zzz"]) == 1
        assert "nothing of that kind" in capsys.readouterr().err

    def test_an_unsafe_directory_is_one_line(self, shelf: EngineCache, capsys: pytest.CaptureFixture[str]) -> None:
        shelf.root.chmod(0o777)
        assert cli.run(["engines", "ls"]) == 1
        assert "chmod go-w" in capsys.readouterr().err


KNOWN: dict[str, object] = {
    "measured": Measured(
        device="a GPU",
        parity=0.004,
        seconds={1: 1.0},
        torch_precision=Precision.FP16,
        torch_seconds={1: 2.0},
    ),
    "quality": Quality(accepted=True, unquantised={}, quantised={}),
}
