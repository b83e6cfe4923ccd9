"""DAB-DETR's decoder on spans (Liu et al., ICLR 2022): a slot is a place in time that it reads from."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vmr.models.layers.projection import Mlp
from vmr.models.layers.transformer import (
    Activation,
    FeedForward,
    by_head,
    probability_of,
    xavier,
)
from vmr.ops import residual_dropout
from vmr.reference.common import widened

CENTRE, WIDTH = 0, 1


def logits_of(shares: Tensor, epsilon: float) -> Tensor:
    """The inverse of the sigmoid, of values from 0 to 1: both ends are cut at ``epsilon``."""
    shares = shares.clamp(0, 1)
    return torch.log(shares.clamp(min=epsilon) / (1 - shares).clamp(min=epsilon))


def span_positions(spans: Tensor, columns: int, *, temperature: float = 10000.0) -> Tensor:
    """Sine encoding of spans, half the columns for the width and half for the centre.

    ::

        e[2k] = sin(2 pi x / T^(4k / D)),  e[2k + 1] = cos(2 pi x / T^(4k / D)),  k < D / 4

    Args:
        spans: [..., 2] (centre, width), from 0 to 1.
        columns: D, a multiple of 4.
        temperature: T.

    Returns:
        [..., D], first of the width.
    """
    half = columns // 2
    powers = torch.arange(0, half, 2, device=spans.device, dtype=torch.float32) / half
    angles = spans.flip(-1)[..., None] * (2 * math.pi) / temperature**powers
    return torch.stack((angles.sin(), angles.cos()), dim=-1).flatten(-3)


class PlacedAttention(nn.Module):
    """Attention to the memory, by what a slot holds and by where it is.

    ::

        weights = softmax((q . (K m + P p) + s . P p) / sqrt(2 D / heads))

    with q what the slots ask, s their sine encoding projected, m and p the memory and its positions; the
    first layer's keys hold P p, those of later ones K m alone. No key and no value is ever made: with
    few slots it is cheaper to carry the slots to the memory, q . K m = (K^T q) . m, and to project what
    they found. Keys have no bias: it would add the same to all weights of a slot before the softmax.

    Args:
        columns: D.
        heads: How many.
        dropout: Of the weights.
        first: Whether keys know positions, as those of the first layer do.
    """

    def __init__(self, columns: int, heads: int, dropout: float, *, first: bool) -> None:
        super().__init__()
        self.heads, self.dropout, self.first = heads, dropout, first
        self.query = nn.Linear(columns, columns)
        self.sine = nn.Linear(columns, columns)
        self.key = nn.Linear(columns, columns, bias=False)
        self.position_key = nn.Linear(columns, columns, bias=False)
        self.value = nn.Linear(columns, columns)
        self.out = nn.Linear(columns, columns)
        nn.init.zeros_(self.out.bias)

    def forward(
        self,
        slots: Tensor,
        asked: Tensor,
        sine: Tensor,
        memory: Tensor,
        positions: Tensor,
        padding: Tensor,
    ) -> Tensor:
        """What the slots find.

        Args:
            slots: [B or 1, Q, D].
            asked: [B or 1, Q, D] or 0, added to their queries.
            sine: [B or 1, Q, D], of their spans.
            memory: [B, N, D].
            positions: [B, T, D] of its first T rows; the others have none.
            padding: [B, N], where it is padding.

        Returns:
            [B, Q, D].
        """
        batch, rows = memory.shape[:2]
        placed = positions.shape[1]
        query, place = self.query(slots) + asked, self.sine(sine)
        content = self._carried(query, self.key.weight)
        by_place = self._carried(query + place if self.first else place, self.position_key.weight)
        scale = (2 * memory.shape[-1] / self.heads) ** -0.5
        scores = _heads_apart(content.expand(batch, -1, -1) @ memory.mT, self.heads)
        at_places = by_place.expand(batch, -1, -1) @ positions.mT.to(by_place.dtype)
        scores = scores + _heads_apart(F.pad(at_places, (0, rows - placed)), self.heads)
        scores = (widened(scores) * scale).masked_fill(padding[:, None, None], -torch.inf)
        weights = F.dropout(scores.softmax(dim=-1), self.dropout, self.training).to(memory.dtype)
        found = _heads_apart(weights.flatten(1, 2) @ memory, self.heads)
        # [B, heads, Q, D] of the memory to [B, heads, Q, D / heads] of the values.
        values = _by_heads(found, _of_heads(self.value.weight, self.heads).mT)
        # Dropout leaves weights whose sum is not one.
        total = weights.sum(dim=-1, keepdim=True)
        values = values + total * _of_heads(self.value.bias[:, None], self.heads).mT
        out: Tensor = self.out(values.transpose(1, 2).flatten(2))
        return out

    def _carried(self, queries: Tensor, weight: Tensor) -> Tensor:
        """[B, Q, D] of all heads to [B, heads * Q, D], what a head's part of ``weight`` sends it to."""
        return _by_heads(by_head(queries, self.heads), _of_heads(weight, self.heads)).flatten(1, 2)


