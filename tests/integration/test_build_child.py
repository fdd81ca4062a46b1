"""The building process itself, with a real compiler: killed half-way, raced by another, asked for what cannot be."""

from __future__ import annotations

import subprocess
from collections import Counter
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest

from models.builds import build_child
from models.builds.building import BUILDER, Commission, Line
from models.bundle import load
from models.compiling.engine_cache import EngineCache
from models.engine import Precision
from models.graph import graphs
from models.spec import Stage
from tests.tiny import tiny_bundle

ROOT = Path(build_child.__file__).parents[1]
Child = subprocess.Popen[str]


@pytest.fixture
def commission(tmp_path: Path) -> Commission:
    return Commission(
        bundle=tiny_bundle(tmp_path / "tiny").path,
        engine="openvino",
        precision=Precision.FP32,
        targets=("current",),
        buckets=(1, 2),
        cache=tmp_path / "engines",
    )


@pytest.fixture
def children() -> Iterator[list[Child]]:
    """Those started here; they are ended with the test."""
    started: list[Child] = []
    yield started
    for child in started:
        child.kill()
        child.communicate()


def start(commission: Commission, children: list[Child]) -> Child:
    pipe = subprocess.PIPE
    command = [*BUILDER, commission.model_dump_json()]
    children.append(subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL, text=True, cwd=ROOT))
    return children[-1]


def lines(child: Child) -> Iterator[Line]:
    assert child.stdout is not None
    return map(Line.model_validate_json, child.stdout)


@pytest.mark.skipif(find_spec("openvino") is None, reason="openvino comes with the extra openvino")
def test_after_a_killed_builder_two_that_race_build_everything_once(
    commission: Commission, children: list[Child]
) -> None:
    first = start(commission, children)
    next(line for line in lines(first) if line.doing == "build")
    first.kill()
    first.wait()
    cache = EngineCache(commission.cache)
    before = {record.graph for record in cache.records()}

    racing = [start(commission, children) for _ in range(2)]
    told = [list(lines(child)) for child in racing]
    assert [child.wait() for child in racing] == [0, 0]
    assert all(said[-1].done for said in told)

    tiny = load(commission.bundle)
    names = {graph.name for stage in Stage for graph in graphs(tiny, stage)}
    built = Counter(line.graph for said in told for line in said if line.doing == "build")
    assert built == Counter(names - before)
    assert {record.graph for record in cache.records()} == names
    for record in cache.records():
        cache.plan(record)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [({"engine": "torch"}, "torch"), ({"bundle": "/nowhere"}, "bundle.json"), ({"precision": "int3"}, "precision")],
)
def test_what_cannot_be_built_is_told_in_words(commission: Commission, changes: dict[str, str], reason: str) -> None:
    (*_, last) = build_child.tell(commission.model_copy(update=changes).model_dump_json(warnings=False))
    assert last.failed is not None
    assert reason in last.failed
    assert not last.done
