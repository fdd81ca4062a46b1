"""First weights: a net that starts from another's sees and says what that one did."""

from __future__ import annotations

import pytest
import torch

from models.nn.dit import DiT, sincos_2d
from models.spec import NetSpec, Prediction, ScheduleName, Stage
from models.train.start import Misfit, warm
from tests.tiny import awake, tiny_net

TIMES = torch.tensor([3.0, 700.0])


def net(**changes: object) -> NetSpec:
    """Unconditional, 8 pixels, of the published kind."""
    kind = {"classes": 0, "prediction": Prediction.EPSILON, "schedule": ScheduleName.LINEAR, "input_size": 8}
    return tiny_net(stage=Stage.COARSE).model_copy(update={**kind, **changes})


def noise(channels: int) -> torch.Tensor:
    return torch.randn(2, channels, 8, 8, generator=torch.Generator().manual_seed(0))


def test_a_net_of_the_same_kind_takes_everything() -> None:
    old, new = awake(DiT(net())), DiT(net())
    assert warm(new, old.state_dict()) == ()
    assert torch.equal(new(noise(3), TIMES), old(noise(3), TIMES))


def test_a_widened_net_first_sees_what_the_old_one_saw() -> None:
    old, new = awake(DiT(net())), DiT(net(in_channels=6))
    assert warm(new, old.state_dict()) == ("patch convolution widened from 3 to 6 channels with zeros",)
    x = noise(6)
    torch.testing.assert_close(new(x, TIMES), old(x[:, :3], TIMES), rtol=1e-6, atol=1e-6)
    assert new.x_embedder.proj.weight.requires_grad


def test_variance_channels_come_and_go() -> None:
    plain, learned = awake(DiT(net())), DiT(net(out_channels=6, learned_variance=True))
    assert warm(learned, plain.state_dict()) == ("variance channels added at zero",) * 2
    out = learned(noise(3), TIMES)
    torch.testing.assert_close(out[:, :3], plain(noise(3), TIMES))
    assert not out[:, 3:].any()
    awake(learned, seed=1)
    again = DiT(net())
    assert warm(again, learned.state_dict()) == ("variance channels left out",) * 2
    torch.testing.assert_close(again(noise(3), TIMES), learned(noise(3), TIMES)[:, :3])


def test_the_table_of_classes_stays_only_where_it_fits() -> None:
    old = awake(DiT(net(classes=5)))
    same, other, none = (DiT(net(classes=classes)) for classes in (5, 2, 0))
    labels = torch.tensor([0, 4])
    assert warm(same, old.state_dict()) == ()
    assert torch.equal(same(noise(3), TIMES, labels), old(noise(3), TIMES, labels))
    assert warm(other, old.state_dict()) == warm(none, old.state_dict()) == ("table of 5 classes left out",)
    assert other.y_embedder is not None
    assert other.y_embedder.embedding_table.weight.shape[0] == 3


def test_the_positional_table_is_kept_or_made_anew_for_another_size() -> None:
    old = awake(DiT(net(input_size=16)))
    new = DiT(net())
    assert warm(new, old.state_dict()) == ("positional table of 64 places replaced by DiT's for 4 x 4",)
    assert torch.equal(new.pos_embed[0], sincos_2d(32, 4))


def test_half_precision_weights_become_single() -> None:
    new = DiT(net())
    warm(new, {key: tensor.half() for key, tensor in awake(DiT(net())).state_dict().items()})
    assert {tensor.dtype for tensor in new.state_dict().values()} == {torch.float32}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"width": 64}, r"x_embedder.proj.weight: found shape \(32, 3, 2, 2\), expected \(64, 3, 2, 2\).*--preset"),
        ({"depth": 4}, r"blocks.3.attn.qkv.weight: found no such tensor"),
        ({"depth": 1}, r"blocks.1.adaLN_modulation.1.bias: found shape \(192,\), expected no such tensor"),
    ],
)
def test_weights_of_another_size_are_refused(change: dict[str, object], message: str) -> None:
    with pytest.raises(Misfit, match=message):
        warm(DiT(net(**change)), awake(DiT(net())).state_dict())