def _by_heads(rows: Tensor, weights: Tensor) -> Tensor:
    """[B, heads, Q, X] times [heads, X, Y], one product a head: [B, heads, Q, Y]."""
    batch, heads, slots = rows.shape[:3]
    found = rows.transpose(0, 1).reshape(heads, batch * slots, -1) @ weights
    return found.reshape(heads, batch, slots, -1).transpose(0, 1)


def _of_heads(weight: Tensor, heads: int) -> Tensor:
    """[D, X] as [heads, D / heads, X]."""
    return weight.reshape(heads, -1, weight.shape[-1])


def _heads_apart(rows: Tensor, heads: int) -> Tensor:
    """[B, heads * Q, X] as [B, heads, Q, X]."""
    return rows.reshape(len(rows), heads, -1, rows.shape[-1])


class DabLayer(nn.Module):
    """Self-attention between slots, :class:`PlacedAttention`, and a feed-forward network.

    Args:
        columns: D.
        heads: Of both attentions.
        hidden: Columns inside the feed-forward network.
        dropout: Of attention weights, of the network, and of each before it is added.
        activation: Of the network.
        first: Whether it is the first of its decoder.
    """

    def __init__(
        self,
        columns: int,
        heads: int,
        hidden: int,
        dropout: float,
        activation: Activation,
        *,
        first: bool,
    ) -> None:
        super().__init__()
        self.heads, self.attention_dropout = heads, dropout
        self.query = nn.Linear(columns, columns)
        self.query_position = nn.Linear(columns, columns)
        self.key = nn.Linear(columns, columns)
        self.key_position = nn.Linear(columns, columns)
        self.value = nn.Linear(columns, columns)
        self.out = nn.Linear(columns, columns)
        nn.init.zeros_(self.out.bias)
        self.asked_position = nn.Linear(columns, columns) if first else None
        self.cross_attention = PlacedAttention(columns, heads, dropout, first=first)
        self.feed_forward = FeedForward(columns, hidden, dropout, activation)
        self.norms = nn.ModuleList(nn.LayerNorm(columns) for _ in range(3))
        self.dropout = nn.Dropout(dropout)

    def forward(
        self,
        slots: Tensor,
        places: Tensor,
        sine: Tensor,
        memory: Tensor,
        positions: Tensor,
        padding: Tensor,
    ) -> Tensor:
        """A layer's turn: places [B or 1, Q, D] are the slots' own, the rest as in PlacedAttention."""
        query = self.query(slots) + self.query_position(places)
        key = self.key(slots) + self.key_position(places)
        value = self.value(slots)
        # Slots that are the same for all samples stay one until they meet the memory.
        batch = max(len(query), len(value))
        found = F.scaled_dot_product_attention(
            by_head(query.expand(batch, -1, -1), self.heads),
            by_head(key.expand(batch, -1, -1), self.heads),
            by_head(value.expand(batch, -1, -1), self.heads),
            dropout_p=self.attention_dropout if self.training else 0.0,
        )
        found = self.out(found.transpose(1, 2).flatten(2))
        dropped = probability_of(self.dropout)
        slots = self.norms[0](residual_dropout(slots, found, probability=dropped))
        asked = places.new_zeros(()) if self.asked_position is None else self.asked_position(places)
        found = self.cross_attention(slots, asked, sine, memory, positions, padding)
        slots = self.norms[1](residual_dropout(slots, found, probability=dropped))
        found = self.feed_forward(slots)
        out: Tensor = self.norms[2](residual_dropout(slots, found, probability=dropped))
        return out


