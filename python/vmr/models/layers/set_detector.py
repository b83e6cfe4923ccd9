"""Moment-DETR's detector on frames alone: learned moment queries read them."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor, nn

from vmr import ops
from vmr.models.layers.detector import Detector
from vmr.models.layers.padding import row_mask, without_padding
from vmr.models.layers.projection import Mlp, sine_positions
from vmr.models.layers.set_prediction import FOREGROUND, SetLoss
from vmr.models.layers.targets import relative_windows
from vmr.models.layers.transformer import Decoder
from vmr.reference.common import widened

if TYPE_CHECKING:
    from vmr.data.dataset import Batch


class SetOutput(NamedTuple):
    """What the moment queries say.

    Attributes:
        spans: [layers, B, Q, 2] (centre, width) in parts of the video; the last layer is the answer.
        logits: [layers, B, Q, 2] of foreground and background.
    """

    spans: Tensor
    logits: Tensor


class SetDetector(Detector):
    """Moments as a set (Moment-DETR's decoder and heads; Lei et al., NeurIPS 2021).

    Args:
        columns: D of the frames; even, and a multiple of ``heads``.
        heads: Of each attention.
        layers: Of the decoder.
        feed_forward: Columns inside the feed-forward networks.
        dropout: In the decoder.
        queries: Moments that it answers with.
    """

    def __init__(
        self,
        columns: int,
        *,
        heads: int = 8,
        layers: int = 2,
        feed_forward: int = 1024,
        dropout: float = 0.1,
        queries: int = 10,
    ) -> None:
        super().__init__()
        self.decoder = Decoder(columns, heads, feed_forward, dropout, layers=layers)
        self.moment_queries = nn.Parameter(torch.randn(queries, columns))
        self.span_head = Mlp(columns, columns, 2, layers=3)
        self.label_head = nn.Linear(columns, 2)
        self.set_loss = SetLoss(slots=queries, layers=layers)

    def forward(self, frames: Tensor, lengths: Tensor) -> SetOutput:
        """What the moment queries say.

        Args:
            frames: [B, N, D].
            lengths: [B] frames of each sample, at least 1; what lies beyond changes nothing.
        """
        rows, columns = frames.shape[1:]
        mask = row_mask(lengths, rows)
        positions = sine_positions(lengths, rows, columns)
        slots = self.decoder(self.moment_queries, without_padding(frames, mask), positions, ~mask)
        return SetOutput(widened(self.span_head(slots)).sigmoid(), self.label_head(slots))

    def loss_weights(self) -> dict[str, float]:
        """``span``, ``giou`` and ``label``, of earlier layers with their number behind."""
        return self.set_loss.weights()

    def loss_counts(self, batch: Batch) -> dict[str, Tensor]:
        """Matched windows, and moment queries."""
        return self.set_loss.counts(relative_windows(batch))

    def loss_sums(self, outputs: SetOutput, batch: Batch) -> dict[str, Tensor]:
        """The terms, summed over what :meth:`loss_counts` counts."""
        windows = relative_windows(batch)
        sums, _ = self.set_loss.sums(outputs.spans, outputs.logits, windows)
        return self.set_loss.by_layer(sums)

    @torch.no_grad()
    def moments(
        self, outputs: SetOutput, lengths: Tensor, row_seconds: Tensor, k: int
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The last layer's moments by their foreground; see :meth:`Detector.moments`."""
        scores = outputs.logits[-1].float().softmax(dim=-1)[..., FOREGROUND]
        count = min(k, scores.shape[1])
        scores, places = scores.topk(count, dim=1)
        extents = (lengths * row_seconds).float()[:, None, None]
        spans = ops.cxw_to_span(outputs.spans[-1].float()).clamp(0, 1) * extents
        spans = spans.gather(1, places[..., None].expand(-1, -1, 2))
        return spans, scores, torch.full_like(lengths, count)
