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


def assignment(costs: Tensor, counts: Tensor) -> Tensor:
    """The cheapest assignment of slots to windows; rows are those of which there are fewer."""
    problems, slots, windows = costs.shape
    table = costs.double().nan_to_num(nan=1e6, posinf=1e6, neginf=-1e6).cpu()
    found = torch.full((problems, windows), -1)
    for problem, count in enumerate(counts.clamp(0, windows).tolist()):
        own = table[problem, :, :count]
        if count <= slots:
            found[problem, :count] = _cheapest_columns(own.T)
        else:
            found[problem, _cheapest_columns(own)] = torch.arange(slots)
    return found.to(costs.device)


def _cheapest_columns(cost: Tensor) -> Tensor:
    """The column of each row, [N] of costs [N, M] with N <= M (Crouse, 2016).

    u and v are the potentials of rows and columns: no reduced cost ``cost[i, j] - u[i] - v[j]`` is below
    zero, and those of assigned pairs are zero.
    """
    rows, columns = cost.shape
    u, v = torch.zeros(rows).double(), torch.zeros(columns).double()
    row_of = [-1] * columns
    column_of = [-1] * rows
    for start in range(rows):
        # The shortest path from this row to a free column, by Dijkstra's algorithm on reduced costs.
        shortest = torch.full((columns,), torch.inf).double()
        previous = torch.full((columns,), start)
        reached = torch.zeros(columns, dtype=torch.bool)
        row, distance = start, 0.0
        while row >= 0:
            through = (distance - u[row]) + (cost[row] - v)
            shorter = ~reached & (through < shortest)
            shortest[shorter] = through[shorter]
            previous[shorter] = row
            # Of equally near columns a free one, and then the first.
            _, _, end = min(
                (shortest[j].item(), row_of[j] >= 0, j) for j in range(columns) if not reached[j]
            )
            reached[end] = True
            row, distance = row_of[end], shortest[end].item()

        u[start] += distance
        for j in reached.nonzero()[:, 0].tolist():
            change = distance - shortest[j]
            v[j] -= change
            if row_of[j] >= 0:
                u[row_of[j]] += change

        row = -1
        while row != start:  # along the path, each row moves to the next column
            row = int(previous[end])
            row_of[end] = row
            column_of[row], end = end, column_of[row]
    return torch.tensor(column_of, dtype=torch.int64)
