"""2D temporal adjacent network: every pair (first frame, last frame) is a candidate on a map."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vmr import ops
from vmr.errors import InputError
from vmr.models.layers.detector import Detector, best_apart
from vmr.models.layers.padding import row_mask, without_padding
from vmr.models.layers.targets import relative_windows
from vmr.reference.common import widened

if TYPE_CHECKING:
    from vmr.data.dataset import Batch


class MapDetector(Detector):
    """Scores every interval of frames (the way of 2D-TAN; Zhang et al., AAAI 2020).

    An interval from frame i to frame j has the maximum of its frames' features; neighbouring intervals
    see each other through 2D convolutions; each gets a logit. The loss is binary cross-entropy against
    the interval's largest IoU with a window, scaled so that ``lowest`` is 0 and ``highest`` is 1.
    Answers are intervals by their score, after non-maximum suppression.

    Two things are left out of the published network: the sentence, which it multiplies onto the map, is
    in the frames already; and all intervals are candidates, not fewer of the longer ones.

    Queries without a window that the features cover say nothing. It needs memory for N x N x channels
    numbers a sample and layer.

    Args:
        columns: D of the frames.
        channels: Of the map.
        kernel_size: Of its convolutions, odd.
        layers: How many.
        lowest: IoU that counts as 0.
        highest: IoU that counts as 1.
        nms_iou: Of the suppression.

    Raises:
        InputError: A setting is out of its range.
    """

    def __init__(
        self,
        columns: int,
        *,
        channels: int = 32,
        kernel_size: int = 5,
        layers: int = 3,
        lowest: float = 0.5,
        highest: float = 1.0,
        nms_iou: float = 0.5,
    ) -> None:
        super().__init__()
        if kernel_size < 1 or kernel_size % 2 == 0:
            raise InputError(f"MapDetector: kernel_size: expected an odd number, got {kernel_size}")
        if not 0 <= lowest < highest <= 1:
            raise InputError(
                f"MapDetector: expected 0 <= lowest < highest <= 1, got {lowest} and {highest}"
            )
        self.inputs = nn.Linear(columns, channels)
        self.layers = nn.ModuleList(
            nn.Conv2d(channels, channels, kernel_size, padding=kernel_size // 2)
            for _ in range(layers)
        )
        self.score = nn.Conv2d(channels, 1, 1)
        self.lowest, self.highest, self.nms_iou = lowest, highest, nms_iou

    def forward(self, frames: Tensor, lengths: Tensor) -> Tensor:
        """Logits of all intervals.

        Args:
            frames: [B, N, D].
            lengths: [B] frames of each sample, at least 1; what lies beyond changes nothing.

        Returns:
            [B, N, N]: at (i, j) of the interval from frame i to frame j; what it holds where i > j or in
            the padding has no meaning.
        """
        rows = frames.shape[1]
        outside = ~_candidates(lengths, rows)[:, None]
        # NaN in the padding would reach the gradient of the first layer's weights.
        frames = without_padding(frames, row_mask(lengths, rows))
        columns = F.relu(self.inputs(frames)).mT[:, :, None]
        ahead = torch.ones(rows, rows, dtype=torch.bool, device=frames.device).triu()
        # Row i begins at frame i, so that its running maximum is that of i to j.
        pooled = columns.masked_fill(~ahead, -torch.inf).cummax(dim=-1).values
        maps = pooled.masked_fill(outside, 0.0)
        for layer in self.layers:
            maps = F.relu(layer(maps)).masked_fill(outside, 0.0)
        logits: Tensor = self.score(maps).squeeze(1)
        return logits

    def loss_weights(self) -> dict[str, float]:
        """``overlap``."""
        return {"overlap": 1.0}

    def loss_counts(self, batch: Batch) -> dict[str, Tensor]:
        """Intervals of queries with a window."""
        known = relative_windows(batch).counts > 0
        intervals = batch.video_lengths * (batch.video_lengths + 1) // 2
        return {"overlap": (intervals * known).sum().float()}

    def loss_sums(self, outputs: Tensor, batch: Batch) -> dict[str, Tensor]:
        """The cross-entropy, summed over intervals."""
        windows, rows = relative_windows(batch), batch.video.shape[1]
        spans = _intervals(rows, batch.video.device) / batch.video_lengths[:, None, None]
        # An empty window more: there may be none at all.
        truth = F.pad(windows.spans, (0, 0, 0, 1))
        overlaps = ops.span_iou(spans, truth).amax(dim=-1).reshape(-1, rows, rows)
        wanted = ((overlaps - self.lowest) / (self.highest - self.lowest)).clamp(0, 1)
        counted = _candidates(batch.video_lengths, rows) & (windows.counts > 0)[:, None, None]
        logits = widened(outputs)[counted]
        targets = wanted[counted].to(logits.dtype)
        return {
            "overlap": F.binary_cross_entropy_with_logits(logits, targets, reduction="sum"),
        }

    @torch.no_grad()
    def moments(
        self, outputs: Tensor, lengths: Tensor, row_seconds: Tensor, k: int
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The intervals by their score; see :meth:`Detector.moments`."""
        rows = outputs.shape[1]
        scores = outputs.float().sigmoid().masked_fill(~_candidates(lengths, rows), torch.nan)
        spans = _intervals(rows, outputs.device) * row_seconds.float()[:, None, None]
        counts = torch.full_like(lengths, rows * rows)
        return best_apart(spans, scores.flatten(1), counts, iou=self.nms_iou, k=k)


def _candidates(lengths: Tensor, rows: int) -> Tensor:
    """[B, rows, rows] truth values: i <= j, both within the video."""
    ordered = torch.ones(rows, rows, dtype=torch.bool, device=lengths.device).triu()
    return ordered & row_mask(lengths, rows)[:, None]


def _intervals(rows: int, device: torch.device) -> Tensor:
    """[rows * rows, 2] from the start of frame i to the end of frame j, in frames; j runs faster."""
    places = torch.arange(rows, device=device, dtype=torch.float32)
    first, last = torch.meshgrid(places, places + 1, indexing="ij")
    return torch.stack((first, last), dim=-1).flatten(0, 1)
