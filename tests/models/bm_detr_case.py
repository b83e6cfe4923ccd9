"""A small BM-DETR that behaves as the published code, and a batch for it, for tests and tests/golden."""

from __future__ import annotations

import msgspec
import torch
from torch import Tensor

from tests.models.detr_case import TEXT, VIDEO, item, numbers
from vmr.data.dataset import Batch, Item, collate
from vmr.models.bm_detr_config import BMDETRConfig
from vmr.models.layers.shifting import Shift, moved_order

PAPER = BMDETRConfig(
    video_dim=VIDEO,
    text_dim=TEXT,
    hidden=16,
    heads=4,
    encoder_layers=2,
    decoder_layers=2,
    feed_forward=24,
    dropout=0.0,
    input_dropout=0.0,
    moment_queries=4,
    contrastive_dim=8,
)
OFFICIAL = msgspec.structs.replace(
    PAPER,
    decoder_layers=3,
    activation="prelu",
    refine=False,
    reference_epsilon=1e-3,
    decoder_memory="encoded",
    pooling="tanh",
    margin_pairs="sampled",
    semantic_against="all",
    moment_rows="floor",
    shifting="published",
    shift_below=None,
    still_columns=0,
    accuracy_term=True,
    official_padding=True,
    answer_extent="duration",
)


def items() -> list[Item]:
    """Queries as Charades has them: one window, rows of one second."""
    return [
        item("a", 9, 4, [(2, 6)], row_seconds=1.0),
        item("b", 6, 5, [(0.3, 3.2)], row_seconds=1.0),
        item("c", 12, 3, [(7.5, 11.9)], row_seconds=1.0),
    ]


def negatives() -> tuple[Tensor, Tensor]:
    """Tokens [3, 6, TEXT] of negative queries, and their lengths."""
    lengths = torch.tensor([2, 6, 4])
    rows = torch.arange(6) < lengths[:, None]
    return numbers("negatives", 3, 6, TEXT) * rows[..., None], lengths


def shift(of: Batch) -> Shift:
    """The moments' rows moved to rows 3, 1 and 0, as the published code would."""
    first, last = torch.tensor([2, 0, 7]), torch.tensor([5, 2, 10])
    target, block = torch.tensor([3, 1, 0]), last - first + 1
    moved = torch.stack((target, target + block - 1), dim=1)
    return Shift(
        torch.arange(3),
        moved_order(first, block, target, of.video_lengths, of.video.shape[1]),
        moved / of.video_lengths[:, None],
        moved,
    )


PAIRS = torch.tensor([[[2, 4], [0, 8]], [[1, 2], [5, 3]], [[7, 9], [11, 2]]])
SHIFTED_PAIRS = torch.tensor([[[3, 4], [8, 1]], [[1, 1], [0, 4]], [[2, 0], [5, 11]]])
"""[3, 2, 2] rows inside and outside, of the queries and of their copies."""


def batch() -> Batch:
    """The batch of :func:`items`."""
    return collate(items())
