"""`gridit simulate`: a day of jobs on a fleet, without either; `gridit simulate record`: step costs of a bundle."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.markdown import Markdown

from workers.contracts.errors import SimulationInput
from workers.simulate import costs as tables

if TYPE_CHECKING:
    from workers.simulate.arrivals import Arrival
    from workers.simulate.costs import Costs
    from workers.simulate.fleet import WorkerSpec

app = typer.Typer(add_completion=False)
group = typer.Typer(invoke_without_command=True)
app.add_typer(group, name="simulate")

console = Console(stderr=True)
ROUNDS = 15


@group.callback()
def simulate(
    context: typer.Context,
    workers: Annotated[int, typer.Option(min=1, help="How many.")] = 4,
    slots: Annotated[int, typer.Option(min=1, help="Jobs that each has in hand at once.")] = 8,
    speed: Annotated[
        str,
        typer.Option(
            help="Speed of the workers against the machine of the costs, for all or by worker: 1,1,0.5. "
            "The default stands for nets twenty times the bundled ones."
        ),
    ] = "0.05",
    hours: Annotated[float, typer.Option(min=0.01, help="Length of the day, from midnight.")] = 24.0,
    load: Annotated[
        float, typer.Option(min=0.001, help="Work that comes, done one job at a time, over what the fleet can do.")
    ] = 0.7,
    seed: Annotated[int, typer.Option(help="The same seed draws the same day.")] = 0,
    costs: Annotated[
        Path | None,
        typer.Option(help="Step costs, as `record` writes them; left out: of the bundled model on two CPU cores."),
    ] = None,
    arrivals: Annotated[
        Path | None, typer.Option(help="A list of jobs, a JSON object a line, instead of drawn ones.")
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder for report.json, report.md and the plots.")] = Path("out/simulate"),
) -> None:
    """What a day of jobs meets under our policy, and under first come, first served, on the same fleet.

    Times of disk, network and encoding are not in it.
    """
    if context.invoked_subcommand is not None:
        return
    table = tables.read(costs or tables.SHIPPED)
    fleet = _fleet(workers, slots=slots, speeds=_speeds(speed, workers), model=table.model)
    if arrivals is None:
        jobs = _drawn(table, fleet, hours=hours, load=load, seed=seed)
        words = f"load {load:g} of the fleet one job at a time, seed {seed}"
    else:
        jobs, words = _listed(arrivals, table), str(arrivals.name)
        hours = jobs[-1].at / 3600
    _run(fleet, jobs, table, words=words, hours=hours, out=out)


@group.command()
def record(
    bundle: Annotated[Path, typer.Argument(help="A bundle's directory.")],
    out: Annotated[Path, typer.Option(help="The table.")] = Path("costs.json"),
    engine: Annotated[str, typer.Option(help="auto, torch or tensorrt.")] = "auto",
    precision: Annotated[str, typer.Option(help="auto, fp32, fp16 or bf16.")] = "auto",
    rounds: Annotated[int, typer.Option(min=1, help="Runs of each net in each bucket; medians are kept.")] = ROUNDS,
) -> None:
    """Measure how long each net of a bundle takes in each bucket on this machine."""
    from workers.simulate import recording

    with console.status("loading") as status:
        for found in recording.record(bundle, engine=engine, precision=precision, rounds=rounds):
            if isinstance(found, int):
                status.update(f"round {found} of {rounds + recording.WARM_UPS}")
            else:
                tables.write(found, out)
    console.print(f"step costs in {out}")


def _run(
    fleet: Sequence[WorkerSpec], jobs: Sequence[Arrival], table: Costs, *, words: str, hours: float, out: Path
) -> None:
    from workers.simulate import writing
    from workers.simulate.policies import ALL
    from workers.simulate.simulation import simulate
    from workers.simulate.summary import summarise

    reports = []
    for policy in ALL:
        with console.status(f"{len(jobs)} jobs, {policy.name}"):
            reports.append(simulate(fleet, jobs, policy, {table.model: table}))
    summaries = [summarise(report) for report in reports]
    setting = writing.Setting(tuple(fleet), (table,), words, len(jobs), hours)
    writing.write(summaries, setting, out)
    try:
        from workers.simulate import plots

        title = f"{len(jobs)} jobs in {hours:g} hours on {len(fleet)} workers; {words}"
        for name, picture in plots.pictures(reports, summaries, title=title):
            (out / name).write_bytes(picture)
    except ImportError:
        console.print("no plots: matplotlib is not installed (pip install 'gridit-serve[evaluate]')")
    Console().print(Markdown((out / "report.md").read_text()))
    console.print(f"reports in {out}")


def _drawn(table: Costs, fleet: Sequence[WorkerSpec], *, hours: float, load: float, seed: int) -> tuple[Arrival, ...]:
    from workers.simulate import traffic

    capacity = sum(worker.speed for worker in fleet)
    return traffic.day(table, capacity=capacity, load=load, hours=hours, seed=seed)


def _listed(path: Path, table: Costs) -> tuple[Arrival, ...]:
    from workers.simulate import arrivals

    jobs = arrivals.read(path, {table.model: table})
    if not jobs:
        raise SimulationInput(f"{path}: there is no job in it; one JSON object a line")
    return jobs


def _fleet(count: int, *, slots: int, speeds: Sequence[float], model: str) -> tuple[WorkerSpec, ...]:
    from workers.simulate.fleet import WorkerSpec

    return tuple(WorkerSpec(f"worker-{index + 1}", (model,), slots, speeds[index]) for index in range(count))


def _speeds(text: str, workers: int) -> list[float]:
    try:
        speeds = [float(part) for part in text.split(",")]
    except ValueError as error:
        raise SimulationInput(f"--speed: found {text!r}; give numbers, as in 1,1,0.5") from error
    if len(speeds) not in (1, workers) or min(speeds) <= 0:
        raise SimulationInput(f"--speed: found {text!r} for {workers} workers; give one number over 0, or one for each")
    return speeds * workers if len(speeds) == 1 else speeds
