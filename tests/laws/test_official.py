"""The released mode against vectors recorded of the released code, and its guidance."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from models.plan import Request
from models.schedules import levels
from models.spec import Mode, NetSpec, ScheduleName, Stage
from models.units import Evaluate
from models.units.asking import Asker
from tests import parity
from tests.tiny import tiny_net

GOLDEN = Path(__file__).parent.parent / "golden"


def test_every_group_agrees_with_the_recorded_vectors() -> None:
    errors = dict(parity.groups(parity.Recorded(GOLDEN)))
    assert set(errors) >= {"forward.stage1", "forward.sr", "first", "three_row", "interpolation", "sr"}
    assert max(errors.values()) < 1e-5, errors


def test_a_difference_is_found(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from safetensors.torch import load_file, save_file

    for file in GOLDEN.glob("*.safetensors"):
        (tmp_path / file.name).write_bytes(file.read_bytes())
    vectors = load_file(GOLDEN / "vectors.safetensors")
    vectors["three_row.out"] = vectors["three_row.out"] * 1.001
    save_file(vectors, tmp_path / "vectors.safetensors", metadata={"heads": "4", "cfg_scale": "4.0"})
    assert parity.main([str(tmp_path)]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines if "TOO FAR" in line] == ["three_row"]
    assert parity.main([str(tmp_path / "nowhere")]) == 2


def four_channels() -> NetSpec:
    return tiny_net(stage=Stage.COARSE).model_copy(
        update={"in_channels": 4, "out_channels": 8, "learned_variance": True, "schedule": ScheduleName.LINEAR}
    )


@pytest.mark.parametrize(("mode", "guided"), [(Mode.OFFICIAL, 3), (Mode.SOUND, 4)])
def test_the_released_loop_guides_three_channels(mode: Mode, guided: int) -> None:
    """The net answers 1 for the label, 0 for none: a guided channel shows the scale."""
    asker = Asker(Stage.COARSE, four_channels(), Request(16, 0, 1, 4, 4, "ddpm", 4.0, mode=mode))
    level = levels(ScheduleName.LINEAR, 4)[1]
    asking = asker.estimate(torch.zeros(1, 4, 16, 16), level)

    def answer(one: Evaluate) -> Tensor:
        return torch.tensor([float(label == 1) for label in one.labels])[:, None, None, None].expand(-1, 8, 16, 16)

    evaluation = next(asking)
    assert evaluation.labels == (1, 2)
    with pytest.raises(StopIteration) as end:
        asking.send(answer(evaluation))
    clean, variance = end.value.value.clean, end.value.value.variance
    assert clean[0, :, 0, 0].tolist() == [4.0] * guided + [1.0] * (4 - guided)
    assert torch.equal(variance, torch.ones_like(variance)), "the variance is the label's"


@pytest.mark.parametrize(("mode", "rows"), [(Mode.OFFICIAL, 4), (Mode.SOUND, 2)])
def test_refinement_is_guided_in_the_released_mode_alone(mode: Mode, rows: int) -> None:
    net = tiny_net(stage=Stage.REFINE)
    asker = Asker(Stage.REFINE, net, Request(16, 0, 1, 4, 4, "euler", 4.0, mode=mode), torch.zeros(2, 3, 8, 8))
    evaluation = next(asker.estimate(torch.zeros(2, 3, 8, 8), levels(ScheduleName.FLOW, 4)[0]))
    assert len(evaluation.x) == len(evaluation.times) == len(evaluation.labels) == rows
