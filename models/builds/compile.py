"""Compile a bundle: every graph of every net to an engine's plan in the cache, told as a sequence of facts, and shown.

`compile_bundle` does the work and says what it does, whichever engine it is for; `show` draws it on a terminal. The
command itself is in `models.commands`, the same in a process beside a worker in `models.builds.building`.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path

import typer
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from models import bundle as bundles
from models.builds.compilers import Compiler, compiler
from models.bundle import Bundle
from models.compiling.build import Compiled, Doing, OnDamage, Outcome, Prepared
from models.compiling.compiler import BuildFailed
from models.compiling.engine_cache import EngineCache, PlanDamaged, Record
from models.compiling.export import carried
from models.compiling.flavours import CURRENT
from models.compiling.orders import Profiles
from models.engine import ALONE, BUCKETS, EngineUnavailable, NetName, Precision
from models.graph import Part, graphs
from models.spec import BundleSpec, Codec, Stage

PRECISIONS = {"tensorrt": Precision.FP16, "openvino": Precision.FP32}
"""What an engine is compiled in unless told otherwise."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Phase:
    """Work on a graph begins, or on a whole net or bundle."""

    graph: str
    """`Graph.name`, or the net's or the bundle's."""
    doing: str
    """One of `Doing`."""
    index: int
    """Which graph of the bundle, from 1; 0 before the first."""
    total: int


@dataclass(frozen=True, slots=True)
class Done:
    """A graph's plan is in the cache."""

    record: Record
    path: Path
    outcome: Outcome
    seconds: float
    """Wall time of all phases but measuring, this time."""


def compile_bundle(
    path: Path,
    *,
    engine: str = "tensorrt",
    targets: Sequence[str] = (CURRENT,),
    precision: Precision | None = None,
    buckets: Sequence[int] = BUCKETS,
    profiles: Profiles = Profiles.PER_BUCKET,
    on_damage: OnDamage = OnDamage.REFUSE,
    cache: EngineCache | None = None,
    data: Path | None = None,
) -> Iterator[Phase | Done]:
    """Compile every graph of the bundle at `path`, one after the other.

    What was built for this very machine is run and timed as well, and its records amended; what was built for another
    is not. `data`: real sequences that a quantised bundle is judged by, where it has none of its own. ValueError for
    what cannot be asked for, `BundleError`, `EngineUnavailable` where the compiler or a device is missing,
    `PlanDamaged`, `BuildFailed`.
    """
    cache, precision = cache or EngineCache.default(), precision or PRECISIONS.get(engine, Precision.FP32)
    wanted = compiler(
        engine,
        targets=targets,
        precision=precision,
        buckets=buckets,
        profiles=profiles,
        on_damage=on_damage,
        cache=cache,
    )
    loaded = bundles.load(path)
    prepared = yield from _prepared(loaded, precision, data=data, known=cache.records())
    nets: tuple[NetName, ...] = (*loaded.spec.nets, *(Codec if loaded.spec.autoencoder else ()))
    first = 1
    for net in nets:
        done = yield from _net(loaded, net, wanted, prepared=prepared, cache=cache, first=first)
        first += len(done)
        records = tuple(fact.record for fact in done)
        if wanted.here(records) and not all(record.measured for record in records):
            yield Phase(net, Doing.MEASURE, first - 1, graph_count(loaded.spec))
            chosen = buckets if isinstance(net, Stage) else ALONE
            records = _measured(loaded, net, records, compiler=wanted, cache=cache, buckets=chosen)
        yield from (replace(fact, record=record) for fact, record in zip(done, records, strict=True))


def graph_count(spec: BundleSpec) -> int:
    """How many graphs all nets of a bundle have together, as `models.graph.graphs` gives them."""
    sizes = len({spec.grid * spec.coarse_size, spec.refined_size})
    return len(Part) * len(spec.nets) + (len(Codec) * sizes if spec.autoencoder else 0)


def _prepared(
    loaded: Bundle, precision: Precision, *, data: Path | None, known: Iterable[Record]
) -> Generator[Phase, None, Prepared | None]:
    """Scales and what the quality gate says about them, where the precision takes some."""
    if not precision.quantised:
        return None
    steps = import_module("models.quantise").prepare(loaded, precision, data=data, known=known)
    while True:
        try:
            yield Phase(loaded.spec.name, next(steps), 0, graph_count(loaded.spec))
        except StopIteration as end:
            prepared: Prepared = end.value
            return prepared


