"""DETR's transformer on padded rows (Carion et al., ECCV 2020): only queries and keys know positions."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vmr.ops import activated_dropout, residual_dropout

Activation = Literal["relu", "prelu"]

_PART = 1024  # rows
Rules = dict[str, tuple[bool, str]]


def transformer_rules(
    *, hidden: int, heads: int, dropout: float, input_dropout: float, round_to: float | None
) -> Rules:
    """What settings that models on these layers share have to be, for :func:`vmr.errors.require`."""
    rules: Rules = {
        "dropout": (0 <= dropout < 1, "from 0 to below 1"),
        "input_dropout": (0 <= input_dropout < 1, "from 0 to below 1"),
        "round_to": (round_to is None or round_to > 0, "seconds above 0, or None"),
        "heads": (heads >= 1, "at least 1"),
        "hidden": (hidden >= 1, "at least 1"),
    }
    if heads >= 1:
        fits = hidden > 0 and hidden % heads == 0 and hidden % 2 == 0
        rules["hidden"] = (fits, f"an even multiple of heads ({heads})")
    return rules


class FeedForward(nn.Sequential):
    """Linear, ReLU or PReLU, dropout, linear: [..., D] to [..., D]."""

    def __init__(
        self, columns: int, hidden: int, dropout: float, activation: Activation = "relu"
    ) -> None:
        super().__init__(
            nn.Linear(columns, hidden),
            nn.ReLU() if activation == "relu" else nn.PReLU(),
            nn.Dropout(dropout),
            nn.Linear(hidden, columns),
        )

    def forward(self, rows: Tensor) -> Tensor:
        """Rows [..., D]."""
        traced = torch.compiler.is_compiling()
        if rows.device.type != "cpu" or torch.is_grad_enabled() or traced:
            return self._through(rows)
        # In parts, whose hidden layer stays in the cache.
        parts = torch.split(rows.reshape(-1, rows.shape[-1]), _PART)
        return torch.cat([self._through(part) for part in parts]).view(rows.shape)

    def _through(self, rows: Tensor) -> Tensor:
        widen, activation, dropout, narrow = self
        slope = activation.weight if isinstance(activation, nn.PReLU) else None
        probability = probability_of(dropout)
        found: Tensor = narrow(activated_dropout(widen(rows), slope, probability=probability))
        return found


def probability_of(dropout: nn.Module) -> float:
    """What a dropout module drops by now: nothing but in training."""
    assert isinstance(dropout, nn.Dropout)
    return dropout.p if dropout.training else 0.0


class Attention(nn.Module):
    """Multi-head attention whose values may come from other rows than its queries and keys.

    The parameters are those of :class:`torch.nn.MultiheadAttention`, by name and shape. It is faster
    where queries and keys are the same rows: they are projected in one product, and batches are not
    turned over.

    Args:
        columns: D.
        heads: Of which each has D / heads columns.
        dropout: Of the weights.
    """

    def __init__(self, columns: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads, self.dropout = heads, dropout
        self.in_proj_weight = nn.Parameter(torch.empty(3 * columns, columns))
        self.in_proj_bias = nn.Parameter(torch.zeros(3 * columns))
        self.out_proj = nn.Linear(columns, columns)
        nn.init.xavier_uniform_(self.in_proj_weight)
        nn.init.zeros_(self.out_proj.bias)

    def forward(
        self, queries: Tensor, keys: Tensor, values: Tensor, padding: Tensor | None = None
    ) -> Tensor:
        """What the queries find.

        Args:
            queries: [B, Q, D].
            keys: [B, N, D].
            values: [B, N, D].
            padding: [B, N], where keys and values are padding; None for nowhere. [B, heads, Q, N] says
                it for each query.

        Returns:
            [B, Q, D].
        """
        if keys is queries:
            query, key = self.projected(queries, 0, 2).chunk(2, dim=-1)
        else:
            query, key = self.projected(queries, 0, 1), self.projected(keys, 1, 2)
        return self.attended(query, key, self.projected(values, 2, 3), padding)

    def projected(self, rows: Tensor, first: int, last: int) -> Tensor:
        """Rows [B, N, D] as queries (0), keys (1) and values (2), from ``first`` to before ``last``."""
        columns = rows.shape[-1]
        part = slice(first * columns, last * columns)
        return F.linear(rows, self.in_proj_weight[part], self.in_proj_bias[part])

    def attended(self, query: Tensor, key: Tensor, value: Tensor, padding: Tensor | None) -> Tensor:
        """What projected queries find, [B, Q, D]."""
        if padding is not None and padding.dim() == 2:
            padding = padding[:, None, None]
        found = F.scaled_dot_product_attention(
            by_head(query, self.heads),
            by_head(key, self.heads),
            by_head(value, self.heads),
            attn_mask=None if padding is None else ~padding,
            dropout_p=self.dropout if self.training else 0.0,
        )
        out: Tensor = self.out_proj(found.transpose(1, 2).flatten(2))
        return out


def by_head(rows: Tensor, heads: int) -> Tensor:
    """[B, N, D] as [B, heads, N, D / heads]."""
    return rows.reshape(*rows.shape[:-1], heads, -1).transpose(1, 2)


class EncoderLayer(nn.Module):
    """Self-attention and feed-forward network, each with a residual and a LayerNorm after it.

    Args:
        columns: D.
        heads: Of the attention.
        hidden: Columns inside the feed-forward network.
        dropout: Of attention weights, of the network, and of both before they are added.
        activation: Of the network.
    """

    def __init__(
        self,
        columns: int,
        heads: int,
        hidden: int,
        dropout: float,
        activation: Activation = "relu",
    ) -> None:
        super().__init__()
        self.attention = Attention(columns, heads, dropout)
        self.feed_forward = FeedForward(columns, hidden, dropout, activation)
        self.norms = nn.ModuleList(nn.LayerNorm(columns) for _ in range(2))
        self.dropout = nn.Dropout(dropout)

    def forward(self, rows: Tensor, padding: Tensor, positions: Tensor) -> Tensor:
        """Rows [B, N, D], where they are padding [B, N], their positions [B, N, D]: [B, N, D]."""
        placed = rows + positions
        return self.added(rows, self.attention(placed, placed, rows, padding))

    def added(self, rows: Tensor, found: Tensor) -> Tensor:
        """What follows attention, of rows [B, N, D] and what they found: [B, N, D]."""
        dropped = probability_of(self.dropout)
        rows = self.norms[0](residual_dropout(rows, found, probability=dropped))
        found = self.feed_forward(rows)
        out: Tensor = self.norms[1](residual_dropout(rows, found, probability=dropped))
        return out


class DecoderLayer(nn.Module):
    """Self-attention between slots, attention to the memory, and a feed-forward network.

    Args:
        columns: D.
        heads: Of both attentions.
        hidden: Columns inside the feed-forward network.
        dropout: As in :class:`EncoderLayer`.
    """

    def __init__(self, columns: int, heads: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.self_attention = Attention(columns, heads, dropout)
        self.cross_attention = Attention(columns, heads, dropout)
        self.feed_forward = FeedForward(columns, hidden, dropout)
        self.norms = nn.ModuleList(nn.LayerNorm(columns) for _ in range(3))
        self.dropout = nn.Dropout(dropout)

    def forward(
        self, slots: Tensor, slot_positions: Tensor, memory: Tensor, keys: Tensor, padding: Tensor
    ) -> Tensor:
        """A layer's turn.

        Args:
            slots: [B, Q, D].
            slot_positions: [B, Q, D], added to queries and keys.
            memory: [B, N, D], the values of the second attention.
            keys: [B, N, D], the memory with its positions.
            padding: [B, N], where the memory is padding.

        Returns:
            [B, Q, D].
        """
        dropped = probability_of(self.dropout)
        placed = slots + slot_positions
        found = self.self_attention(placed, placed, slots)
        slots = self.norms[0](residual_dropout(slots, found, probability=dropped))
        found = self.cross_attention(slots + slot_positions, keys, memory, padding)
        slots = self.norms[1](residual_dropout(slots, found, probability=dropped))
        found = self.feed_forward(slots)
        out: Tensor = self.norms[2](residual_dropout(slots, found, probability=dropped))
        return out


class Encoder(nn.Module):
    """Encoder layers one after the other; arguments as of :class:`EncoderLayer`."""

    def __init__(
        self,
        columns: int,
        heads: int,
        hidden: int,
        dropout: float,
        *,
        layers: int,
        activation: Activation = "relu",
    ) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            EncoderLayer(columns, heads, hidden, dropout, activation) for _ in range(layers)
        )
        xavier(self)

    def forward(self, rows: Tensor, padding: Tensor, positions: Tensor) -> Tensor:
        """As :meth:`EncoderLayer.forward`."""
        for layer in self.layers:
            rows = layer(rows, padding, positions)
        return rows


class Decoder(nn.Module):
    """Decoder layers one after the other, from slots of zeros; arguments as of :class:`DecoderLayer`."""

    def __init__(
        self, columns: int, heads: int, hidden: int, dropout: float, *, layers: int
    ) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            DecoderLayer(columns, heads, hidden, dropout) for _ in range(layers)
        )
        self.norm = nn.LayerNorm(columns)
        xavier(self)

    def forward(
        self, slot_positions: Tensor, memory: Tensor, positions: Tensor, padding: Tensor
    ) -> Tensor:
        """What every layer says.

        Args:
            slot_positions: [Q, D], learned.
            memory: [B, N, D].
            positions: [B, N, D] of the memory.
            padding: [B, N], where it is padding.

        Returns:
            [layers, B, Q, D], each after the one LayerNorm that all layers share.
        """
        placed = slot_positions.expand(len(memory), -1, -1)
        slots = torch.zeros_like(placed)
        keys = memory + positions
        said = []
        for layer in self.layers:
            slots = layer(slots, placed, memory, keys, padding)
            said.append(self.norm(slots))
        return torch.stack(said)


def xavier(module: nn.Module) -> None:
    """Draws all matrices of a module anew, uniformly by Glorot's rule, as DETR does."""
    for parameter in module.parameters():
        if parameter.dim() > 1:
            nn.init.xavier_uniform_(parameter)
