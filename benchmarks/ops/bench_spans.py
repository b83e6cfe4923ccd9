"""Overlap of spans, forward and backward, suppression of overlapping candidates, and assignment.

python benchmarks/ops/bench_spans.py --out benchmarks/results/spans.md
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from vmr import ops

sys.path.insert(0, str(Path(__file__).parents[1]))
from timing import Comparison, main

NMS_QUERIES, CANDIDATES, NMS_IOU = 8, 2000, 0.5


def torch_giou(a: Tensor, b: Tensor) -> Tensor:
    """All pairs, by broadcasting."""
    a, b = a.unsqueeze(-2), b.unsqueeze(-3)
    inter = (torch.minimum(a[..., 1], b[..., 1]) - torch.maximum(a[..., 0], b[..., 0])).clamp(min=0)
    union = (a[..., 1] - a[..., 0]) + (b[..., 1] - b[..., 0]) - inter
    hull = torch.maximum(a[..., 1], b[..., 1]) - torch.minimum(a[..., 0], b[..., 0])
    return inter / union - (hull - union) / hull


def numpy_giou(a: NDArray[Any], b: NDArray[Any]) -> NDArray[Any]:
    """All pairs, by broadcasting."""
    a, b = a[..., :, None, :], b[..., None, :, :]
    inter = np.minimum(a[..., 1], b[..., 1]) - np.maximum(a[..., 0], b[..., 0])
    np.maximum(inter, 0, out=inter)
    union = (a[..., 1] - a[..., 0]) + (b[..., 1] - b[..., 0]) - inter
    hull = np.maximum(a[..., 1], b[..., 1]) - np.minimum(a[..., 0], b[..., 0])
    result: NDArray[Any] = inter / union - (hull - union) / hull
    return result


def with_gradients(giou: Callable[[Tensor, Tensor], Tensor], a: Tensor, b: Tensor) -> object:
    a, b = a.detach().requires_grad_(), b.detach().requires_grad_()
    return torch.autograd.grad(giou(a, b).sum(), (a, b))


def torch_nms(spans: Tensor, scores: Tensor, top_k: int) -> Tensor:
    """All queries at once: the best, what it suppresses, and so on."""
    scores = scores.clone()
    length = spans[..., 1] - spans[..., 0]
    kept = torch.full((len(scores), top_k), -1)
    rows = torch.arange(len(scores))
    for place in range(top_k):
        score, best = scores.max(dim=1)
        kept[:, place] = torch.where(score > -torch.inf, best, -1)
        chosen = spans[rows, best].unsqueeze(1)
        inter = torch.minimum(spans[..., 1], chosen[..., 1]) - torch.maximum(
            spans[..., 0], chosen[..., 0]
        )
        inter.clamp_(min=0)
        union = length + (chosen[..., 1] - chosen[..., 0]) - inter
        scores.masked_fill_(inter > NMS_IOU * union, -torch.inf)
    return kept


def numpy_nms(spans: NDArray[Any], scores: NDArray[Any], top_k: int) -> NDArray[Any]:
    """A query after the other: sorted once, then what is left shrinks."""
    kept = np.full((len(scores), top_k), -1)
    for query in range(len(scores)):
        order = np.argsort(-scores[query], kind="stable")
        start, end = spans[query, order, 0], spans[query, order, 1]
        for place in range(top_k):
            if len(order) == 0:
                break
            kept[query, place] = order[0]
            inter = np.minimum(end, end[0]) - np.maximum(start, start[0])
            np.maximum(inter, 0, out=inter)
            free = inter <= NMS_IOU * (end - start + (end[0] - start[0]) - inter)
            order, start, end = order[free], start[free], end[free]
    return kept


def scipy_assignment(costs: Tensor, counts: Tensor) -> list[tuple[NDArray[Any], NDArray[Any]]]:
    """A problem after the other, and no more."""
    table = costs.numpy()
    return [
        linear_sum_assignment(cost[:, :count])
        for cost, count in zip(table, counts.tolist(), strict=True)
    ]


def index_lists(costs: Tensor, counts: Tensor) -> Tensor:
    """A problem after the other, with problem, slot and window of all pairs [3, K] to index by."""
    table = costs.nan_to_num(1e6, 1e6, -1e6).numpy()
    found = []
    for problem, count in enumerate(counts.tolist()):
        slots, windows = linear_sum_assignment(table[problem, :, :count])
        found.append(np.stack((np.full(len(slots), problem), slots, windows)))
    return torch.from_numpy(np.concatenate(found, axis=1))


def assignments() -> list[Comparison]:
    """As Moment-DETR matches its 10 slots: of Charades-STA one window a query, of QVHighlights some."""
    random = torch.Generator().manual_seed(1)
    found = []
    for problems in (32, 64, 1024):
        for windows in (1, 5, 10):
            costs = torch.randn(problems, 10, windows, generator=random)
            counts = torch.full((problems,), windows)
            slots = ops.assignment(costs, counts)
            pairs = index_lists(costs, counts)
            assert torch.equal(slots[pairs[0], pairs[2]], pairs[1])
            found.append(
                Comparison(
                    f"assignment of 10 slots to {windows}, {problems} problems",
                    {
                        "vmr": lambda c=costs, n=counts: ops.assignment(c, n),
                        "SciPy, one by one": lambda c=costs, n=counts: scipy_assignment(c, n),
                        "SciPy, and lists to index by": lambda c=costs, n=counts: index_lists(c, n),
                    },
                )
            )
    return found


def comparisons() -> list[Comparison]:
    """What is measured, after all contenders were found to agree."""
    random = torch.Generator().manual_seed(0)

    def draw(*shape: int) -> Tensor:
        start = torch.rand(*shape, generator=random) * 100
        return torch.stack([start, start + 1 + torch.rand(*shape, generator=random) * 20], dim=-1)

    found = []
    for name, a, b in (
        ("gIoU of 32 x 75 x 10 pairs", draw(32, 75), draw(32, 10)),
        ("gIoU of 1000 x 1000 pairs", draw(1000), draw(1000)),
    ):
        torch.testing.assert_close(ops.span_giou(a, b), torch_giou(a, b))
        found += [
            Comparison(
                name,
                {
                    "vmr": lambda a=a, b=b: ops.span_giou(a, b),
                    "PyTorch": lambda a=a, b=b: torch_giou(a, b),
                    "NumPy": lambda a=a, b=b: numpy_giou(a.numpy(), b.numpy()),
                },
            ),
            Comparison(
                f"{name}, forward and backward",
                {
                    "vmr": lambda a=a, b=b: with_gradients(ops.span_giou, a, b),
                    "PyTorch": lambda a=a, b=b: with_gradients(torch_giou, a, b),
                },
            ),
        ]
    spans = draw(NMS_QUERIES, CANDIDATES)
    scores = torch.rand(NMS_QUERIES, CANDIDATES, generator=random)
    lengths = torch.full((NMS_QUERIES,), CANDIDATES)
    for top_k in (10, 100):
        kept, _ = ops.span_nms(spans, scores, lengths, iou_threshold=NMS_IOU, top_k=top_k)
        assert torch.equal(kept, torch_nms(spans, scores, top_k))
        assert np.array_equal(kept.numpy(), numpy_nms(spans.numpy(), scores.numpy(), top_k))
        found.append(
            Comparison(
                f"NMS of 8 x 2000 overlapping candidates, the best {top_k}",
                {
                    "vmr": lambda k=top_k: ops.span_nms(
                        spans, scores, lengths, iou_threshold=NMS_IOU, top_k=k
                    ),
                    "PyTorch, vectorised": lambda k=top_k: torch_nms(spans, scores, k),
                    "NumPy, vectorised": lambda k=top_k: numpy_nms(
                        spans.numpy(), scores.numpy(), k
                    ),
                },
            )
        )
    return found + assignments()


if __name__ == "__main__":
    main("Overlap, suppression and assignment of temporal spans", comparisons, __file__)