class DabDecoder(nn.Module):
    """Decoder layers one after the other, from slots of zeros at learned spans.

    Args:
        columns: D; a multiple of 4.
        heads: Of both attentions.
        hidden: Columns inside the feed-forward networks.
        dropout: As in :class:`DabLayer`.
        layers: How many.
        activation: Of the feed-forward networks.
        epsilon: Where the inverse of the sigmoid is cut, of :func:`logits_of`.
    """

    def __init__(
        self,
        columns: int,
        heads: int,
        hidden: int,
        dropout: float,
        *,
        layers: int,
        activation: Activation = "relu",
        epsilon: float = 1e-5,
    ) -> None:
        super().__init__()
        self.epsilon = epsilon
        self.layers = nn.ModuleList(
            DabLayer(columns, heads, hidden, dropout, activation, first=place == 0)
            for place in range(layers)
        )
        self.norm = nn.LayerNorm(columns)
        self.place_head = Mlp(columns, columns, columns, layers=2)
        # The first layer's encoding is not scaled.
        self.sine_scale = Mlp(columns, columns, columns, layers=2) if layers > 1 else None
        self.width_head = Mlp(columns, columns, 2, layers=2)
        xavier(self)

    def forward(
        self,
        learned: Tensor,
        memory: Tensor,
        positions: Tensor,
        padding: Tensor,
        *,
        refine: Callable[[Tensor], Tensor] | None = None,
    ) -> tuple[Tensor, Tensor]:
        """What every layer says.

        Args:
            learned: [Q, 2] (centre, width) of the slots before the sigmoid.
            memory: [B, N, D].
            positions: [B, T, D] of its first T rows.
            padding: [B, N], where it is padding.
            refine: From slots [B, Q, D] to steps [B, Q, 2] that each layer moves their spans by, before
                the sigmoid; None leaves the spans where they are.

        Returns:
            [layers, B, Q, D] slots, each after the one LayerNorm that all layers share; and [layers, B,
            Q, 2] spans before the sigmoid that each layer began with, B being 1 where they do not move.
        """
        places = learned.sigmoid()[None]
        columns = memory.shape[-1]
        # Where nothing is drawn at random, slots part only when they meet the memory.
        batch = len(memory) if self.training else 1
        slots = memory.new_zeros(batch, len(learned), columns)
        said, began = [], []
        for number, layer in enumerate(self.layers):
            began.append(logits_of(places, self.epsilon))
            sine = span_positions(places, columns)
            own = self.place_head(sine)
            if number and self.sine_scale is not None:
                sine = sine * self.sine_scale(slots)
            widths = self.width_head(slots)[..., :1].sigmoid()
            sine = sine * (widths / places[..., WIDTH:])
            slots = layer(slots, own, sine, memory, positions, padding)
            said.append(self.norm(slots))
            if refine is not None:
                moved = (widened(refine(slots)) + logits_of(places, self.epsilon)).sigmoid()
                places = moved.detach()
        # The first layer may begin with spans that all samples share, and the others with their own.
        spans = torch.stack([logits.expand_as(began[-1]) for logits in began])
        return torch.stack(said), spans
