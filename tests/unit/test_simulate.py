"""The simulator's parts: tables, lists of arrivals, drawn days, statistics, the command."""

from __future__ import annotations

import json
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from models.bundle import hash_of, read_spec
from models.spec import Stage
from tests.simulated import by_model, costs_of, some_arrivals
from tests.tiny import tiny_bundle
from workers.contracts.errors import SimulationInput
from workers.contracts.job import Priority
from workers.contracts.settings import SHIPPED_BUNDLE
from workers.simulate import arrivals, costs, recording, traffic
from workers.simulate.commands import app
from workers.simulate.costs import Costs
from workers.simulate.fleet import alike
from workers.simulate.policies import Ours
from workers.simulate.report import WINDOW, Report, Windows
from workers.simulate.shapes import Shapes
from workers.simulate.simulation import simulate
from workers.simulate.summary import fairness, jain, summarise

amounts = st.lists(st.floats(0, 100), min_size=1, max_size=6)


def test_the_shipped_table_is_that_of_the_bundled_model() -> None:
    table, spec = costs.read(), read_spec(SHIPPED_BUNDLE)
    assert table.bundle_hash == hash_of(spec)
    assert table.bundle == spec.model_copy(update=recording.OUTSIDE)
    for part in table.parts:
        seconds = [table.bucket(part, rows) for rows in table.buckets(part)]
        assert seconds == sorted(seconds), "a larger bucket takes longer"


def test_a_recorded_table_has_every_net_in_every_bucket_and_can_be_read_again(tmp_path: Path) -> None:
    bundle = tiny_bundle(tmp_path / "tiny")
    *rounds, table = recording.record(bundle.path, rounds=2)
    assert isinstance(table, Costs)
    assert rounds == [1, 2, 3, 4]
    assert {name: set(buckets) for name, buckets in table.seconds.items()} == {
        stage.value: {1, 2, 4, 8, 16, 32} for stage in Stage
    }
    costs.write(table, tmp_path / "table.json")
    assert costs.read(tmp_path / "table.json") == table


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"seconds": {"coarse": {"1": 1.0}}}, r"found nets \['coarse'\], but the bundle has \['coarse', 'refine'\]"),
        ({"seconds": {"coarse": {"1": 0.0}, "refine": {"1": 1.0}}}, r"seconds\.coarse\.1: .* greater than 0"),
        ({"seconds": {"coarse": {}, "refine": {"1": 1.0}}}, r"'coarse' needs buckets"),
        ({"machine": None}, r"machine: .*gridit simulate record"),
    ],
)
def test_a_bad_table_is_told_by_file_and_field(change: dict[str, object], said: str, tmp_path: Path) -> None:
    file = tmp_path / "table.json"
    file.write_text(json.dumps(costs_of().model_dump(mode="json") | change))
    with pytest.raises(SimulationInput, match=r"table\.json: .*" + said):
        costs.read(file)
    with pytest.raises(SimulationInput, match="cannot be read"):
        costs.read(tmp_path / "none.json")


def test_rows_beyond_the_largest_bucket_are_several_runs() -> None:
    table = costs_of(base=1.0, row=0.1)
    assert table.alone(Stage.REFINE, 19) == pytest.approx(2 * 1.8 + 1.4)


def test_a_list_of_arrivals_is_read_as_it_was_written(tmp_path: Path) -> None:
    tables = by_model(costs_of(), costs_of(name="other"))
    drawn = some_arrivals(list(tables.values()), count=30, seconds=10)
    arrivals.write(drawn, tmp_path / "day.jsonl")
    assert arrivals.read(tmp_path / "day.jsonl", tables) == drawn


