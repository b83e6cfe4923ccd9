"""Anchor-aware feature alignment (Tan et al., CVPR 2025, equations 1 to 12)."""

from __future__ import annotations

import torch
from torch import Tensor

from vmr.reference import alignment as reference


def gram_matrix(frames: Tensor, lengths: Tensor) -> Tensor:
    """See reference."""
    return reference.gram_matrix(frames, lengths)


def anchor_segment(
    frames: Tensor,
    queries: Tensor,
    lengths: Tensor,
    videos: Tensor | None = None,
    *,
    normalize: bool = True,
    reach_end: bool = False,
) -> tuple[Tensor, Tensor]:
    """See reference."""
    with torch.no_grad():
        return reference.anchor_segment(
            frames, queries, lengths, _own(videos, queries), normalize, reach_end
        )


def attention_pool(
    frames: Tensor, vectors: Tensor, segments: Tensor, videos: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """See reference."""
    return reference.attention_pool(frames, vectors, segments, _own(videos, vectors))


def frame_alignment(
    frames: Tensor,
    queries: Tensor,
    relevance_vectors: Tensor,
    relevance_offsets: Tensor,
    alignment_vectors: Tensor,
    alignment_offsets: Tensor,
    segments: Tensor,
    lengths: Tensor,
    videos: Tensor | None = None,
    *,
    reweight: bool = True,
    align: bool = True,
) -> tuple[Tensor, Tensor, Tensor]:
    """See reference."""
    return reference.frame_alignment(
        frames,
        queries,
        relevance_vectors,
        relevance_offsets,
        alignment_vectors,
        alignment_offsets,
        segments,
        lengths,
        _own(videos, queries),
        reweight,
        align,
    )


def aligned_frames(
    frames: Tensor,
    queries: Tensor,
    relevance: Tensor,
    weights: Tensor,
    lengths: Tensor,
    videos: Tensor | None = None,
) -> Tensor:
    """See reference."""
    return reference.aligned_frames(
        frames, queries, relevance, weights, lengths, _own(videos, queries)
    )


def aligned_similarity(
    gram: Tensor,
    query_dots: Tensor,
    query_norms: Tensor,
    relevance: Tensor,
    weights: Tensor,
    lengths: Tensor,
    videos: Tensor | None = None,
) -> Tensor:
    """See reference."""
    return reference.aligned_similarity(
        gram, query_dots, query_norms, relevance, weights, lengths, _own(videos, relevance)
    )


def _own(videos: Tensor | None, queries: Tensor) -> Tensor:
    """Which video each query is about; where it is not said, there is one video a query."""
    if videos is not None:
        return videos
    return torch.arange(queries.shape[0], device=queries.device)
