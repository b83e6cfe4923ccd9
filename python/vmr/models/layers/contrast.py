"""An encoder that reads the same frames with several sentences (BM-DETR's eqs. 2 and 3)."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from vmr.models.layers.kept_rows import JoinedRows, KeptRows
from vmr.models.layers.projection import Mlp
from vmr.models.layers.transformer import Activation, EncoderLayer, xavier


class Contrasted(NamedTuple):
    """What a :class:`ContrastEncoder` says.

    Attributes:
        memory: [P, T + L, D], frames and tokens of the first sentences; what lies in the padding has no
            meaning.
        against: [(K - 1) * P, T, D], frames with the other sentences; None where K is 1.
        mask: [P, T + L], what of the memory is no padding.
    """

    memory: Tensor
    against: Tensor | None
    mask: Tensor


class ContrastEncoder(nn.Module):
    """Encoder layers whose positions are scaled by what the rows hold, as DAB-DETR has it.

    ::

        layer(rows, positions * MLP(rows))

    with one network for all layers (Liu et al., ICLR 2022). Frames have positions, tokens have none. A
    sample is read with K sentences, of which only the first's tokens are asked for: what the first layer
    does to frames before they meet a sentence is done once, the last layer does nothing to tokens that
    nobody reads, and nothing is done to padding.

    Args:
        columns: D.
        heads: Of the attentions.
        hidden: Columns inside the feed-forward networks.
        dropout: As in :class:`EncoderLayer`.
        layers: How many.
        activation: Of the feed-forward networks.
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
    ) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            EncoderLayer(columns, heads, hidden, dropout, activation) for _ in range(layers)
        )
        self.position_scale = Mlp(columns, columns, columns, layers=2)
        xavier(self)

    def forward(
        self, frames: Tensor, positions: Tensor, seen: KeptRows, tokens: Tensor, read: KeptRows
    ) -> Contrasted:
        """Reads P samples with K sentences each.

        Args:
            frames: [F, D] rows that ``seen`` keeps of [P, T].
            positions: [F, D].
            seen: Frames.
            tokens: [W, D] rows that ``read`` keeps of [K * P, L].
            read: Tokens, first of the first sentences.
        """
        passes = len(seen.mask)
        several = len(read.mask) // passes
        shown = KeptRows(seen.mask.repeat(several, 1))
        both = JoinedRows(shown, read)
        padding = ~both.mask
        own_frames, own_tokens = len(frames), read.first(passes)
        everything = own_frames * several
        places = positions.repeat(several, 1)
        rows = torch.cat((frames.repeat(several, 1), tokens))
        own = both if several == 1 else JoinedRows(seen, KeptRows(read.mask[:passes]))
        for number, layer in enumerate(self.layers):
            assert isinstance(layer, EncoderLayer)
            attention, shared = layer.attention, number == 0 and several > 1
            # What all sentences share stands once before the tokens in the first layer.
            held = torch.cat((frames, tokens)) if shared else rows
            at = positions if shared else places
            scaled = at * self.position_scale(held[: len(at)])
            asked = torch.cat((held[: len(at)] + scaled, held[len(at) :]))
            query, key = attention.projected(asked, 0, 2).chunk(2, dim=-1)
            value = attention.projected(held, 2, 3)
            if shared:
                query, key, value = (
                    torch.cat((part[:own_frames].repeat(several, 1), part[own_frames:]))
                    for part in (query, key, value)
                )
            key, value = both.together(key), both.together(value)
            if several == 1 or number < len(self.layers) - 1:
                found = attention.attended(both.together(query), key, value, padding)
                rows = layer.added(rows, both.apart(found))
                continue
            # Of the last layer: all rows with the first sentence, frames alone with the others.
            rows, query = (part[: everything + own_tokens] for part in (rows, query))
            mine = torch.cat((query[:own_frames], query[everything:]))
            others = KeptRows(shown.mask[passes:])
            first = own.apart(
                attention.attended(
                    own.together(mine), key[:passes], value[:passes], padding[:passes]
                )
            )
            rest = others.taken(
                attention.attended(
                    others.put_back(query[own_frames:everything]),
                    key[passes:],
                    value[passes:],
                    padding[passes:],
                )
            )
            rows = layer.added(rows, torch.cat((first[:own_frames], rest, first[own_frames:])))
            against = others.put_back(rows[own_frames:everything])
            rows = torch.cat((rows[:own_frames], rows[everything:]))
        memory = own.together(rows)
        return Contrasted(memory, against if several > 1 else None, own.mask)
