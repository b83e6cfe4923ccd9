"""What every detector is: frame features in, moments out, and its own loss between them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from vmr import ops

if TYPE_CHECKING:
    from vmr.data.dataset import Batch


class Detector(nn.Module):
    """Turns frame features [B, N, D] with lengths [B] into moments.

    What ``forward(frames, lengths)`` gives goes into the other methods. Terms of the loss are sums and
    counts, as :class:`vmr.MomentModel` has them.
    """

    def loss_weights(self) -> dict[str, float]:
        """The weight of each term of the loss."""
        raise NotImplementedError

    def loss_counts(self, batch: Batch) -> dict[str, Tensor]:
        """What each term's sum is divided by; follows from the batch alone."""
        raise NotImplementedError

    def loss_sums(self, outputs: Any, batch: Batch) -> dict[str, Tensor]:
        """Each term of the loss as a sum."""
        raise NotImplementedError

    def moments(
        self, outputs: Any, lengths: Tensor, row_seconds: Tensor, k: int
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The best moments of each sample.

        Args:
            outputs: What ``forward`` gave.
            lengths: [B] frames.
            row_seconds: [B] seconds from one frame to the next.
            k: How many at most.

        Returns:
            [B, K, 2] (start s, end s), best first; [B, K] their scores; [B] how many there are.
        """
        raise NotImplementedError


def best_apart(
    spans: Tensor, scores: Tensor, counts: Tensor, *, iou: float, k: int
) -> tuple[Tensor, Tensor, Tensor]:
    """The best of overlapping candidates, as :meth:`Detector.moments` returns them.

    Args:
        spans: [B, P, 2] (start, end).
        scores: [B, P]; NaN is never taken.
        counts: [B] candidates.
        iou: Those that overlap a better one by more are left out.
        k: How many at most.
    """
    kept, found = ops.span_nms(spans, scores, counts, iou_threshold=iou, top_k=k)
    places = kept.clamp(min=0)
    return spans.gather(1, places[..., None].expand(-1, -1, 2)), scores.gather(1, places), found
