"""Compile a bundle: every net to an engine's plan in the cache, told as a sequence of facts, and shown on a terminal.

`compile_bundle` does the work and says what it does; `show` draws it. The command itself is in `models.commands`.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import typer
from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from models import bundle, flavours
from models.build import BuildFailed, Compiled, OnDamage, Outcome, Profiles, compile_net, order
from models.engine import BUCKETS, EngineUnavailable, Precision
from models.engine_cache import EngineCache, PlanDamaged, Record
from models.flavours import CURRENT

COMPILED = "tensorrt"
"""The engine that runs what is compiled here."""


@dataclass(frozen=True, slots=True)
class Phase:
    """Work on a net begins."""

    net: str
    doing: str
    """"check", "export" or "build"."""


@dataclass(frozen=True, slots=True)
class Done:
    """A net's plan is in the cache."""

    record: Record
    path: Path
    outcome: Outcome
    seconds: float
    """Wall time of all phases, this time."""


def compile_bundle(
    path: Path,
    *,
    engine: str = COMPILED,
    targets: Sequence[str] = (CURRENT,),
    precision: Precision = Precision.FP16,
    buckets: Sequence[int] = BUCKETS,
    profiles: Profiles = Profiles.PER_BUCKET,
    on_damage: OnDamage = OnDamage.REFUSE,
    cache: EngineCache | None = None,
) -> Iterator[Phase | Done]:
    """Compile both nets of the bundle at `path`, one after the other.

    ValueError for what cannot be asked for, `BundleError`, `EngineUnavailable` where the compiler or a GPU is
    missing, `PlanDamaged`, `BuildFailed`.
    """
    if engine != COMPILED:
        raise ValueError(f"engine {engine} has nothing to compile; only {COMPILED} has")
    loaded, cache = bundle.load(path), cache or EngineCache.default()
    wanted = order(flavours.detect(), targets=targets, precision=precision, buckets=buckets, profiles=profiles)
    for stage in loaded.spec.nets:
        yield Phase(stage, "check")
        started = time.perf_counter()
        net = loaded.net(stage)
        for fact in compile_net(net, wanted, cache=cache, bundle=loaded.spec.name, name=stage, on_damage=on_damage):
            if isinstance(fact, Compiled):
                seconds = time.perf_counter() - started
                yield Done(fact.record, cache.path(fact.record), fact.outcome, seconds)
            else:
                yield Phase(stage, fact)


def show(facts: Iterable[Phase | Done], *, console: Console) -> tuple[Done, ...]:
    """Draw a compilation as it goes, then a table of its plans."""
    done: list[Done] = []
    columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task("start", total=None)
        for fact in facts:
            if isinstance(fact, Done):
                done.append(fact)
            else:
                progress.reset(task, description=f"{fact.net}: {fact.doing}")
    console.print(_table(done))
    for fact in done:
        console.print(f"{fact.record.net}: {fact.path}", soft_wrap=True)
    return tuple(done)


def targets_of(text: str) -> tuple[str, ...]:
    """`sm75,sm89` -> its parts. ValueError if there are none."""
    parts = tuple(part.strip().lower() for part in text.split(",") if part.strip())
    if not parts:
        raise ValueError(f"no target in {text!r}; name capabilities such as sm89, or {CURRENT}")
    return parts


def buckets_of(text: str) -> tuple[int, ...]:
    """`1,2,8` -> its numbers, ascending. ValueError if they are not batch sizes."""
    sizes = sorted({int(part) for part in text.split(",")})
    if sizes[0] < 1:
        raise ValueError(f"{sizes[0]} is no batch size")
    return tuple(sizes)


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
    table = Table("net", "plan", "MB", "seconds", "kernels", "fused", "profiles", title=_title(done))
    for fact in done:
        record = fact.record
        table.add_row(
            record.net,
            str(fact.outcome),
            f"{record.plan_bytes / 1e6:.1f}",
            f"{fact.seconds:.1f}",
            str(record.kernels),
            f"{record.fused_attentions} / {record.depth}",
            str(len(record.recipe.profiles)),
        )
    return table


def _title(done: Sequence[Done]) -> str:
    """What all plans of one compilation have in common."""
    recipe = done[0].record.recipe
    return f"{recipe.flavour} {recipe.version}, {recipe.precision}, for {', '.join(recipe.targets)}"
