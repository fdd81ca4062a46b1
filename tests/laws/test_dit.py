"""The net against vectors recorded from the published implementation, and the laws that batching rests on."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from models.engine import Precision, Rows
from models.engines.torch import TorchEngine
from models.nn.dit import DiT, sincos_2d
from models.spec import NetSpec, Prediction, ScheduleName
from tests.tiny import awake, tiny_spec

GOLDEN = Path(__file__).parent.parent / "golden"


def golden_spec(in_channels: int) -> NetSpec:
    return NetSpec(
        file="net.safetensors",
        sha256="0" * 64,
        input_size=64,
        patch=2,
        in_channels=in_channels,
        out_channels=8,
        width=48,
        depth=2,
        heads=4,
        prediction=Prediction.EPSILON,
        schedule=ScheduleName.LINEAR,
        time_scale=1.0,
    )


@pytest.mark.parametrize(("name", "in_channels"), [("stage1", 4), ("sr", 8)])
def test_forward_matches_the_published_one(name: str, in_channels: int) -> None:
    vectors = load_file(GOLDEN / "vectors.safetensors")
    net = DiT(golden_spec(in_channels))
    net.load_state_dict(load_file(GOLDEN / f"{name}.safetensors"), strict=True)
    x = vectors["forward.x"] if name == "stage1" else torch.cat([vectors["forward.x"], vectors["forward.lr"]], 1)
    with torch.inference_mode():
        out = net(x, vectors["forward.t"])
    wanted = vectors[f"forward.{name}"]
    assert (out - wanted).abs().max() / wanted.abs().max() < 1e-5


def test_xl_layout() -> None:
    spec = golden_spec(4).model_copy(update={"width": 1152, "depth": 28, "heads": 16})
    with torch.device("meta"):
        state = DiT(spec).state_dict()
    assert len(state) == 291
    assert sum(tensor.numel() for tensor in state.values()) == pytest.approx(674.86e6, rel=1e-4)
    assert state["blocks.27.adaLN_modulation.1.weight"].shape == (6912, 1152)


def test_xl_loads_strictly_and_runs_in_bfloat16() -> None:
    """As published for 256 pixels: 675 million weights through the engine that serves them, two rows alike but one."""
    spec = golden_spec(4).model_copy(update={"width": 1152, "depth": 28, "heads": 16, "input_size": 32})
    with torch.device("meta"):
        net = DiT(spec)
    some = torch.randn(1 << 23, generator=torch.Generator().manual_seed(0)).mul_(0.02).bfloat16()
    state = {key: some[: tensor.numel()].view(tensor.shape) for key, tensor in net.state_dict().items()}
    net.load_state_dict(state, strict=True, assign=True)
    with torch.inference_mode():
        modulation = net.modulation(torch.tensor([500.0, 500.0])).float()
    engine = TorchEngine(net, device=torch.device("cpu"), precision=Precision.BF16, buckets=(2,))
    x = torch.randn(1, 4, 32, 32, generator=torch.Generator().manual_seed(1))
    out = engine.run(Rows(torch.cat([x, -x]), modulation))
    assert (out.shape, out.dtype) == ((2, 8, 32, 32), torch.float32)
    assert bool(out.isfinite().all())
    assert not torch.equal(out[0], out[1])


def test_positional_table_of_the_published_sr_net() -> None:
    published = load_file(GOLDEN / "sr.safetensors")["pos_embed"][0]
    assert torch.allclose(sincos_2d(48, 32), published, atol=1e-6)


@pytest.mark.parametrize("stage", ["coarse", "refine"])
def test_rows_do_not_depend_on_their_batch(stage: str) -> None:
    """Bitwise, in float32 on a CPU: any batch size, any slot."""
    net = awake(DiT(next(s for name, s in tiny_spec().nets.items() if name == stage)))
    spec = net.spec
    x = torch.randn(32, spec.in_channels, spec.input_size, spec.input_size)
    rows = torch.randn(32, 6 * spec.depth + 2, spec.width)
    with torch.inference_mode():
        every = net.denoise(x, rows)
        for size in (1, 2, 3, 4, 7, 8, 16):
            for first in (0, 32 - size):
                part = slice(first, first + size)
                assert torch.equal(net.denoise(x[part], rows[part]), every[part]), f"batch {size} from {first}"


def test_modulation_and_label_matter() -> None:
    net = awake(DiT(tiny_spec().nets[next(iter(tiny_spec().nets))]))
    x = torch.randn(1, net.spec.in_channels, net.spec.input_size, net.spec.input_size)
    with torch.inference_mode():
        outs = [net(x, torch.tensor([t]), torch.tensor([label])) for t, label in ((10.0, 0), (900.0, 0), (10.0, 1))]
    assert not torch.equal(outs[0], outs[1])
    assert not torch.equal(outs[0], outs[2])
