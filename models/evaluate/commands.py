"""`gridit evaluate`: what a bundle draws, measured against real sequences.

What is asked, written and shown; the measurements are `models.evaluate.run`'s, the options' help is in `options`.
"""

from __future__ import annotations

import json
from collections.abc import Generator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import typer
from rich.progress import MofNCompleteColumn, Progress, TimeElapsedColumn

from models.evaluate import options
from models.terminal import DEMO, console, progress_bar

if TYPE_CHECKING:
    from models.bundle import Bundle
    from models.data.decoding import Reading
    from models.evaluate.reference import Reference
    from models.evaluate.run import Outcome, Subject
    from models.spec import BundleSpec

app = typer.Typer(no_args_is_help=True, help="Measure a bundle.")

_Result = TypeVar("_Result")


@app.command()
def evaluate(
    bundle: options.Bundle = DEMO,
    measure: options.Measures = "gate",
    out: options.Out = Path("out/evaluate"),
    n: options.Count = None,
    frames: options.Frames = None,
    classes: options.Classes = None,
    mode: options.Modes = "sound",
    sampler: options.Sampler = None,
    spacing: options.Spacing = None,
    cache: options.Cache = None,
    coarse_steps: options.Steps = None,
    refine_steps: options.Steps = None,
    guidance_scale: options.Guidance = None,
    reference: options.Folder = None,
    class_map: options.ClassMap = None,
    stride: options.Stride = 1,
    fit: options.Fit = "crop",
    crop: options.Crop = None,
    window: options.Window = None,
    fid_net: options.FidNet = None,
    fid_values: options.PixelValues = "bytes",
    fid_size: options.FidSize = None,
    fvd_net: options.FvdNet = None,
    fvd_values: options.PixelValues = "signed",
    fvd_size: options.FvdSize = 224,
    fvd_frames: options.ClipFrames = 16,
    *,
    record: options.Record = False,
) -> None:
    """Draw sequences of every class and measure them against real ones; status 1 if they fail the gate."""
    from models import alone
    from models import bundle as bundles
    from models.evaluate import featurenet, run
    from models.evaluate.reference import chosen
    from models.spec import Mode

    loaded = bundles.load(bundle)
    names = chosen(loaded.spec, classes or [])
    fid = replace(featurenet.FID, values=featurenet.Values(fid_values), size=fid_size)
    fvd = replace(featurenet.FVD, values=featurenet.Values(fvd_values), size=fvd_size, clip=fvd_frames)
    nets = {"FID": (fid_net, fid), "FVD": (fvd_net, fvd)}
    steps = {"coarse_steps": coarse_steps, "refine_steps": refine_steps}
    wishes = {"sampler": sampler, "spacing": spacing, "cache": cache, "guidance_scale": guidance_scale, **steps}
    reading = _reading(loaded.spec, stride=stride, fit=fit, crop=crop, window=window)
    mapping = _mapping(class_map or [])
    chosen(loaded.spec, list(mapping))
    _check(measure, feature_nets=bool(fid_net or fvd_net))
    subject = run.Subject(
        spec=loaded.spec,
        nets=alone.evaluators(loaded),
        reference=_reference(loaded.spec, reference, names, mapping=mapping, reading=reading, out=out),
        sample=run.Sample(mode=Mode(mode), wishes=wishes),
        feature_nets={key: featurenet.FeatureNet(path, how) for key, (path, how) in nets.items() if path},
    )
    out.mkdir(parents=True, exist_ok=True)
    if measure != "gate":
        sample = replace(subject.sample, sequences=n or 8, frames=frames or 256)
        _curves(loaded, replace(subject, sample=sample), names, out)
    if measure != "curves":
        sample = replace(subject.sample, sequences=n or 32, frames=frames or 64)
        passed = _gate(loaded, replace(subject, sample=sample), names, out=out, record=record)
        raise typer.Exit(0 if passed else 1)


def _gate(loaded: Bundle, subject: Subject, names: Sequence[str], *, out: Path, record: bool) -> bool:
    """Judge every class, show and write what was found; whether it passed."""
    from models import bundle as bundles
    from models.evaluate import run
    from models.evaluate.frechet import frechet_table
    from models.evaluate.report import GateReport, corruption_table, figure_table

    subject.check(names)
    outcomes: dict[str, Outcome] = {}
    with progress_bar(MofNCompleteColumn(), TimeElapsedColumn()) as progress:
        for name in names:
            outcomes[name] = _follow(progress, run.gate(subject, name), total=run.gate_length(subject), title=name)
    report = GateReport(tuple(one.report for one in outcomes.values()))
    frechet = {name: one.frechet for name, one in outcomes.items()}
    _write_sheets(outcomes, out)
    distances = {name: [figure.to_json() for figure in each] for name, each in frechet.items()}
    _write_json(out / "gate.json", report.to_json() | {"frechet": distances}, loaded, subject, names)
    console.print(figure_table(report), corruption_table(report))
    if subject.feature_nets:
        console.print(frechet_table(frechet))
    if record:
        sample = subject.sample
        bundles.annotate(loaded, gate=run.summary(report, sequences=sample.sequences, frames=sample.frames))
    console.print(f"{out}: gate.json and contact sheets; the gate is {'passed' if report.passed else 'NOT passed'}")
    return report.passed


