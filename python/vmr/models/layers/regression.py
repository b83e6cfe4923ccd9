"""Boundary regression: every frame says whether it is in a moment, and how far its two ends are."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vmr import ops
from vmr.models.layers.detector import Detector, best_apart
from vmr.models.layers.padding import row_mask, without_padding
from vmr.models.layers.targets import Windows, relative_windows, rows_in_windows
from vmr.reference.common import widened

if TYPE_CHECKING:
    from vmr.data.dataset import Batch

KERNEL, LAYERS = 3, 3


class FrameSpans(NamedTuple):
    """What each frame says.

    Attributes:
        logits: [B, N] of being in a moment; without meaning in the padding.
        spans: [B, N, 2] (start, end) of that moment in parts of the video, around the frame's middle;
            likewise.
    """

    logits: Tensor
    spans: Tensor


class RowConvolutions(nn.Module):
    """1D convolutions over the frames with ReLU between them: [B, N, D] to [B, N, outputs].

    Frames in the padding are zeros before every layer, as the places beyond the last frame are.

    Args:
        columns: D, between layers too.
        outputs: Columns that come out.
    """

    def __init__(self, columns: int, outputs: int) -> None:
        super().__init__()
        widths = [*[columns] * LAYERS, outputs]
        self.layers = nn.ModuleList(
            nn.Conv1d(widths[place], widths[place + 1], KERNEL, padding=KERNEL // 2)
            for place in range(LAYERS)
        )

    def forward(self, rows: Tensor, mask: Tensor) -> Tensor:
        """Rows [B, N, D], and which are no padding [B, N]."""
        for place, layer in enumerate(self.layers):
            rows = without_padding(F.relu(rows) if place else rows, mask)
            rows = layer(rows.mT).mT
        return rows


class RegressionDetector(Detector):
    """Every frame proposes the moment that it is in (UniVTG's way; Lin et al., ICCV 2023).

    Two stacks of 1D convolutions give a frame's foreground logit and its distances to the start and the
    end of its moment, in parts of the video. The loss is binary cross-entropy over all frames; and
    smooth L1 and 1 - gIoU over those that are in a window, each against the window whose middle is
    nearest. Answers are the frames' moments by their foreground, after non-maximum suppression.

    Queries without a window that the features cover say nothing.

    Args:
        columns: D of the frames.
        span_weight: Of smooth L1.
        giou_weight: Of 1 - gIoU.
        label_weight: Of the cross-entropy.
        background_weight: Of frames outside all windows, within the cross-entropy.
        nms_iou: Of the suppression.
    """

    def __init__(
        self,
        columns: int,
        *,
        span_weight: float = 10.0,
        giou_weight: float = 1.0,
        label_weight: float = 10.0,
        background_weight: float = 0.1,
        nms_iou: float = 0.7,
    ) -> None:
        super().__init__()
        self.label_head = RowConvolutions(columns, 1)
        self.span_head = RowConvolutions(columns, 2)
        self.weights = {"span": span_weight, "giou": giou_weight, "label": label_weight}
        self.background_weight, self.nms_iou = background_weight, nms_iou

    def forward(self, frames: Tensor, lengths: Tensor) -> FrameSpans:
        """What each frame says.

        Args:
            frames: [B, N, D].
            lengths: [B] frames of each sample, at least 1; what lies beyond changes nothing.
        """
        mask = row_mask(lengths, frames.shape[1])
        logits = self.label_head(frames, mask).squeeze(-1)
        start, end = widened(self.span_head(frames, mask)).sigmoid().unbind(-1)
        middles = _middles(lengths, frames.shape[1]).to(start.dtype)
        return FrameSpans(logits, torch.stack((middles - start, middles + end), dim=-1))

    def loss_weights(self) -> dict[str, float]:
        """``span``, ``giou`` and ``label``."""
        return dict(self.weights)

    def loss_counts(self, batch: Batch) -> dict[str, Tensor]:
        """Frames in a window for ``span`` and ``giou``, all frames for ``label``."""
        windows = relative_windows(batch)
        inside = rows_in_windows(windows, batch.video_lengths, batch.video.shape[1]).any(dim=-1)
        foreground = inside.sum().float()
        rows = (batch.video_lengths * (windows.counts > 0)).sum().float()
        return {"span": foreground, "giou": foreground.clone(), "label": rows}

    def loss_sums(self, outputs: FrameSpans, batch: Batch) -> dict[str, Tensor]:
        """The terms, summed over what :meth:`loss_counts` counts."""
        windows = relative_windows(batch)
        inside, targets = _targets(windows, batch.video_lengths, batch.video.shape[1])
        own = outputs.spans[inside]
        wanted = targets[inside].to(own.dtype)
        counted = row_mask(batch.video_lengths, inside.shape[1]) & (windows.counts > 0)[:, None]
        logits = widened(outputs.logits)[counted]
        labels = inside[counted].to(logits.dtype)
        weights = labels + self.background_weight * (1 - labels)
        return {
            "span": F.smooth_l1_loss(own, wanted, reduction="none").sum(),
            "giou": (1 - ops.span_giou(own, wanted, aligned=True)).sum(),
            "label": F.binary_cross_entropy_with_logits(logits, labels, weights, reduction="sum"),
        }

    @torch.no_grad()
    def moments(
        self, outputs: FrameSpans, lengths: Tensor, row_seconds: Tensor, k: int
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The frames' moments, by their foreground; see :meth:`Detector.moments`."""
        extents = (lengths * row_seconds).float()[:, None, None]
        spans = outputs.spans.float().clamp(0, 1) * extents
        scores = outputs.logits.float().sigmoid()
        return best_apart(spans, scores, lengths, iou=self.nms_iou, k=k)


def _middles(lengths: Tensor, rows: int) -> Tensor:
    """[B, rows] the frames' middles in parts of the video."""
    return (torch.arange(rows, device=lengths.device) + 0.5) / lengths[:, None]


def _targets(windows: Windows, lengths: Tensor, rows: int) -> tuple[Tensor, Tensor]:
    """Which frames are in a window, [B, rows], and the one that each answers for, [B, rows, 2]."""
    # An empty window more, which no frame is in: there may be none at all.
    spans = F.pad(windows.spans, (0, 0, 0, 1))
    inside = rows_in_windows(Windows(spans, windows.counts), lengths, rows)
    away = (_middles(lengths, rows)[..., None] - spans.mean(dim=-1)[:, None]).abs()
    nearest = away.masked_fill(~inside, torch.inf).argmin(dim=-1)
    return inside.any(dim=-1), spans.gather(1, nearest[..., None].expand(-1, -1, 2))
