"""`python -m tests.parity DIR`: how far the product is from vectors recorded of the published implementation.

DIR holds `stage1.safetensors` and `sr.safetensors` (state dicts) and `vectors.safetensors` (inputs, noises, outputs;
its metadata names heads and guidance). Everything goes the way of a job: evaluators over engines, the official
mode's loop, the ancestral sampler. Printed is the largest relative error, max |a-b| / max |b|, of each group.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor

from models import alone, presets, samplers
from models.engine import Precision
from models.engines.torch import TorchEngine
from models.evaluator import Evaluator, Nets
from models.nn.dit import DiT
from models.plan import Request
from models.schedules import levels
from models.spec import Mode, NetSpec, Prediction, ScheduleName, Spacing, Stage
from models.units import Evaluate, official
from models.units.asking import Asker, UnitRun, drive

LIMIT = 1e-4
FILES = {Stage.COARSE: "stage1", Stage.REFINE: "sr"}


@dataclass(frozen=True)
class Recorded:
    """One directory of recorded vectors, and the product's nets with its weights."""

    folder: Path

    @cached_property
    def vectors(self) -> dict[str, Tensor]:
        """Inputs and outputs by name."""
        return load_file(self.folder / "vectors.safetensors")

    @cached_property
    def facts(self) -> Mapping[str, str]:
        """What the shapes do not tell: heads, cfg_scale."""
        facts: dict[str, str] = {}
        for name in ("stage1", "vectors"):
            with safe_open(self.folder / f"{name}.safetensors", "pt") as stored:
                facts |= stored.metadata() or {}
        return facts

    @cached_property
    def nets(self) -> Nets:
        """Both nets, as a worker has them."""
        return {stage: self._evaluator(stage) for stage in FILES}

    @cached_property
    def request(self) -> Request:
        """What the recorded run was asked."""
        steps, scale = len(self.vectors["first.noise"]), float(self.facts.get("cfg_scale", "4.0"))
        return Request(64, 0, None, steps, steps, "ddpm", scale, mode=Mode.OFFICIAL)

    def asker(self, stage: Stage, condition: Tensor | None = None) -> Asker:
        """One net at the service of a loop."""
        return Asker(stage, self.spec(stage), self.request, condition)

    def spec(self, stage: Stage) -> NetSpec:
        """Sizes read off the shapes."""
        return _spec_of(load_file(self.folder / f"{FILES[stage]}.safetensors"), heads=self._heads)

    @property
    def _heads(self) -> int:
        """As recorded; else as the published nets have them, by width."""
        if "heads" in self.facts:
            return int(self.facts["heads"])
        width = load_file(self.folder / "stage1.safetensors")["pos_embed"].shape[-1]
        return next(size.heads for size in presets.SIZES.values() if size.width == width)

    def _evaluator(self, stage: Stage) -> Evaluator:
        def net() -> DiT:
            built = DiT(self.spec(stage))
            built.load_state_dict(load_file(self.folder / f"{FILES[stage]}.safetensors"), strict=True)
            return built.eval()

        engine = TorchEngine(net(), device=torch.device("cpu"), precision=Precision.FP32, buckets=(1, 2, 4))
        return Evaluator(net(), engine)


@torch.inference_mode()
def groups(recorded: Recorded) -> Iterator[tuple[str, float]]:
    """Each group and its largest relative error."""
    every: dict[str, Callable[[Recorded], Iterator[tuple[Tensor, Tensor]]]] = {
        "schedule": _schedule,
        "forward.stage1": lambda one: _forward(one, Stage.COARSE),
        "forward.sr": lambda one: _forward(one, Stage.REFINE),
        "first": lambda one: _loop(one, "first"),
        "three_row": lambda one: _loop(one, "three_row"),
        "interpolation": lambda one: _loop(one, "interpolation"),
        "sr": _refined,
    }
    for name, pairs in every.items():
        yield name, max(_relative(ours, theirs) for ours, theirs in pairs(recorded))


