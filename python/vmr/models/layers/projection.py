"""Stacks of linear layers, and the sine encoding of row positions."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn


class InputProjection(nn.Sequential):
    """LayerNorm, dropout and linear layer, several times, with ReLU between them.

    Moment-DETR's way from features to the width of its transformer (Lei et al., NeurIPS 2021):
    [..., inputs] to [..., outputs].

    Args:
        inputs: Columns of the features.
        outputs: Columns that come out.
        layers: How many times.
        dropout: Before each linear layer.
    """

    def __init__(self, inputs: int, outputs: int, *, layers: int, dropout: float) -> None:
        blocks: list[nn.Module] = []
        for layer in range(layers):
            width = inputs if layer == 0 else outputs
            blocks += [nn.LayerNorm(width), nn.Dropout(dropout), nn.Linear(width, outputs)]
            if layer < layers - 1:
                blocks.append(nn.ReLU())
        super().__init__(*blocks)


class Mlp(nn.Sequential):
    """Linear layers with ReLU between them: [..., inputs] to [..., outputs].

    Args:
        inputs: Columns that go in.
        hidden: Columns between two layers.
        outputs: Columns that come out.
        layers: How many linear layers.
    """

    def __init__(self, inputs: int, hidden: int, outputs: int, *, layers: int) -> None:
        widths = [inputs, *[hidden] * (layers - 1), outputs]
        blocks: list[nn.Module] = []
        for place in range(layers):
            blocks += [nn.Linear(widths[place], widths[place + 1]), nn.ReLU()]
        super().__init__(*blocks[:-1])


def sine_positions(
    lengths: Tensor, rows: int, columns: int, *, temperature: float = 10000.0
) -> Tensor:
    """Sine encoding of where a row lies within its sample.

    ::

        p_i = 2 pi i / n,  i = 1 .. n
        e_i[2k] = sin(p_i / T^(2k / D)),  e_i[2k + 1] = cos(p_i / T^(2k / D))

    The position is relative to the sample's own length n (Carion et al., ECCV 2020, in one dimension,
    as Moment-DETR has it), so samples of any length cover the same range.

    Args:
        lengths: [B], n of each sample.
        rows: N of the padded batch.
        columns: D, an even number.
        temperature: T.

    Returns:
        [B, N, D] float32; what stands in the padding has no meaning, and is finite.
    """
    steps = torch.arange(1, rows + 1, device=lengths.device, dtype=torch.float32)
    counts = lengths[:, None].to(torch.float32)
    # The small term is the published code's; it guards a sample of no rows.
    places = torch.minimum(steps[None], counts) / (counts + 1e-6) * (2 * math.pi)
    powers = torch.arange(0, columns, 2, device=lengths.device, dtype=torch.float32) / columns
    angles = places[..., None] / temperature**powers
    return torch.stack((angles.sin(), angles.cos()), dim=-1).flatten(2)
