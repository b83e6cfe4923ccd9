"""Temporal spans [start, end]: overlap, suppression, assignment, and the centre-width form."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from vmr.ops._library import register
from vmr.reference import spans as reference


def span_iou(a: Tensor, b: Tensor, *, aligned: bool = False) -> Tensor:
    """Intersection over union of temporal spans: of all pairs, or of aligned pairs.

    ::

        IoU(a, b) = |a and b| / |a or b|

    Spans are (start, end). A reversed span has length 0, and where the union has length 0 the IoU is
    0. A NaN bound gives NaN, and no gradient.

    Args:
        a: [..., N, 2]; float32, float64, float16 or bfloat16 (these two are computed in float32).
        b: [..., M, 2] with the same leading sizes and dtype. N and M may be 0.
        aligned: pair a's i-th span with b's i-th only; then M must be N.

    Returns:
        [..., N, M], or [..., N] where aligned, in the dtype of ``a``. Differentiable; where two bounds
        are equal each has half of the gradient.

    Under autocast: float32.
    """
    return _overlaps(torch.ops.vmr.span_iou, a, b, aligned)


def span_giou(a: Tensor, b: Tensor, *, aligned: bool = False) -> Tensor:
    """Generalised intersection over union of temporal spans: of all pairs, or of aligned pairs.

    ::

        gIoU(a, b) = IoU(a, b) - (|hull| - |a or b|) / |hull|

    in (-1, 1] with the hull the smallest span around both (Rezatofighi et al., CVPR 2019, in one
    dimension). Two equal spans of length 0 have 0, two different ones -1. All else as
    :func:`span_iou`.
    """
    return _overlaps(torch.ops.vmr.span_giou, a, b, aligned)


def span_nms(
    spans: Tensor, scores: Tensor, lengths: Tensor, *, iou_threshold: float, top_k: int
) -> tuple[Tensor, Tensor]:
    """Greedy non-maximum suppression, for each query of a batch.

    Takes the best candidate, drops those whose IoU with it is above ``iou_threshold``, and so on. Of
    equal scores the smaller index comes first. Candidates with a NaN score are never taken.

    Args:
        spans: [Q, P, 2] (start, end); float32, float64, float16 or bfloat16.
        scores: [Q, P] of the same dtype.
        lengths: [Q] int64, how many candidates each query has, 0 to P. What lies beyond changes
            nothing.
        iou_threshold: 0 to 1.
        top_k: how many to keep at most, at least 1.

    Returns:
        ``(indices, counts)``: indices [Q, top_k] int64 into P, best first, -1 after the count;
        counts [Q] int64.

    Not differentiable. Under autocast: float32.
    """
    indices, counts = torch.ops.vmr.span_nms(
        spans.detach(), scores.detach(), lengths, iou_threshold, top_k
    )
    return indices, counts


def assignment(costs: Tensor, counts: Tensor) -> Tensor:
    """The cheapest one-to-one assignment of slots to windows, for each problem of a batch.

    ::

        minimise sum_i costs[slot_i, i]  over the min(Q, count) pairs of a slot and a window

    by shortest augmenting paths (Crouse, IEEE TAES 52(4), 2016). Where a problem has more windows than
    slots, those windows are left out whose absence is cheapest.

    Args:
        costs: [P, Q, M] of Q slots and M windows; float32, float64, float16 or bfloat16. Computed in
            float64. NaN and infinity count as 1e6, minus infinity as -1e6, so that there always is an
            assignment.
        counts: [P] int64, how many windows each problem has, 0 to M. What lies beyond changes nothing.

    Returns:
        [P, M] int64: the slot of each window, -1 for those left out and beyond the count. Of equally
        cheap assignments always the same, whatever the device.

    Not differentiable. Under autocast: float32.
    """
    slots: Tensor = torch.ops.vmr.assignment(costs.detach(), counts)
    return slots


def cxw_to_span(cxw: Tensor) -> Tensor:
    """(start, end) of spans given as (centre, width), [..., 2] each. Differentiable."""
    centre, width = cxw.unbind(-1)
    return torch.stack((centre - width / 2, centre + width / 2), dim=-1)


def span_to_cxw(spans: Tensor) -> Tensor:
    """(centre, width) of spans given as (start, end), [..., 2] each. Differentiable."""
    start, end = spans.unbind(-1)
    return torch.stack(((start + end) / 2, end - start), dim=-1)


def _overlaps(operator: Any, a: Tensor, b: Tensor, aligned: bool) -> Tensor:
    if aligned:  # all pairs of one span with one span
        a, b = a.unsqueeze(-2), b.unsqueeze(-2)
    overlaps: Tensor = operator(a, b)
    return overlaps.squeeze(-1).squeeze(-1) if aligned else overlaps


def _fake_overlaps(a: Tensor, b: Tensor) -> Tensor:
    return a.new_empty(*a.shape[:-1], b.shape[-2])


def _fake_overlaps_backward(gradients: Tensor, a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    return a.new_empty(a.shape), b.new_empty(b.shape)


def _fake_nms(
    spans: Tensor, scores: Tensor, lengths: Tensor, iou_threshold: float, top_k: int
) -> tuple[Tensor, Tensor]:
    return lengths.new_empty(spans.shape[0], top_k), lengths.new_empty(spans.shape[0])


def _fake_assignment(costs: Tensor, counts: Tensor) -> Tensor:
    return counts.new_empty(costs.shape[0], costs.shape[2])


def _iou_backward(context: Any, gradients: Tensor) -> Any:
    return torch.ops.vmr.span_iou_backward(gradients, *context.saved_tensors)


def _giou_backward(context: Any, gradients: Tensor) -> Any:
    return torch.ops.vmr.span_giou_backward(gradients, *context.saved_tensors)


register("span_iou", reference=reference.span_iou, fake=_fake_overlaps, backward=_iou_backward)
register("span_giou", reference=reference.span_giou, fake=_fake_overlaps, backward=_giou_backward)
register("span_iou_backward", reference=reference.span_iou_backward, fake=_fake_overlaps_backward)
register("span_giou_backward", reference=reference.span_giou_backward, fake=_fake_overlaps_backward)
register("span_nms", reference=reference.span_nms, fake=_fake_nms)
register("assignment", reference=reference.assignment, fake=_fake_assignment)
