"""The same nets in others' hands: diffusers' own DiT with the same weights, torch's compiler, and the released loop.

They are here to be compared with; nothing is ever served by them. diffusers is loaded here, and only when asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import torch
from torch import Tensor, nn

from models.checkpoint import transformer2d
from models.engine import EngineUnavailable, Precision
from models.nn.dit import DiT
from models.nn.unmade import unmade
from models.spec import Dialect


class Peer(StrEnum):
    """Who else can run a DiT."""

    DIFFUSERS = "diffusers"
    COMPILED = "torch.compile"
    RELEASED = "released loop"


@dataclass(frozen=True, slots=True)
class Asked:
    """What a net is asked, the way its authors ask it: images at net times with labels, rows of one batch."""

    x: Tensor
    """(n, C, S, S)."""
    times: Tensor
    """(n,)."""
    labels: Tensor
    """(n,)."""


def asked(net: DiT, *, rows: int, device: torch.device, seed: int = 0) -> Asked:
    """Random ones."""
    spec, generator = net.spec, torch.Generator().manual_seed(seed)
    x = torch.randn(rows, spec.in_channels, spec.input_size, spec.input_size, generator=generator)
    times = torch.linspace(999, 1, rows) if rows > 1 else torch.tensor([500.0])
    labels = torch.randint(0, max(1, spec.classes), (rows,), generator=generator)
    return Asked(x.to(device), times.to(device), labels.to(device))


@contextmanager
def as_published() -> Iterator[None]:
    """Products of float32 on a GPU as the published programs have them, in TensorFloat-32."""
    products = torch.backends.cuda.matmul
    before = products.fp32_precision
    products.fp32_precision = "tf32"
    try:
        yield
    finally:
        products.fp32_precision = before


def diffusers_net(net: DiT) -> nn.Module:
    """diffusers' `DiTTransformer2DModel` with the weights of `net`: float32, evaluation mode, on the CPU.

    It agrees with `net` in the dialect of diffusers. A net without labels becomes one whose only label adds nothing.
    `EngineUnavailable` where diffusers is missing.
    """
    try:
        from diffusers import DiTTransformer2DModel
    except ImportError as error:
        raise EngineUnavailable("diffusers is not installed: pip install 'gridit-serve[latent]'") from error
    spec = net.spec
    with unmade():
        theirs: Any = DiTTransformer2DModel(
            num_attention_heads=spec.heads,
            attention_head_dim=spec.width // spec.heads,
            in_channels=spec.in_channels,
            out_channels=spec.out_channels,
            num_layers=spec.depth,
            sample_size=spec.input_size,
            patch_size=spec.patch,
            num_embeds_ada_norm=max(1, spec.classes),
        )
    state = transformer2d.as_diffusers(net.state_dict(), classes=max(1, spec.classes))
    theirs.load_state_dict({key: tensor for key, tensor in state.items() if key in theirs.state_dict()}, assign=True)
    theirs.pos_embed.pos_embed = net.pos_embed.detach().clone()
    module: nn.Module = theirs.eval().requires_grad_(False)
    return module


def as_in_diffusers(net: DiT) -> DiT:
    """The same weights in the dialect of diffusers, whose answers are those of `diffusers_net`."""
    with unmade():
        twin = DiT(net.spec.model_copy(update={"dialect": Dialect.DIFFUSERS}))
    twin.load_state_dict(net.state_dict(), assign=True)
    return twin.eval().requires_grad_(False)


@as_published()
def answer_of_diffusers(theirs: nn.Module, rows: Asked) -> Tensor:
    """(n, out, S, S)."""
    answer: Tensor = theirs(rows.x, timestep=rows.times, class_labels=rows.labels, return_dict=False)[0]
    return answer


def compiled(net: DiT, precision: Precision) -> Callable[[Tensor, Tensor], Tensor]:
    """`net.denoise` by torch's compiler, which works at the first call of each shape; `net` is cast."""
    net.to(precision.dtype)
    made: Callable[[Tensor, Tensor], Tensor] = torch.compile(net.denoise, dynamic=False)
    return made


@as_published()
@torch.inference_mode()
def released(net: DiT, x: Tensor, *, time: float, label: int) -> Tensor:
    """One image (1, C, S, S) as the released loop evaluates it: twice in one batch, everything computed anew.

    Both halves are conditioned alike, so guidance between them changes nothing; it is done all the same.
    """
    both = torch.cat([x, x])
    times = torch.full((2,), time * net.spec.time_scale, device=x.device)
    labels = torch.full((2,), label, dtype=torch.long, device=x.device)
    first, second = net(both, times, labels).chunk(2)
    guided = second[:, :3] + 4.0 * (first[:, :3] - second[:, :3])
    return torch.cat([guided, first[:, 3:]], dim=1)


@as_published()
@torch.inference_mode()
def released_pair(net: DiT, pair: Tensor, *, time: float, labels: Sequence[int]) -> Tensor:
    """Two images (2, C, S, S) with a label each, where guidance is real: one run, everything computed anew."""
    times = torch.full((2,), time * net.spec.time_scale, device=pair.device)
    answer: Tensor = net(pair, times, torch.tensor(labels, device=pair.device))
    return answer
