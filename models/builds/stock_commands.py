"""`gridit engines ls | verify | rm`: the engine cache at a terminal. What is found is `builds.stock`'s to say."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from models.builds import stock
from models.builds.stock import WRONG, Depth, Entry, Installed, State
from models.compiling.engine_cache import CacheUnsafe, EngineCache
from models.compiling.engine_record import Record

SHORT = 8
"""Characters of a key that are shown; `rm` takes them."""
COLOURS = {State.OK: "green", State.DAMAGED: "red", State.TAMPERED: "red", State.FAILED: "yellow"}

app = typer.Typer(no_args_is_help=True)
engines = typer.Typer(no_args_is_help=True, help="Compiled engines of this machine (GRIDIT_ENGINE_CACHE).")
app.add_typer(engines, name="engines")

AsJson = Annotated[bool, typer.Option("--json", help="As JSON, with everything in full.")]


@app.callback()
def _group() -> None:
    """Commands under a name of their own."""


@engines.command(name="ls")
def list_(*, as_json: AsJson = False) -> None:
    """What there is, and whether it can be used here."""
    cache, installed = _cache(), stock.installed()
    _show(list(stock.take(cache, installed)), cache=cache, installed=installed, as_json=as_json)


@engines.command()
def verify(*, as_json: AsJson = False) -> None:
    """Read every plan: status 1 if one is damaged or tampered with."""
    cache, installed = _cache(), stock.installed()
    entries = list(stock.take(cache, installed, depth=Depth.BYTES))
    _show(entries, cache=cache, installed=installed, as_json=as_json)
    wrong = [entry for entry in entries if entry.state in WRONG]
    if wrong:
        _console(stderr=True).print(f"{len(wrong)} of {len(entries)} wrong; gridit engines rm --damaged removes them")
        raise typer.Exit(1)


@engines.command()
def rm(
    keys: Annotated[list[str] | None, typer.Argument(help="Beginnings of keys, as ls shows them.")] = None,
    *,
    bundle: Annotated[str | None, typer.Option(help="All of this bundle.")] = None,
    stale: Annotated[bool, typer.Option("--stale", help="Those of other versions, and what is left over.")] = False,
    damaged: Annotated[bool, typer.Option("--damaged", help="Those damaged or tampered with.")] = False,
    foreign: Annotated[bool, typer.Option("--foreign", help="Those for other devices than this machine's.")] = False,
    failed: Annotated[
        bool, typer.Option("--failed", help="Records of failed builds, which may then be tried.")
    ] = False,
    everything: Annotated[bool, typer.Option("--all", help="All.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
) -> None:
    """Remove engines; a service that needs one builds it again."""
    cache, installed = _cache(), stock.installed()
    asked = {State.STALE: stale, State.DAMAGED: damaged, State.TAMPERED: damaged, State.FOREIGN: foreign}
    states = {state for state, wanted in (asked | {State.FAILED: failed}).items() if wanted}
    if not (keys or bundle or states or everything):
        raise typer.BadParameter("name keys, --bundle, --stale, --damaged, --foreign, --failed or --all")
    chosen = [
        entry
        for entry in stock.take(cache, installed, depth=Depth.BYTES if damaged else Depth.GLANCE)
        if everything or entry.state in states or entry.bundle == bundle or _named(entry, keys or ())
    ]
    console = _console(stderr=True)
    if not chosen:
        console.print("nothing of that kind is there")
        raise typer.Exit(1 if keys or bundle else 0)
    _draw(console, chosen, installed)
    if not yes:
        typer.confirm(f"Remove {_amount(chosen)}?", abort=True, err=True)
    removed = stock.remove(cache, chosen, installed)
    console.print(f"removed {_amount(removed)}")


def _cache() -> EngineCache:
    cache = EngineCache.default()
    try:
        cache.check()
    except CacheUnsafe as error:
        typer.echo(f"{typer.style('error:', fg='red', bold=True)} {error}", err=True)
        raise typer.Exit(1) from error
    return cache


def _named(entry: Entry, keys: Sequence[str]) -> bool:
    return any(key and entry.key.startswith(key) for key in keys)


def _show(entries: Sequence[Entry], *, cache: EngineCache, installed: dict[str, Installed], as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps([_plain(entry) for entry in entries], indent=2))
        return
    console = _console()
    if entries:
        _draw(console, entries, installed)
    there = _amount(entries) if entries else "no engine yet; gridit compile makes some"
    console.print(f"{cache.root}: {there}", soft_wrap=True, highlight=False)


def _amount(entries: Sequence[Entry]) -> str:
    size = sum(entry.bytes for entry in entries) / 1e6
    return f"{len(entries)} {'entry' if len(entries) == 1 else 'entries'}, {size:.1f} MB"


def _draw(console: Console, entries: Sequence[Entry], installed: dict[str, Installed]) -> None:
    """A table, and below it why entries are not well."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 1, 0), header_style="dim")
    for title in ("key", "net", "engine", "for", "MB", "built", "against torch"):
        table.add_column(title, justify="right" if title == "MB" else "left", no_wrap=title in ("key", "MB", "built"))
    for entry in entries:
        table.add_row(*_cells(entry, installed))
    console.print(table)
    for entry in entries:
        if entry.reason:
            console.print(f"{entry.key[:SHORT]} {entry.state}: {entry.reason}", style=_colour(entry), soft_wrap=True)


