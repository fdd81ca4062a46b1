"""`gridit`: one command line for service, workers and models.

A static table says which module holds a command; the module is imported when the command is called, so `gridit --help`
loads nothing heavy. A user's mistake is one line with its remedy; `--debug` adds the traceback.
"""

from __future__ import annotations

import difflib
import importlib
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import metadata
from typing import NoReturn

import typer.main

from workers.contracts.errors import GriditError

USAGE = "gridit [--debug] COMMAND [OPTIONS]"
DISTRIBUTION = "gridit-serve"
LEVEL_VARIABLE = "GRIDIT_LOG_LEVEL"


@dataclass(frozen=True)
class Command:
    """Where a command lives (a module with a Typer `app`) and what it is for."""

    module: str
    help: str


COMMANDS: dict[str, dict[str, Command]] = {
    "Serve": {
        "up": Command("workers.supervisor.commands", "Everything on this machine: server, API and workers."),
        "serve": Command("service.commands", "The HTTP API alone."),
        "worker": Command("workers.commands", "One worker alone."),
    },
    "Use": {
        "demo": Command("service.demo.commands", "Start a service, make a sequence, keep the result."),
        "generate": Command("service.demo.commands", "Make a sequence on a running service."),
        "watch": Command("service.demo.commands", "Follow a job on a running service."),
    },
    "Models": {
        "sample": Command("models.commands", "Draw a sequence without any service."),
        "import": Command("models.checkpoint.commands", "Make a bundle from published weights."),
        "inspect": Command("models.checkpoint.commands", "What is in a bundle."),
        "train": Command("models.train.commands", "Train the nets of a bundle."),
        "evaluate": Command("models.evaluate.commands", "Measure a bundle against real sequences."),
        "compile": Command("models.commands", "Build an engine for a bundle's nets."),
        "engines": Command("models.builds.stock_commands", "List, verify and remove engines that were built."),
        "bench": Command("models.bench.commands", "Measure engines and the pipeline on this machine."),
    },
    "Plan": {
        "simulate": Command("workers.simulate.commands", "A day of jobs on a fleet, and who waits how long."),
    },
}


def main() -> NoReturn:
    """The entry point."""
    sys.exit(run(sys.argv[1:]))


def run(arguments: Sequence[str]) -> int:
    """Exit status of one call: 0 done, 1 failed, 2 called wrongly, 130 interrupted."""
    options, rest = _split(arguments)
    if "--debug" in options:
        os.environ[LEVEL_VARIABLE] = "debug"  # the processes it starts shall speak up too
    if unknown := [option for option in options if option not in ("--debug", "--version", "--help", "-h")]:
        return _fail(f"no such option: {unknown[0]}; usage: {USAGE}", status=2)
    if "--version" in options:
        typer.echo(f"gridit {version()}")
        return 0
    if not rest or "--help" in options or "-h" in options:
        _show_help()
        return 0 if options else 2
    return _call(rest[0], rest[1:])


def version() -> str:
    """Of the installed distribution."""
    try:
        return metadata.version(DISTRIBUTION)
    except metadata.PackageNotFoundError:
        return "(not installed)"


def _split(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """Options before the command, and the command with its own."""
    first = next((i for i, argument in enumerate(arguments) if not argument.startswith("-")), len(arguments))
    return list(arguments[:first]), list(arguments[first:])


def _call(name: str, arguments: Sequence[str]) -> int:
    known = {name: command for group in COMMANDS.values() for name, command in group.items()}
    if name not in known:
        near = difflib.get_close_matches(name, known, n=1)
        hint = f"did you mean {near[0]}?" if near else "see gridit --help"
        return _fail(f"no such command: {name}; {hint}", status=2)
    try:
        _invoke(known[name], name, arguments)
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    except KeyboardInterrupt:
        return 130
    except GriditError as error:
        return _fail(error.message, cause=error)
    except Exception as error:  # noqa: BLE001 - the last line of defence of a command line
        if _is_told(error):
            return _fail(str(error), cause=error)
        return _fail(f"{type(error).__name__}: {error} (gridit --debug {name} ... shows where)", cause=error)
    return 0


def _is_told(error: Exception) -> bool:
    """Whether it is one of ours about what the user gave: its message says all."""
    return isinstance(error, ValueError) and type(error).__module__.startswith(("models.", "workers.", "service."))


def _invoke(command: Command, name: str, arguments: Sequence[str]) -> None:
    """Run the command's module; a module with one command only has no names of its own."""
    target = typer.main.get_command(importlib.import_module(command.module).app)
    if hasattr(target, "commands"):
        target.main([name, *arguments], prog_name="gridit")
    else:
        target.main(list(arguments), prog_name=f"gridit {name}")


def _fail(message: str, *, cause: BaseException | None = None, status: int = 1) -> int:
    if cause is not None and os.environ.get(LEVEL_VARIABLE, "").lower() == "debug":
        import traceback

        traceback.print_exception(cause)
    typer.echo(f"{typer.style('error:', fg='red', bold=True)} {message}", err=True)
    return status


def _show_help() -> None:
    typer.echo("Serve long image sequences from grid-based diffusion.\n")
    typer.echo(f"{typer.style('Usage:', bold=True)} {USAGE}")
    for title, commands in COMMANDS.items():
        typer.echo(f"\n{typer.style(title, bold=True)}")
        for name, command in commands.items():
            typer.echo(f"  {typer.style(f'{name:<10}', fg='cyan')} {command.help}")
    typer.echo("\n--debug shows tracebacks, --version the version; gridit COMMAND --help the options of a command.")


if __name__ == "__main__":
    main()