def _curves(loaded: Bundle, subject: Subject, names: Sequence[str], out: Path) -> None:
    """Seam and drift curves of every class: plots, figures and tables."""
    from models.evaluate import plots, run
    from models.evaluate.curves import drift_table, seam_table

    subject.check(names)
    total = run.curves_length(subject)
    with progress_bar(MofNCompleteColumn(), TimeElapsedColumn()) as progress:
        found = [_follow(progress, run.curves(subject, name), total=total, title=name) for name in names]
    for one in found:
        for title, picture in plots.pictures(one, bundle=loaded.spec.name):
            (out / f"{_file_name(title)}.png").write_bytes(picture)
    _write_json(out / "curves.json", {"classes": [one.to_json() for one in found]}, loaded, subject, names)
    console.print(seam_table(found), drift_table(found))
    console.print(f"{out}: curves.json and plots of seams and drift")


def _check(measure: str, *, feature_nets: bool) -> None:
    """Refuse now what would fail after minutes."""
    from models.evaluate import plots

    if measure != "gate":
        plots.available()
    if measure == "curves" and feature_nets:
        raise typer.BadParameter("FID and FVD are measured with the gate: choose --measure gate or all")


def _mapping(pairs: Sequence[str]) -> dict[str, str]:
    """CLASS=NAME, ... -> {CLASS: NAME}."""
    for pair in pairs:
        if not all(pair.partition("=")):
            raise typer.BadParameter(f"--class-map {pair!r}: expected CLASS=NAME")
    return {name: shown for name, _, shown in (pair.partition("=") for pair in pairs)}


def _reading(spec: BundleSpec, *, stride: int, fit: str, crop: int | None, window: str | None) -> Reading:
    """How a folder is read: as for training."""
    from models.data.decoding import Reading
    from models.data.framing import Fit
    from models.data.listing import Classes
    from models.data.volumes import Window

    classes = Classes.FOLDERS if spec.classes else Classes.NONE
    seen = None if window is None else Window.parse(window)
    return Reading(classes, stride=stride, fit=Fit(fit), crop=crop, channels=spec.channels, window=seen)


def _reference(
    spec: BundleSpec,
    folder: Path | None,
    names: Sequence[str],
    *,
    mapping: Mapping[str, str],
    reading: Reading,
    out: Path,
) -> Reference:
    """Domains, or a folder's sequences, decoded under `out` where they were not before."""
    from models.evaluate.folder import open_folder
    from models.evaluate.reference import Procedural

    if folder is None:
        return Procedural.of(spec, names, mapping=mapping)
    work = open_folder(spec, folder, names=names, mapping=mapping, reading=reading, cache=out / "reference")
    with progress_bar(MofNCompleteColumn(), TimeElapsedColumn()) as progress:
        return _follow(progress, work, total=None, title="decoding")


def _follow(progress: Progress, work: Generator[object, None, _Result], *, total: int | None, title: str) -> _Result:
    """Drive `work` to its end, a step of the bar each time it yields."""
    bar = progress.add_task(title, total=total)
    while True:
        try:
            next(work)
        except StopIteration as end:
            progress.update(bar, total=progress.tasks[bar].completed)  # there may have been fewer than thought
            result: _Result = end.value
            return result
        progress.advance(bar)


def _write_sheets(outcomes: Mapping[str, Outcome], out: Path) -> None:
    from models.media import png

    for name, outcome in outcomes.items():
        for view, picture in outcome.sheets.pictures():
            (out / f"{_file_name(name)}-{view}.png").write_bytes(png.encode(picture))


def _write_json(
    path: Path, found: Mapping[str, object], loaded: Bundle, subject: Subject, names: Sequence[str]
) -> None:
    from models.evaluate.provenance import provenance

    content = {**provenance(loaded, subject, names=names), **found}
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def _file_name(title: str) -> str:
    """A class may be called anything."""
    return "".join(letter if letter.isalnum() or letter in "-_." else "_" for letter in title)