def _cells(entry: Entry, installed: dict[str, Installed]) -> tuple[Text | str, ...]:
    written, record = entry.written, entry.record
    head = Text(f"{entry.key[:SHORT]}\n").append(entry.state, style=_colour(entry))
    size, built = f"{entry.bytes / 1e6:.1f}", f"{written:%d %b %y\n%H:%M} UTC" if written else ""
    if record is None:
        made = f"{entry.failure.attempt.engine} {entry.failure.attempt.precision}" if entry.failure else ""
        return head, entry.bundle, made, "", size, built, ""
    recipe = record.recipe
    made = f"{recipe.flavour} {recipe.precision}\n{recipe.version.partition('-')[0]}"
    return head, f"{record.graph}\n{record.bundle}", made, _aim(record, installed), size, built, _merit(record)


def _colour(entry: Entry) -> str:
    return COLOURS.get(entry.state, "blue")


def _aim(record: Record, installed: dict[str, Installed]) -> str:
    """Devices, in a word each, and the range of batch sizes."""
    recipe = record.recipe
    engine = installed.get(recipe.flavour)
    here = engine is not None and recipe.targets == (engine.here,)
    devices = "here" if here else ", ".join(target.partition(" ")[0] for target in recipe.targets)
    least, most = min(one.least for one in recipe.profiles), max(one.most for one in recipe.profiles)
    return f"{devices}\nrows {least}" + (f"-{most}" if most > least else "")


def _merit(record: Record) -> str:
    """Speed, difference, and what the quality gate said."""
    lines = ["not run here"]
    if measured := record.measured:
        lines = [f"{measured.speedup:.2f} x as fast", f"differs {measured.parity:.1g}"]
    elif record.exported_parity is not None:
        lines.append(f"export differs {record.exported_parity:.1g}")
    if record.quality is not None:
        lines.append("quality accepted" if record.quality.accepted else "quality refused")
    return "\n".join(lines)


def _plain(entry: Entry) -> dict[str, Any]:
    """An entry as JSON has it."""
    record, failure = entry.record, entry.failure
    return {
        "key": entry.key,
        "state": entry.state,
        "reason": entry.reason,
        "bundle": entry.bundle,
        "bytes": entry.bytes,
        "written": entry.written.isoformat() if entry.written else None,
        "files": [str(path) for path in entry.files],
        "record": record.model_dump(mode="json") if record else None,
        "speedup": record.measured.speedup if record and record.measured else None,
        "failure": failure.model_dump(mode="json") if failure else None,
    }


def _console(*, stderr: bool = False) -> Console:
    return Console(stderr=stderr, highlight=False)