def test_what_a_line_leaves_out_is_the_bundles_default(tmp_path: Path) -> None:
    file = tmp_path / "day.jsonl"
    file.write_text('{"at": 2.5}\n\n{"at": 1, "tenant": "a", "num_frames": 7, "priority": "high"}\n')
    first, second = arrivals.read(file, by_model(costs_of()))
    assert (first.at, first.tenant, first.job) == (1.0, "a", costs_of().job(num_frames=7, priority=Priority.HIGH))
    assert (second.at, second.tenant, second.job) == (2.5, "default", costs_of().job())


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("{", r"day\.jsonl:1: not JSON"),
        ('{"num_frames": 1}', r"day\.jsonl:1: at: needs the seconds"),
        ('{"at": -1}', r"day\.jsonl:1: at: needs the seconds"),
        ('{"at": 0, "model": "x"}', r"day\.jsonl:1: model: there are no step costs of 'x', only of \['tiny'\]"),
        ('{"at": 0, "frames": 4}', r"day\.jsonl:1: frames: no field of a job"),
        ('{"at": 0, "num_frames": 0}', r"day\.jsonl:1: num_frames: Input should be greater"),
    ],
)
def test_a_bad_line_is_told_by_number_and_field(line: str, said: str, tmp_path: Path) -> None:
    file = tmp_path / "day.jsonl"
    file.write_text(line)
    with pytest.raises(SimulationInput, match=said):
        arrivals.read(file, by_model(costs_of()))


@pytest.mark.parametrize("load_", [0.3, 1.2])
def test_a_drawn_day_has_the_load_asked_for(load_: float) -> None:
    table = costs_of()
    day = traffic.day(table, capacity=0.5, load=load_, hours=3, seed=1)
    shapes = Shapes(by_model(table))
    needed = sum(shapes.of(arrival.job).seconds for arrival in day)
    assert needed == pytest.approx(load_ * 0.5 * 3 * 3600, rel=0.02)
    assert [arrival.at for arrival in day] == sorted(arrival.at for arrival in day)
    assert day == traffic.day(table, capacity=0.5, load=load_, hours=3, seed=1)


def test_a_drawn_day_follows_its_mix() -> None:
    mix = traffic.Mix(tenants=(0.7, 0.3), in_bursts=0.0, priorities=((Priority.HIGH, 0.2), (Priority.LOW, 0.8)))
    day = traffic.day(costs_of(), capacity=0.5, load=0.5, seed=2, mix=mix)
    count, hour = len(day), traffic.HOUR
    assert sum(one.tenant == "tenant-1" for one in day) / count == pytest.approx(0.7, abs=0.05)
    assert sum(one.job.priority is Priority.HIGH for one in day) / count == pytest.approx(0.2, abs=0.05)
    by_day = sum(12 * hour <= one.at < 18 * hour for one in day)
    by_night = sum(0 <= one.at < 6 * hour for one in day)
    assert by_day / by_night == pytest.approx(1.36 / 0.64, rel=0.2)  # means of 1 +- 0.4 cos over six hours


def test_a_burst_is_of_one_tenant_and_comes_at_once() -> None:
    day = traffic.day(costs_of(), capacity=0.5, load=0.2, seed=2, mix=traffic.Mix(in_bursts=1.0, burst=20))
    gaps = [later.at - earlier.at for earlier, later in pairwise(day)]
    assert sum(gap < 0.06 for gap in gaps) > 0.8 * len(gaps)


@given(values=amounts)
def test_jains_index_is_one_for_equals_and_never_below_one_by_n(values: list[float]) -> None:
    assert 1 / len(values) - 1e-9 <= jain(values) <= 1 + 1e-9
    assert jain([3.0] * len(values)) == pytest.approx(1.0)
    assert jain([0.0, 0.0, 5.0]) == pytest.approx(1 / 3)


def dealt(received: dict[str, Sequence[float]], priorities: str = "nn") -> Report:
    """Each of the tenants wants 100 in the first window, and gets so much in the next ones."""
    names = {"n": Priority.NORMAL, "h": Priority.HIGH}
    accounts = [(names[letter], tenant) for letter, tenant in zip(priorities, received, strict=True)]
    demanded = dict.fromkeys(accounts, (100.0, 0.0, 0.0, 0.0))
    got = {account: (0.0, *received[account[1]]) for account in accounts}
    return Report("by hand", (), (), (0.0,) * 4, demanded, got)


def test_fairness_is_judged_among_those_who_went_short() -> None:
    assert fairness(dealt({"a": (50, 25, 25), "b": (50, 25, 25)})) == pytest.approx(1.0)
    assert fairness(dealt({"a": (99, 1, 0), "b": (0, 1, 99)})) == pytest.approx(0.5)
    assert fairness(dealt({"a": (60, 20, 20), "b": (20, 20, 60)})) == pytest.approx(0.8 * 2 / 3 + 1.0 / 3)
    assert fairness(dealt({"a": (100, 0, 0), "b": (0, 100, 0)})) == 1.0, "one at a time is not two that compete"