def _net(
    loaded: Bundle, net: NetName, compiler: Compiler, *, prepared: Prepared | None, cache: EngineCache, first: int
) -> Generator[Phase, None, tuple[Done, ...]]:
    """All graphs of one net, the first of which is the bundle's `first`."""
    done, total = [], graph_count(loaded.spec)
    for index, graph in enumerate(graphs(loaded, net), start=first):
        yield Phase(graph.name, Doing.CHECK, index, total)
        started = time.perf_counter()
        for fact in compiler.compile(graph, bundle=loaded.spec.name, prepared=prepared):
            if isinstance(fact, Compiled):
                seconds = time.perf_counter() - started
                done.append(Done(fact.record, cache.path(fact.record), fact.outcome, seconds))
            else:
                yield Phase(graph.name, fact, index, total)
    return tuple(done)


def _measured(
    loaded: Bundle,
    net: NetName,
    records: tuple[Record, ...],
    *,
    compiler: Compiler,
    cache: EngineCache,
    buckets: Sequence[int],
) -> tuple[Record, ...]:
    """The records with what was measured; as they were if the plans do not run, which the log tells."""
    from models.builds import measure

    precision = carried(compiler.precision, net)
    try:
        return measure.measured(
            loaded, net, engine=compiler.engine, precision=precision, cache=cache, records=records, buckets=buckets
        )
    except EngineUnavailable as error:
        fields = {"action": "compile.not_run", "net": net, "engine": compiler.engine, "reason": str(error)}
        _log.warning("a plan was built but not run", extra=fields)
        return records


def show(facts: Iterable[Phase | Done], *, console: Console) -> tuple[Done, ...]:
    """Draw a compilation as it goes, then a table of its plans."""
    done: list[Done] = []
    columns = (
        SpinnerColumn(),
        MofNCompleteColumn(),
        BarColumn(bar_width=20),
        TextColumn("{task.description}"),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task("start", total=None)
        for fact in facts:
            if isinstance(fact, Done):
                done.append(fact)
            else:
                doing = f"{fact.graph}: {fact.doing}"
                progress.update(task, description=doing, completed=max(0, fact.index - 1), total=fact.total)
    console.print(_title(done), soft_wrap=True)
    console.print(_table(done))
    console.print(f"in {done[0].path.parent}", soft_wrap=True)
    return tuple(done)


def targets_of(text: str) -> tuple[str, ...]:
    """`sm75,sm89` -> its parts. ValueError if there are none."""
    parts = tuple(part.strip().lower() for part in text.split(",") if part.strip())
    if not parts:
        raise ValueError(f"no target in {text!r}; name capabilities such as sm89, or {CURRENT}")
    return parts


def buckets_of(text: str) -> tuple[int, ...]:
    """`1,2,8` -> its numbers, ascending. ValueError if they are none; whether they will do, `ranges` says."""
    parts = [part.strip() for part in text.split(",")]
    wrong = [part for part in parts if not part.isdecimal()]
    if wrong:
        raise ValueError(f"buckets: {wrong[0]!r} is no number; name batch sizes such as 1,2,4")
    return tuple(sorted({int(part) for part in parts}))


@contextmanager
def told() -> Iterator[None]:
    """Say what a user can mend in one line, and end the command with status 1."""
    try:
        yield
    except (ValueError, EngineUnavailable, PlanDamaged, BuildFailed) as error:
        hint = "; --on-damage rebuild makes it again" if isinstance(error, PlanDamaged) else ""
        typer.echo(f"{typer.style('error:', fg='red', bold=True)} {error}{hint}", err=True)
        raise typer.Exit(1) from error


def _table(done: Sequence[Done]) -> Table:
    table = Table(box=SIMPLE_HEAD)
    table.add_column("graph", no_wrap=True)
    table.add_column("plan")
    for heading in ("MB", "seconds", "kernels", "fused"):
        table.add_column(heading, justify="right", no_wrap=True)
    for heading in ("export within", "here within", "times torch"):
        table.add_column(heading, justify="right")
    for fact in done:
        table.add_row(fact.record.graph, str(fact.outcome), *_row(fact))
    return table


def _row(fact: Done) -> tuple[str, ...]:
    """An empty cell: that was not done."""
    record, measured = fact.record, fact.record.measured
    return (
        f"{record.plan_bytes / 1e6:.1f}",
        f"{fact.seconds:.1f}",
        str(record.kernels),
        f"{record.fused_attentions}/{record.depth}",
        "" if record.exported_parity is None else f"{record.exported_parity:.0e}",
        f"{measured.parity:.0e}" if measured else "",
        f"{measured.speedup:.2f}" if measured else "not run",
    )


def _title(done: Sequence[Done]) -> str:
    """What all plans of one compilation have in common."""
    recipe = done[0].record.recipe
    return f"{recipe.flavour} {recipe.version}, {recipe.precision}, for {', '.join(recipe.targets)}"
