"""Samplers against other people's: vectors recorded from the published code, and diffusers' schedulers.

Both get the same small random net, the same noise and the same times; every state on the way is compared, relative to
its largest value. Conventions that differ, so that times are matched by hand: diffusers' DPM-Solver leaves time 0 out
of linear spacing (ours has it, and takes the long step to it in first order); its DDPM adds noise even to the last
step, unless that is from time 0; its flow schedulers end at 1/1000 before they go to 0. Its HeunDiscrete steps in
sigma / alpha, where ours steps in the flow's time, which is that of FlowMatchHeun; so there is none to compare Heun
with on DDPM's schedule.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from models.nn.dit import DiT
from models.samplers import Estimate, Query
from models.schedules import Level, denoised, flow_level, levels
from models.spec import NetSpec, Prediction, ScheduleName, Spacing, Stage
from tests.laws.test_dit import golden_spec
from tests.sampling import Answer, drawn
from tests.tiny import awake, tiny_net

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning:diffusers")

GOLDEN = Path(__file__).parent.parent / "golden"
CLOSE = 1e-4
"""Relative. Their coefficients are float32, which shows where alpha is nearly 1: 3e-5 there, 5e-7 elsewhere."""

Step = Callable[[int, Any, Tensor, Tensor], Tensor]
"""One step of a scheduler: (its number, time, output, state) -> state."""


def answer(net: DiT, condition: Tensor | None = None) -> Answer:
    def estimate(query: Query) -> Estimate:
        out, channels = output(net, query.x, query.level.time, condition), query.x.shape[1]
        clean = denoised(net.spec.prediction, query.x, out[:, :channels], query.level)
        return Estimate(clean, out[:, channels:] if net.spec.learned_variance else None)

    return estimate


@torch.inference_mode()
def output(net: DiT, x: Tensor, time: float, condition: Tensor | None = None) -> Tensor:
    seen = x if condition is None else torch.cat([x, condition], dim=1)
    out: Tensor = net(seen, torch.full((len(x),), time * net.spec.time_scale))
    return out


def relative(one: Tensor, other: Tensor) -> float:
    return float((one - other).abs().max() / other.abs().max())


@pytest.mark.parametrize(("name", "weights", "in_channels"), [("first", "stage1", 4), ("sr", "sr", 8)])
def test_ancestral_loop_as_published(name: str, weights: str, in_channels: int) -> None:
    vectors = load_file(GOLDEN / "vectors.safetensors")
    net = DiT(golden_spec(in_channels).model_copy(update={"learned_variance": True})).eval()
    net.load_state_dict(load_file(GOLDEN / f"{weights}.safetensors"))
    found = drawn(
        "ddpm",
        vectors[f"{name}.z"],
        levels=levels(ScheduleName.LINEAR, 10),
        answer=answer(net, vectors.get(f"{name}.lr")),
        noise=vectors[f"{name}.noise"],
    )
    assert relative(found.result, vectors[f"{name}.out"]) < 1e-5


def ours(name: str, ladder: tuple[Level, ...], net: DiT) -> list[Tensor]:
    """Every state that the net is asked about, then the result."""
    noise = torch.stack([step_noise(i) for i in range(len(ladder))])
    found = drawn(name, start(), levels=ladder, answer=answer(net), noise=noise)
    return [*(query.x for query in found.queries), found.result]


def theirs(scheduler: Any, net: DiT, step: Step, x: Tensor) -> list[Tensor]:
    """The states of a scheduler's loop, as it keeps them."""
    states, flow = [x], net.spec.schedule is ScheduleName.FLOW
    for i, time in enumerate(scheduler.timesteps):
        seen = scheduler.scale_model_input(x, time) if hasattr(scheduler, "scale_model_input") else x
        x = step(i, time, output(net, seen, flow_time(scheduler, i) if flow else float(time)), x)
        states.append(x)
    return states


def flow_time(scheduler: Any, i: int) -> float:
    """The i-th evaluation's; Heun's sigmas say where its steps begin, its timesteps where it looks."""
    heun = isinstance(scheduler, diffusers.FlowMatchHeunDiscreteScheduler)
    return float(scheduler.timesteps[i]) / 1000 if heun else float(scheduler.sigmas[i])


def same(found: list[Tensor], wanted: list[Tensor]) -> None:
    assert len(found) == len(wanted)
    errors = [relative(one, other) for one, other in zip(found, wanted, strict=True)]
    assert max(errors) < CLOSE, errors


def step_noise(step: int) -> Tensor:
    return torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(step))


def start() -> Tensor:
    return step_noise(1000)


def net_of(prediction: Prediction, schedule: ScheduleName, **changes: object) -> DiT:
    spec = tiny_net(stage=Stage.COARSE, prediction=prediction).model_dump()
    scale = 1.0 if schedule is ScheduleName.LINEAR else 1000.0
    return awake(DiT(NetSpec(**(spec | {"classes": 0, "schedule": schedule, "time_scale": scale} | changes))))


def ddpm_like(scheduler: str, **options: object) -> Any:
    betas = {"beta_schedule": "linear", "beta_start": 1e-4, "beta_end": 2e-2}
    return getattr(diffusers, scheduler)(num_train_timesteps=1000, **(betas | options))