def test_who_goes_first_by_priority_is_not_unfair() -> None:
    assert fairness(dealt({"a": (99, 1, 0), "b": (0, 1, 99)}, "hn")) == 1.0


@given(start=st.floats(0, 5000), length=st.floats(0, 5000), rate=st.floats(0.1, 10))
def test_what_is_spread_over_windows_is_all_there(start: float, length: float, rate: float) -> None:
    windows = Windows()
    windows.spread(start, start + length, rate=rate)
    assert sum(windows.values) == pytest.approx(length * rate, abs=1e-6)
    assert all(value <= WINDOW * rate + 1e-6 for value in windows.values)
    assert sum(windows.values[: int(start / WINDOW)]) == 0


def test_a_summary_of_one_job_is_that_job() -> None:
    table = costs_of()
    fleet = alike(1, models=("tiny",), speed=0.5)
    one = arrivals.numbered([(10.0, "a", table.job(num_frames=1, num_inference_steps=2, refine_steps=1))])
    found = summarise(simulate(fleet, one, Ours(), by_model(table)))
    coarse, refined = 2 * 2 * (0.02 + 2 * 0.01), 2 * (0.02 + 0.01)  # guided: two rows
    assert found.times["queue_wait"].p99 == 0.0
    assert found.times["first_coarse"].p50 == pytest.approx(coarse)
    assert found.times["first_refined"].p50 == found.times["completion"].mean == pytest.approx(coarse + refined)
    assert found.until == pytest.approx(10 + coarse + refined)
    assert (found.gain, found.fairness, found.worst_slowdown) == pytest.approx((1.0, 1.0, 1.0))


def invoke(*arguments: str) -> str:
    result = CliRunner().invoke(app, ["simulate", *arguments])
    assert result.exit_code == 0, result.output
    return result.output


def test_the_command_writes_reports_and_plots_of_what_was_asked(tmp_path: Path) -> None:
    table, out = costs_of(base=0.5, row=0.2), tmp_path / "out"
    costs.write(table, tmp_path / "table.json")
    invoke(
        "--hours", "1", "--costs", str(tmp_path / "table.json"), "--workers", "2", "--speed", "1,0.5", "--out", str(out)
    )
    assert {file.name for file in out.iterdir()} == {
        "report.json",
        "report.md",
        "times.png",
        "day.png",
        "tenants.png",
    }
    report = json.loads((out / "report.json").read_text())
    drawn = traffic.day(table, capacity=1.5, load=0.7, hours=1, seed=0)
    ours = report["policies"]["ours"]
    assert report["setting"]["jobs"] == ours["jobs"] == len(drawn)
    assert [worker["speed"] for worker in ours["workers"]] == [1.0, 0.5]
    median = ours["times"]["completion"]["p50"]
    assert f"| completion | {median:.0f} / " in (out / "report.md").read_text()


def test_the_command_takes_a_list_of_arrivals(tmp_path: Path) -> None:
    costs.write(costs_of(), tmp_path / "table.json")
    day = some_arrivals([costs_of()], count=5, seconds=60)
    arrivals.write(day, tmp_path / "day.jsonl")
    files = ["--costs", str(tmp_path / "table.json"), "--arrivals", str(tmp_path / "day.jsonl")]
    invoke(*files, "--out", str(tmp_path / "out"))
    assert json.loads((tmp_path / "out" / "report.json").read_text())["setting"]["jobs"] == 5


def test_the_command_records_a_table(tmp_path: Path) -> None:
    bundle = tiny_bundle(tmp_path / "tiny")
    invoke("record", str(bundle.path), "--out", str(tmp_path / "table.json"), "--rounds", "1")
    assert costs.read(tmp_path / "table.json").bundle_hash == bundle.hash


@pytest.mark.parametrize("speed", ["fast", "1,2", "0", "-1"])
def test_a_bad_speed_is_told(speed: str) -> None:
    result = CliRunner().invoke(app, ["simulate", "--speed", speed, "--workers", "3"])
    assert isinstance(result.exception, SimulationInput)
    assert "--speed: found" in result.exception.message
