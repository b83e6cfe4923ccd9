"""A2FA + F2SGD as the paper reads, in plain PyTorch: what the benchmarks compare with.

Every frame is projected, V^e and V^a exist, G is built, and the convolutions are torch.nn.Conv2d.
Vectorised over the batch, as a good implementer would write it. Weights are taken from vmr's model.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vmr.models.afa_fsgd import A2FAF2SGD


class Literal(nn.Module):
    """The same numbers as vmr's model, with its weights."""

    def __init__(self, model: A2FAF2SGD, *, channels_last: bool) -> None:
        super().__init__()
        self.a2fa, self.f2sgd = model.alignment, model.detection
        self.channels_last = channels_last
        pad = self.f2sgd.kernel_size // 2
        self.convolutions = nn.ModuleList()
        for layer in (self.f2sgd.first, self.f2sgd.second):
            own = nn.Conv2d(layer.in_channels, layer.out_channels, layer.kernel_size, padding=pad)
            own.load_state_dict(layer.state_dict())
            self.convolutions.append(own)
        if channels_last:
            self.convolutions.to(memory_format=torch.channels_last)

    def segment(self, v: Tensor, q: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """First and last frame of the anchor-aware segment, eqs. 1 to 5, without a loop."""
        c = F.cosine_similarity(q[:, None], v, dim=-1)[..., None]
        embedded = c * q[:, None] + (1 - c) * v
        relevance = F.cosine_similarity(embedded, q[:, None], dim=-1)
        anchor = relevance.masked_fill(~mask, -torch.inf).argmax(dim=1)
        last = mask.sum(dim=1) - 1
        rows = torch.arange(len(v))
        first_to = F.cosine_similarity(embedded[:, :1], embedded, dim=-1)
        anchor_to = F.cosine_similarity(embedded[rows, anchor][:, None], embedded, dim=-1)
        last_to = F.cosine_similarity(embedded[rows, last][:, None], embedded, dim=-1)
        places = torch.arange(v.shape[1])
        before, after = places <= anchor[:, None], (places >= anchor[:, None]) & mask
        to_left = (first_to * (before & (places > 0))).cumsum(1)
        rest = (anchor_to * before).sum(1, keepdim=True) - (anchor_to * before).cumsum(1)
        left = (to_left + rest).masked_fill(~before, -torch.inf).argmax(dim=1)
        to_right = (anchor_to * after).cumsum(1)
        rest = (last_to * after).sum(1, keepdim=True) - (last_to * after).cumsum(1)
        right = (to_right + rest).masked_fill(~after, -torch.inf).argmax(dim=1)
        return left, right

    def similarity(self, v: Tensor, q: Tensor, mask: Tensor) -> Tensor:
        """S^a from frames [B, N, D] and sentences [B, D]."""
        a = self.a2fa
        left, right = self.segment(v, q, mask)
        places = torch.arange(v.shape[1])
        inside = (places >= left[:, None]) & (places <= right[:, None])
        m = torch.zeros(inside.shape).masked_fill(~inside, -torch.inf)
        attention = (a.pool_query(q)[:, None] @ a.pool_key(v).mT).squeeze(1) + m
        g = (attention.softmax(-1)[:, None] @ a.pool_value(v)).squeeze(1)
        compared = (a.relevance_frame(v) @ a.relevance_pooled(g)[..., None]).squeeze(-1)
        reweighted = (a.scale * compared + a.shift).tanh()[..., None] * v
        matches = a.alignment_frame(reweighted) @ a.alignment_query(q)[..., None]
        alpha = (matches.squeeze(-1) + m).sigmoid()[..., None]
        aligned = F.normalize(alpha * q[:, None] + (1 - alpha) * reweighted, dim=-1)
        return aligned @ aligned.mT

    def forward(self, video: Tensor, lengths: Tensor, queries: Tensor) -> Tensor:
        """Scores [B, N, N] of all moments."""
        v, q = F.normalize(video, dim=-1), F.normalize(queries, dim=-1)
        mask = torch.arange(v.shape[1]) < lengths[:, None]
        valid = (mask[:, :, None] & mask[:, None, :])[:, None]
        maps = self.similarity(v, q, mask)[:, None]
        if self.channels_last:
            maps = maps.contiguous(memory_format=torch.channels_last)
        for convolution in self.convolutions:
            maps = F.relu(convolution(maps.masked_fill(~valid, 0.0)))
        points = maps.permute(0, 2, 3, 1)
        scores: Tensor = self.f2sgd.score(F.relu(self.f2sgd.hidden(points)))
        return scores.squeeze(-1)

    def loss(self, scores: Tensor, points: Tensor, splits: Tensor, lengths: Tensor) -> Tensor:
        """Eq. 14 with G."""
        mask = torch.arange(scores.shape[1]) < lengths[:, None]
        truth = torch.zeros_like(scores)
        owners = torch.repeat_interleave(torch.arange(len(scores)), splits.diff())
        truth[owners, points[:, 0], points[:, 1]] = 1
        squares = (scores - truth).square()
        return squares.masked_fill(~(mask[:, :, None] & mask[:, None]), 0.0).sum(dim=(1, 2))

    def best(self, scores: Tensor, lengths: Tensor, k: int) -> Tensor:
        """Eq. 15: [B, k] places in the flattened map."""
        places = torch.arange(scores.shape[1])
        mask = places < lengths[:, None]
        allowed = mask[:, :, None] & mask[:, None] & (places[:, None] <= places)
        return scores.masked_fill(~allowed, -torch.inf).flatten(1).topk(k).indices
