"""Temporal spans in plain PyTorch."""

from __future__ import annotations

import torch
from torch import Tensor

from vmr.reference.common import gradients, widened


def _parts(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Of all pairs [..., N, M]: length of intersection, union and hull, and whether a bound is NaN."""
    a = widened(a).unsqueeze(-2)
    b = widened(b).unsqueeze(-3)
    nan = torch.isnan(a).any(-1) | torch.isnan(b).any(-1)
    a_start, a_end = a.nan_to_num(nan=0.0).unbind(-1)
    b_start, b_end = b.nan_to_num(nan=0.0).unbind(-1)
    first_end, last_start = torch.minimum(a_end, b_end), torch.maximum(a_start, b_start)
    intersection = (first_end - last_start).clamp(min=0)
    union = (a_end - a_start).clamp(min=0) + (b_end - b_start).clamp(min=0) - intersection
    hull = torch.maximum(a_end, b_end) - torch.minimum(a_start, b_start)
    return intersection, union, hull, nan


def _ratio(part: Tensor, whole: Tensor) -> Tensor:
    """part / whole, and 0 where whole is not positive."""
    some = whole > 0
    return torch.where(some, part / torch.where(some, whole, 1.0), 0.0)


def span_iou(a: Tensor, b: Tensor) -> Tensor:
    """IoU of all pairs: intersection / union."""
    intersection, union, _, nan = _parts(a, b)
    return _ratio(intersection, union).masked_fill(nan, torch.nan).to(a.dtype)


def span_giou(a: Tensor, b: Tensor) -> Tensor:
    """Generalised IoU of all pairs: intersection / union - (hull - union) / hull."""
    intersection, union, hull, nan = _parts(a, b)
    generalised = _ratio(intersection, union) - _ratio(hull - union, hull)
    return generalised.masked_fill(nan, torch.nan).to(a.dtype)


def span_iou_backward(output_gradients: Tensor, a: Tensor, b: Tensor) -> tuple[Tensor, ...]:
    """The gradients of both arguments of span_iou."""
    return gradients(span_iou, output_gradients, (a, b))


def span_giou_backward(output_gradients: Tensor, a: Tensor, b: Tensor) -> tuple[Tensor, ...]:
    """The gradients of both arguments of span_giou."""
    return gradients(span_giou, output_gradients, (a, b))


def span_nms(
    spans: Tensor, scores: Tensor, lengths: Tensor, iou_threshold: float, top_k: int
) -> tuple[Tensor, Tensor]:
    """Greedy suppression: the best that overlaps no better one by more than the threshold."""
    overlapping = span_iou(widened(spans), widened(spans)) > iou_threshold
    indices = torch.full((len(spans), top_k), -1)
    counts = torch.zeros(len(spans), dtype=torch.int64)
    for query, length in enumerate(lengths.tolist()):
        candidates = [p for p in range(length) if not scores[query, p].isnan()]
        candidates.sort(key=lambda p: (-scores[query, p].item(), p))
        kept: list[int] = []
        for p in candidates:
            if len(kept) < top_k and not overlapping[query, p, kept].any():
                kept.append(p)
        indices[query, : len(kept)] = torch.tensor(kept, dtype=torch.int64)
        counts[query] = len(kept)
    return indices.to(spans.device), counts.to(spans.device)