def _schedule(recorded: Recorded) -> Iterator[tuple[Tensor, Tensor]]:
    chain = levels(ScheduleName.LINEAR, recorded.request.coarse_steps, spacing=Spacing.LINEAR)[:-1]
    times = torch.tensor([level.time for level in reversed(chain)], dtype=torch.float64)
    abar = torch.tensor([level.alpha**2 for level in reversed(chain)], dtype=torch.float64)
    yield times, recorded.vectors["timestep_map"].double()
    yield abar, recorded.vectors["alphas_cumprod"]


def _forward(recorded: Recorded, stage: Stage) -> Iterator[tuple[Tensor, Tensor]]:
    vectors, null = recorded.vectors, recorded.spec(stage).classes
    x = vectors["forward.x"]
    seen = x if stage is Stage.COARSE else torch.cat([x, vectors["forward.lr"]], dim=1)
    times = tuple(float(time) for time in vectors["forward.t"])
    (out,) = recorded.nets[stage]([Evaluate(stage, seen, times, (null,) * len(times))])
    yield out, vectors[f"forward.{FILES[stage]}"]


def _loop(recorded: Recorded, group: str) -> Iterator[tuple[Tensor, Tensor]]:
    given = _group(recorded.vectors, group)
    injected: tuple[official.Injected, ...] = ()
    if "previous" in given:
        injected = official.after(given["previous"])
    elif "source" in given:
        injected = official.between(given["source"], given["target"])
    asker, noise = recorded.asker(Stage.COARSE), given["noise"]
    run = official.ancestral(given["z"], asker, injected=injected, noise=lambda step: noise[step])
    yield alone.drive(run, recorded.nets), given["out"]


def _refined(recorded: Recorded) -> Iterator[tuple[Tensor, Tensor]]:
    given = _group(recorded.vectors, "sr")
    asker = recorded.asker(Stage.REFINE, given["lr"])
    chain = levels(asker.net.schedule, recorded.request.refine_steps)
    noise = given["noise"]
    sampling = samplers.load("ddpm")(given["z"], levels=chain, noise=lambda step: noise[step])
    run: UnitRun = drive(sampling, lambda query, _: asker.estimate(query.x, query.level))
    yield alone.drive(run, recorded.nets), given["out"]


def _group(vectors: Mapping[str, Tensor], name: str) -> dict[str, Tensor]:
    return {key.removeprefix(f"{name}."): tensor for key, tensor in vectors.items() if key.startswith(f"{name}.")}


def _relative(ours: Tensor, theirs: Tensor) -> float:
    if ours.shape != theirs.shape or not bool(torch.isfinite(ours).all()):
        return float("inf")
    return float((ours.double() - theirs.double()).abs().max() / theirs.double().abs().max())


def _spec_of(state: Mapping[str, Tensor], *, heads: int) -> NetSpec:
    width, in_channels, patch, _ = state["x_embedder.proj.weight"].shape
    out_channels = state["final_layer.linear.weight"].shape[0] // patch**2
    table = state.get("y_embedder.embedding_table.weight")
    return NetSpec(
        file="net.safetensors",
        sha256="0" * 64,
        input_size=round(state["pos_embed"].shape[1] ** 0.5) * patch,
        patch=patch,
        in_channels=in_channels,
        out_channels=out_channels,
        width=width,
        depth=sum(key.endswith("attn.qkv.bias") for key in state),
        heads=heads,
        classes=0 if table is None else len(table) - 1,
        prediction=Prediction.EPSILON,
        learned_variance=True,
        schedule=ScheduleName.LINEAR,
        time_scale=1.0,
    )


def main(arguments: list[str]) -> int:
    """Exit status: 0 if every group is within the limit, 1 if one is not, 2 if called wrongly."""
    if len(arguments) != 1 or not (Path(arguments[0]) / "vectors.safetensors").is_file():
        print("usage: python -m tests.parity DIR  (DIR holds stage1, sr and vectors.safetensors)", file=sys.stderr)
        return 2
    worst = 0.0
    for name, error in groups(Recorded(Path(arguments[0]))):
        print(f"{name:<16} {error:.2e}  {'ok' if error <= LIMIT else 'TOO FAR'}")
        worst = max(worst, error)
    return 0 if worst <= LIMIT else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
