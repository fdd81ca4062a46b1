"""The nets in others' hands: the same answers, so that times can be compared."""

from __future__ import annotations

import pytest
import torch

from models.bench import peers
from models.checkpoint import transformer2d
from models.nn.dit import DiT
from models.spec import Dialect, Stage
from tests.published import diffusers_net, labelled_net
from tests.tiny import awake, tiny_net

CPU = torch.device("cpu")


def unlabelled() -> DiT:
    return awake(DiT(tiny_net(stage=Stage.REFINE).model_copy(update={"classes": 0})))


@pytest.mark.parametrize("net", [labelled_net(), unlabelled()], ids=["labelled", "unlabelled"])
def test_diffusers_own_net_gives_what_ours_gives_in_its_dialect(net: DiT) -> None:
    question = peers.asked(net, rows=3, device=CPU)
    with torch.inference_mode():
        theirs = peers.answer_of_diffusers(peers.diffusers_net(net), question)
        ours = peers.as_in_diffusers(net)(question.x, question.times, question.labels)
        published = net(question.x, question.times, question.labels)
    torch.testing.assert_close(theirs, ours, rtol=0, atol=1e-5 * float(ours.abs().max()))
    assert net.spec.dialect is Dialect.PUBLISHED
    assert not torch.allclose(theirs, published, rtol=0, atol=1e-5 * float(ours.abs().max()))


def test_there_and_back_are_the_same_tensors() -> None:
    theirs = diffusers_net()
    config = {"_class_name": "DiTTransformer2DModel", "num_attention_heads": 4, "sample_size": 16, "patch_size": 2}
    state = {key: tensor for key, tensor in theirs.state_dict().items() if key != "pos_embed.pos_embed"}
    named = transformer2d.published(state, config=config, where="net")
    back = transformer2d.as_diffusers(named, classes=5)
    assert back.keys() - {"pos_embed.pos_embed"} == state.keys()
    for key, tensor in state.items():
        torch.testing.assert_close(back[key], tensor, rtol=0, atol=0)


@pytest.mark.parametrize("stage", list(Stage))
def test_the_doubled_batch_gives_what_one_row_gives(stage: Stage) -> None:
    net = awake(DiT(tiny_net(stage=stage))).requires_grad_(False)
    question = peers.asked(net, rows=1, device=CPU)
    null = torch.tensor([net.spec.classes])
    found = peers.released(net, question.x, time=0.5, label=net.spec.classes)
    expected = net(question.x, torch.tensor([0.5 * net.spec.time_scale]), null)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5 * float(expected.abs().max()))
