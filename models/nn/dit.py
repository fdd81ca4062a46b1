"""The plain Diffusion Transformer (Peebles & Xie 2023) with the published state-dict keys and shapes.

The forward pass has two halves. `modulation(t, label)` makes every adaLN row of the net at once, from the time and
the label alone; `denoise(x, modulation)` is the rest and knows neither. A server computes the first half once per
(t, label) and feeds it as an input, which drops a third of the weights from the hot path; `forward` joins both for
training. Patches are embedded by unfold + linear, which is bitwise the same for every batch size.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.spec import Dialect, NetSpec

TIME_FEATURES = 256
MAX_PERIOD = 10_000.0
FREQUENCY_SPAN = {Dialect.PUBLISHED: TIME_FEATURES // 2, Dialect.DIFFUSERS: TIME_FEATURES // 2 - 1}
"""S: the frequencies of the time features are MAX_PERIOD^(-k/S)."""
MLP_NORM_EPS = {Dialect.PUBLISHED: 1e-6, Dialect.DIFFUSERS: 1e-5}


class DiT(nn.Module):
    """A DiT over square images: (B, C, S, S), time and label -> (B, out_channels, S, S)."""

    def __init__(self, spec: NetSpec) -> None:
        """Build with the published initialisation: adaLN and output layers start at zero."""
        super().__init__()
        self.spec = spec
        self.x_embedder = PatchEmbed(in_channels=spec.in_channels, width=spec.width, patch=spec.patch)
        self.pos_embed = nn.Parameter(sincos_2d(spec.width, spec.input_size // spec.patch)[None])
        self.t_embedder = TimestepEmbedder(spec.width, dialect=spec.dialect)
        self.y_embedder = LabelEmbedder(spec.classes, spec.width) if spec.classes else None
        self.blocks = nn.ModuleList(Block(spec.width, spec.heads, dialect=spec.dialect) for _ in range(spec.depth))
        self.final_layer = FinalLayer(spec.width, spec.patch, spec.out_channels)
        self._initialise()

    def forward(self, x: Tensor, t: Tensor, label: Tensor | None = None) -> Tensor:
        """(B, C, S, S), net times (B,), labels (B,) -> (B, out_channels, S, S)."""
        return self.denoise(x, self.modulation(t, label))

    def modulation(self, t: Tensor, label: Tensor | None = None) -> Tensor:
        """Net times (B,) and labels (B,) -> adaLN rows (B, 6*depth + 2, D): six per block, then the final two."""
        c = self.t_embedder(t)
        if self.y_embedder is not None:
            null = torch.full(t.shape, self.spec.classes, dtype=torch.long, device=t.device)
            c = c + self.y_embedder(null if label is None else label)
        c = F.silu(c)
        rows = [layer.rows(c) for layer in self._modulated()]
        return torch.cat(rows, dim=1).reshape(len(c), -1, self.spec.width)

    def denoise(self, x: Tensor, modulation: Tensor) -> Tensor:
        """(B, C, S, S) and adaLN rows (B, 6*depth + 2, D) -> (B, out_channels, S, S)."""
        return self._drawn(self._through(range(self.spec.depth), self._embedded(x), modulation), modulation)

    def denoise_keeping(self, x: Tensor, modulation: Tensor) -> tuple[Tensor, Tensor]:
        """The same, and what the deep blocks (all but the first and the last) added to the tokens: (B, T, D)."""
        shallow = self._through(range(1), self._embedded(x), modulation)
        deep = self._through(self._deep, shallow, modulation)
        return self._drawn(self._through(self._last, deep, modulation), modulation), deep - shallow

    def denoise_reusing(self, x: Tensor, modulation: Tensor, deep: Tensor) -> Tensor:
        """The same with what the deep blocks added at another time, instead of running them."""
        tokens = self._through(range(1), self._embedded(x), modulation) + deep
        return self._drawn(self._through(self._last, tokens, modulation), modulation)

    @property
    def _deep(self) -> range:
        return range(1, self.spec.depth - 1)

    @property
    def _last(self) -> range:
        return range(max(1, self.spec.depth - 1), self.spec.depth)

    def _embedded(self, x: Tensor) -> Tensor:
        tokens: Tensor = self.x_embedder(x) + self.pos_embed
        return tokens

    def _through(self, which: range, tokens: Tensor, modulation: Tensor) -> Tensor:
        for index in which:
            tokens = self.blocks[index](tokens, modulation[:, 6 * index : 6 * index + 6])
        return tokens

    def _drawn(self, tokens: Tensor, modulation: Tensor) -> Tensor:
        patches = self.final_layer(tokens, modulation[:, -2:])
        return unpatchify(patches, patch=self.spec.patch, channels=self.spec.out_channels)

    def _modulated(self) -> list[Block | FinalLayer]:
        return [*(block for block in self.blocks if isinstance(block, Block)), self.final_layer]

    def _initialise(self) -> None:
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                nn.init.zeros_(module.bias)
        weight = self.x_embedder.proj.weight
        nn.init.xavier_uniform_(weight.view(weight.shape[0], -1))
        nn.init.zeros_(self.x_embedder.bias)
        for parameter in self.t_embedder.mlp.parameters():
            if parameter.ndim > 1:
                nn.init.normal_(parameter, std=0.02)
        if self.y_embedder is not None:
            nn.init.normal_(self.y_embedder.embedding_table.weight, std=0.02)
        silent = [*(layer.adaLN_modulation for layer in self._modulated()), self.final_layer.linear]
        for parameter in (parameter for layer in silent for parameter in layer.parameters()):
            nn.init.zeros_(parameter)


class PatchEmbed(nn.Module):
    """(B, C, S, S) -> (B, T, D). Holds a convolution's weights, applies them as unfold + linear."""

    def __init__(self, *, in_channels: int, width: int, patch: int) -> None:
        super().__init__()
        self.patch = patch
        self.proj = nn.Conv2d(in_channels, width, kernel_size=patch, stride=patch)

    def forward(self, x: Tensor) -> Tensor:
        """Tokens in raster order."""
        patch, (batch, channels, height, width) = self.patch, x.shape
        x = x.reshape(batch, channels, height // patch, patch, width // patch, patch)
        x = x.permute(0, 2, 4, 1, 3, 5).reshape(batch, -1, channels * patch * patch)  # (B, T, C*p*p)
        return F.linear(x, self.proj.weight.flatten(1), self.bias)

    @property
    def bias(self) -> Tensor:
        """Of the projection, (D,)."""
        assert self.proj.bias is not None
        return self.proj.bias


class TimestepEmbedder(nn.Module):
    """Net times (B,) -> (B, D), through 256 features [cos | sin] with periods up to 10000."""

    def __init__(self, width: int, *, dialect: Dialect = Dialect.PUBLISHED) -> None:
        super().__init__()
        self.span = FREQUENCY_SPAN[dialect]
        self.mlp = nn.Sequential(nn.Linear(TIME_FEATURES, width), nn.SiLU(), nn.Linear(width, width))

    def forward(self, t: Tensor) -> Tensor:
        """Features in float32 whatever the precision of the rest."""
        order = torch.arange(TIME_FEATURES // 2, dtype=torch.float32, device=t.device)
        angles = t.float()[:, None] * torch.exp(-math.log(MAX_PERIOD) * order / self.span)
        features = torch.cat([angles.cos(), angles.sin()], dim=1)
        embedded: Tensor = self.mlp(features.to(next(self.mlp.parameters()).dtype))
        return embedded


class LabelEmbedder(nn.Module):
    """Labels (B,) -> (B, D); the row after the last class is the null label."""

    def __init__(self, classes: int, width: int) -> None:
        super().__init__()
        self.embedding_table = nn.Embedding(classes + 1, width)

    def forward(self, label: Tensor) -> Tensor:
        """One row per label."""
        row: Tensor = self.embedding_table(label)
        return row


class Attention(nn.Module):
    """Multi-head self-attention over all tokens, without qk normalisation."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, D) -> (B, T, D)."""
        batch, tokens, width = x.shape
        qkv = self.qkv(x).reshape(batch, tokens, 3, self.heads, width // self.heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)  # each (B, heads, T, D/heads)
        x = F.scaled_dot_product_attention(q, k, v)
        joined: Tensor = self.proj(x.transpose(1, 2).reshape(batch, tokens, width))
        return joined


class Mlp(nn.Module):
    """Two linear layers with a tanh-approximated GELU between them."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, 4 * width)
        self.fc2 = nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, D) -> (B, T, D)."""
        out: Tensor = self.fc2(F.gelu(self.fc1(x), approximate="tanh"))
        return out


class Block(nn.Module):
    """A transformer block whose norms are shifted, scaled and gated by six rows (adaLN-Zero)."""

    def __init__(self, width: int, heads: int, *, dialect: Dialect = Dialect.PUBLISHED) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width, elementwise_affine=False, eps=1e-6)
        self.attn = Attention(width, heads)
        self.norm2 = nn.LayerNorm(width, elementwise_affine=False, eps=MLP_NORM_EPS[dialect])
        self.mlp = Mlp(width)
        self.adaLN_modulation = nn.Sequential(nn.SiLU(), nn.Linear(width, 6 * width))

    def forward(self, x: Tensor, rows: Tensor) -> Tensor:
        """(B, T, D) and rows (B, 6, D): shift, scale, gate of the attention, then of the MLP."""
        shift, scale, gate, shift_mlp, scale_mlp, gate_mlp = rows[:, :, None, :].unbind(1)  # each (B, 1, D)
        x = x + gate * self.attn(self.norm1(x) * (1 + scale) + shift)
        out: Tensor = x + gate_mlp * self.mlp(self.norm2(x) * (1 + scale_mlp) + shift_mlp)
        return out

    def rows(self, c: Tensor) -> Tensor:
        """Activated condition (B, D) -> this block's rows, flat (B, 6*D)."""
        flat: Tensor = self.adaLN_modulation[1](c)
        return flat


class FinalLayer(nn.Module):
    """Modulated norm and the projection to patches: (B, T, D) -> (B, T, p*p*C)."""

    def __init__(self, width: int, patch: int, channels: int) -> None:
        super().__init__()
        self.norm_final = nn.LayerNorm(width, elementwise_affine=False, eps=1e-6)
        self.linear = nn.Linear(width, patch * patch * channels)
        self.adaLN_modulation = nn.Sequential(nn.SiLU(), nn.Linear(width, 2 * width))

    def forward(self, x: Tensor, rows: Tensor) -> Tensor:
        """Rows (B, 2, D): shift, scale."""
        shift, scale = rows[:, :, None, :].unbind(1)
        patches: Tensor = self.linear(self.norm_final(x) * (1 + scale) + shift)
        return patches

    def rows(self, c: Tensor) -> Tensor:
        """Activated condition (B, D) -> this layer's rows, flat (B, 2*D)."""
        flat: Tensor = self.adaLN_modulation[1](c)
        return flat


def unpatchify(patches: Tensor, *, patch: int, channels: int) -> Tensor:
    """(B, T, p*p*C), channel fastest -> (B, C, S, S), S = p * sqrt(T)."""
    batch, tokens, _ = patches.shape
    side = math.isqrt(tokens)
    x = patches.reshape(batch, side, side, patch, patch, channels)
    return x.permute(0, 5, 1, 3, 2, 4).reshape(batch, channels, side * patch, side * patch)


def sincos_2d(width: int, side: int) -> Tensor:
    """DiT's positional table (side*side, width) on the CPU: column half first, then row; each half [sin | cos].

    Also for a net that is built without memory: there a range alone would load torch's compiler, which takes a second.
    """
    cpu = torch.device("cpu")
    omega = MAX_PERIOD ** -(torch.arange(width // 4, dtype=torch.float64, device=cpu) / (width / 4))
    angles = torch.arange(side, dtype=torch.float64, device=cpu)[:, None] * omega  # (side, D/4)
    axis = torch.cat([angles.sin(), angles.cos()], dim=1)  # (side, D/2)
    columns = axis[None, :, :].expand(side, side, -1)
    rows = axis[:, None, :].expand(side, side, -1)
    return torch.cat([columns, rows], dim=2).reshape(side * side, width).float()
