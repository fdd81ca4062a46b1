"""What benchmarks measure with, say and write: rounds, peaks, reports, options, known figures."""

from __future__ import annotations

import itertools
import json
import re
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from models.bench import known, options, peak, report, rounds
from models.bench.options import BadOption
from models.engine import Precision
from models.spec import Codec, Stage

ROOT = Path(__file__).parents[2]
CPU = torch.device("cpu")


def test_every_round_has_every_run_once_and_begins_with_another() -> None:
    ran: list[str] = []
    runs: dict[str, rounds.Run] = {name: noting(ran, name) for name in "abc"}
    order = list(rounds.interleaved(runs, rounds=4, device=CPU, shortest=0.0))
    by_round = [order[start : start + 3] for start in range(0, 12, 3)]
    assert all(sorted(each) == list("abc") for each in by_round)
    assert [each[0] for each in by_round] == list("abca")


def noting(ran: list[str], name: str) -> Callable[[], None]:
    return lambda: ran.append(name)


def test_medians_are_of_the_rounds_that_were_run() -> None:
    timing = rounds.interleaved({"nap": lambda: time.sleep(0.002)}, rounds=3, device=CPU, shortest=0.0)
    try:
        while True:
            next(timing)
    except StopIteration as end:
        times: rounds.Times = end.value
    assert len(times["nap"]) == 3
    assert min(times["nap"]) >= 0.002
    assert rounds.medians({"x": (3.0, 1.0, 2.0)}) == {"x": 2.0}


def test_what_is_short_is_run_several_times_in_a_row() -> None:
    ran: list[str] = []
    list(rounds.interleaved({"short": noting(ran, "short")}, rounds=2, device=CPU, shortest=0.02))
    assert len(ran) == 1 + 2 * rounds.MOST_IN_A_ROW


def test_a_peak_is_measured_in_each_precision_that_the_cpu_multiplies_in() -> None:
    found = [peak.measure(CPU, precision, side=64, tries=2) for precision in peak.precisions(CPU)]
    assert [one.precision for one in found] == [Precision.FP32, Precision.BF16]
    assert all(one.flops > 1e6 for one in found)


PEAK = report.Peak(precision=Precision.FP32, side=64, tries=2, flops=1e9)
MACHINE = report.Machine(system="Linux", cpu="x", capability="AVX2", cores=2, threads=2, memory_gb=8, device="cpu")
ORIGIN = report.Origin(command="gridit bench", began="2026-01-01", machine=MACHINE, versions={"torch": "2"})

positive = st.floats(1e-9, 1e18)


@given(seconds=positive, share=st.none() | positive, bucket=st.integers(1, 64), precision=st.sampled_from(Precision))
def test_an_engines_report_comes_back_from_json(
    seconds: float, share: float | None, bucket: int, precision: Precision
) -> None:
    figure = report.Figure(
        net="n",
        contender="torch",
        precision=precision,
        bucket=bucket,
        seconds=seconds,
        rounds=(seconds,),
        rows_per_second=seconds,
        of_peak=share,
        error=share,
        over_torch=share,
        over_diffusers=share,
    )
    whole = report.EnginesReport(
        origin=ORIGIN,
        peaks=(PEAK,),
        nets=(report.Net(name="n", weights="random", flops=1.0),),
        figures=(figure,),
        defaults=(report.Default(net="n", contender="torch", precision=precision, reason="why"),),
        not_run=(report.NotRun(what="a", why="b"),),
    )
    assert report.EnginesReport.model_validate_json(whole.model_dump_json()) == whole


def test_another_file_is_no_report(tmp_path: Path) -> None:
    file = tmp_path / "other.json"
    file.write_text(json.dumps({"format": 1, "kind": "else"}), encoding="utf-8")
    with pytest.raises(report.NoReport, match="is no report of a benchmark"):
        report.read(file)


def test_known_errors_are_those_of_the_document() -> None:
    text = (ROOT / "docs" / "sampling.md").read_text(encoding="utf-8")
    row = r"^\| (official|sound[^|]*) \| (\w+) \| (\w+) \| (\d+) \| ([\d.]+) \| [\d.]+ \| ([\d.]+) \|"
    found = re.findall(row, text, re.MULTILINE)
    told = {(mode.strip(), *way, int(calls)): (float(one), float(many)) for mode, *way, calls, one, many in found}
    for each in known.QUALITIES:
        assert told[each.mode, each.sampler, each.spacing, each.steps] == (each.one_grid, each.sequence)


def test_options_are_parsed() -> None:
    assert options.numbers("--buckets", "4, 1,4") == (1, 4)
    assert options.nets_of("decoder,coarse", random=True).names == (Codec.DECODER, Stage.COARSE)
    assert options.nets_of("", random=True).stages == (Stage.COARSE,)
    assert options.nets_of("", random=False).names == tuple(Stage)
    assert options.precisions_of("all") == tuple(Precision)
    assert options.peers_of("none") == ()


@pytest.mark.parametrize(
    ("parse", "text", "said"),
    [
        (lambda text: options.numbers("--buckets", text), "1,x", "--buckets '1,x' is not understood"),
        (lambda text: options.numbers("--buckets", text), "0", "whole numbers of 1 to"),
        (lambda text: options.nets_of(text, random=False), "course", "--nets 'course' .* coarse, refine, encoder"),
        (options.engines_of, "tensorflow", "--engines 'tensorflow' .* torch"),
        (options.precisions_of, "fp4", "--precisions 'fp4' .* fp32"),
        (options.peers_of, "me", "--peers 'me' .* diffusers"),
    ],
)
def test_options_that_mean_nothing_are_refused_with_what_there_is(
    parse: Callable[[str], object], text: str, said: str
) -> None:
    with pytest.raises(BadOption, match=said):
        parse(text)


@given(st.lists(st.integers(), max_size=6, unique=True), st.integers(0, 20))
def test_turning_keeps_the_order_in_a_ring(names: list[int], number: int) -> None:
    words = [str(name) for name in names]
    turned = rounds.turned(words, number)
    ring = itertools.islice(itertools.cycle(words), number % max(1, len(words)), None)
    assert turned == list(itertools.islice(ring, len(words)))