def times_of(ladder: tuple[Level, ...]) -> list[int]:
    return [round(level.time) for level in ladder[:-1]]


def plain(scheduler: Any) -> Step:
    return lambda _, time, out, x: scheduler.step(out, time, x, return_dict=False)[0]


def with_noise(scheduler: Any) -> Step:
    return lambda i, time, out, x: scheduler.step(out, time, x, variance_noise=step_noise(i), return_dict=False)[0]


@pytest.mark.parametrize("spacing", list(Spacing))
@pytest.mark.parametrize("variance", ["learned_range", "fixed_small"])
def test_ddpm(variance: str, spacing: Spacing) -> None:
    ladder = levels(ScheduleName.LINEAR, 12, spacing=spacing)
    scheduler = ddpm_like("DDPMScheduler", variance_type=variance, clip_sample=False)
    scheduler.set_timesteps(timesteps=times_of(ladder))
    changes = {"out_channels": 6, "learned_variance": True} if variance == "learned_range" else {}
    net = net_of(Prediction.EPSILON, ScheduleName.LINEAR, **changes)

    def step(i: int, time: Any, out: Tensor, x: Tensor) -> Tensor:
        found: Tensor = scheduler.step(out, time, x, generator=torch.Generator().manual_seed(i), return_dict=False)[0]
        return found

    compared = len(ladder) - (1 if spacing is Spacing.TRAILING else 0)
    same(ours("ddpm", ladder, net)[:compared], theirs(scheduler, net, step, start())[:compared])


@pytest.mark.parametrize("prediction", [Prediction.EPSILON, Prediction.V])
def test_ddim(prediction: Prediction) -> None:
    ladder = levels(ScheduleName.LINEAR, 10, spacing=Spacing.TRAILING)
    kind = "epsilon" if prediction is Prediction.EPSILON else "v_prediction"
    scheduler = ddpm_like("DDIMScheduler", clip_sample=False, timestep_spacing="trailing", prediction_type=kind)
    scheduler.set_timesteps(10)
    assert times_of(ladder) == scheduler.timesteps.tolist()
    net = net_of(prediction, ScheduleName.LINEAR)
    same(ours("ddim", ladder, net), theirs(scheduler, net, plain(scheduler), start()))


def test_euler_on_the_schedule_of_ddpm() -> None:
    ladder = levels(ScheduleName.LINEAR, 12)
    scheduler = ddpm_like("EulerDiscreteScheduler")
    scheduler.set_timesteps(timesteps=times_of(ladder))
    net = net_of(Prediction.EPSILON, ScheduleName.LINEAR)
    states = theirs(scheduler, net, plain(scheduler), start() / ladder[0].alpha)
    same(ours("euler", ladder, net), [state * level.alpha for state, level in zip(states, ladder, strict=True)])


def test_euler_on_flow() -> None:
    ladder = levels(ScheduleName.FLOW, 12)
    scheduler = diffusers.FlowMatchEulerDiscreteScheduler()
    scheduler.set_timesteps(sigmas=[level.time for level in ladder[:-1]])
    net = net_of(Prediction.FLOW, ScheduleName.FLOW)
    same(ours("euler", ladder, net), theirs(scheduler, net, plain(scheduler), start()))


def test_heun_on_flow() -> None:
    scheduler = diffusers.FlowMatchHeunDiscreteScheduler()
    scheduler.set_timesteps(12)
    sigmas = [scheduler.sigmas[0], *scheduler.sigmas[1:-1:2], scheduler.sigmas[-1]]
    ladder = tuple(flow_level(float(sigma)) for sigma in sigmas)
    net = net_of(Prediction.FLOW, ScheduleName.FLOW)
    same(ours("heun", ladder, net), theirs(scheduler, net, plain(scheduler), start()))


SOLVERS = {"dpmpp_2m": "dpmsolver++", "sde_dpmpp_2m": "sde-dpmsolver++"}


@pytest.mark.parametrize("name", sorted(SOLVERS))
@pytest.mark.parametrize("spacing", list(Spacing))
def test_dpm_solver(name: str, spacing: Spacing) -> None:
    ladder = levels(ScheduleName.LINEAR, 20, spacing=spacing)
    scheduler = ddpm_like("DPMSolverMultistepScheduler", solver_order=2, algorithm_type=SOLVERS[name])
    scheduler.set_timesteps(timesteps=times_of(ladder))
    net = net_of(Prediction.EPSILON, ScheduleName.LINEAR)
    compared = len(ladder) - (2 if spacing is Spacing.LINEAR else 0)  # then comes the step that is long
    states = theirs(scheduler, net, with_noise(scheduler), start())
    same(ours(name, ladder, net)[:compared], states[:compared])


@pytest.mark.parametrize("name", sorted(SOLVERS))
def test_dpm_solver_on_flow(name: str) -> None:
    kind = {"prediction_type": "flow_prediction", "use_flow_sigmas": True, "algorithm_type": SOLVERS[name]}
    scheduler = diffusers.DPMSolverMultistepScheduler(solver_order=2, **kind)
    scheduler.set_timesteps(12)
    ladder = tuple(flow_level(float(sigma)) for sigma in scheduler.sigmas)
    net = net_of(Prediction.FLOW, ScheduleName.FLOW)
    same(ours(name, ladder, net), theirs(scheduler, net, with_noise(scheduler), start()))
