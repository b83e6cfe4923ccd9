"""A contrastive loss between videos and sentences over the whole batch, whatever processes hold it."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor
from torch import distributed as dist
from torch.nn import functional as F

from vmr.reference.common import widened


def batch_contrastive(
    video: Tensor,
    text: Tensor,
    temperature: float,
    *,
    both_ways: bool = True,
    against: Literal["all", "others"] = "all",
) -> Tensor:
    """InfoNCE between the videos and the sentences of a batch, summed over this process's rows.

    ::

        s_ij = cos(v_i, t_j) / temperature
        sum_i -(log softmax_j s_ij + log softmax_j s_ji)[j = i] / 2

    Row i of the one belongs to row i of the other; all other rows, those of the other processes of
    torch.distributed too, are its negatives (van den Oord et al., 2018, both ways as in CLIP). Summed
    over the processes it is what one process would give for the whole batch; and so are the gradients,
    since each process gets those of all sums to its own rows. Every process has to call it, one without
    rows as well.

    Args:
        video: [B, D]; B may differ between processes, and be 0.
        text: [B, D].
        temperature: Above 0.
        both_ways: Whether sentences are compared with all videos too, and the mean of both is taken.
        against: What the softmax goes over: "all" or, without the pair itself, its "others" (BM-DETR,
            eq. 17). A pair without others has no loss.

    Returns:
        Scalar; float32 for float16 and bfloat16.
    """
    own = F.normalize(widened(torch.stack((video, text))), dim=-1)
    first, everyone = _gathered(own)
    targets = torch.arange(first, first + own.shape[1], device=own.device)[:, None]
    if against == "others" and everyone.shape[1] < 2:
        return own.sum() * 0.0

    def one_way(rows: Tensor, others: Tensor) -> Tensor:
        logits = rows @ others.T / temperature
        pairs = logits.gather(1, targets)
        if against == "others":
            logits = logits.scatter(1, targets, -torch.inf)
        return (logits.logsumexp(dim=1, keepdim=True) - pairs).sum()

    of_video = one_way(own[0], everyone[1])
    if not both_ways:
        return of_video
    return 0.5 * (of_video + one_way(own[1], everyone[0]))


def _gathered(own: Tensor) -> tuple[int, Tensor]:
    """Rows [2, B, D] of all processes, behind one another; and where the own ones begin."""
    if not dist.is_available() or not dist.is_initialized() or dist.get_world_size() == 1:
        return 0, own
    sizes = torch.zeros(dist.get_world_size(), dtype=torch.int64, device=own.device)
    sizes[dist.get_rank()] = own.shape[1]
    dist.all_reduce(sizes)
    counts = sizes.tolist()
    # Collectives want equal shapes.
    padded = F.pad(own, (0, 0, 0, max(counts) - own.shape[1]))
    parts: Tensor = _Gather.apply(padded)  # type: ignore[no-untyped-call]
    rows = [part[:, :count] for part, count in zip(parts.unbind(), counts, strict=True)]
    return sum(counts[: dist.get_rank()]), torch.cat(rows, dim=1)


class _Gather(torch.autograd.Function):
    """Tensors of one shape from all processes, stacked; the gradients of all come back summed."""

    @staticmethod
    def forward(context: Any, own: Tensor) -> Tensor:
        parts = [torch.empty_like(own) for _ in range(dist.get_world_size())]
        dist.all_gather(parts, own.contiguous())
        return torch.stack(parts)

    @staticmethod
    def backward(context: Any, *gradients: Tensor) -> Tensor:
        total = gradients[0].clone(memory_format=torch.contiguous_format)
        dist.all_reduce(total)
        return total[dist.get_rank()]
