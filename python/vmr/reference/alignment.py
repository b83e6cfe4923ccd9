"""Anchor-aware feature alignment in plain PyTorch (Tan et al., CVPR 2025, equations 1 to 12).

``frames`` [U, N, D] are the features of U videos and ``queries`` [B, D] the sentences; ``videos`` [B]
says which video each sentence is about, ``lengths`` [U] how many frames a video has.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from vmr.reference.common import gradients, valid_frames, widened

RELATIVE_FLOOR = 1e-5
"""Of an aligned frame's squared norm, in parts of that of its two terms if they were orthogonal."""
ABSOLUTE_FLOOR = 1e-12


def _inside(segments: Tensor, frames: int) -> Tensor:
    """[B, N] truth values: the frames from the first to the last of a segment (eq. 6)."""
    places = torch.arange(frames, device=segments.device)
    return (places >= segments[:, :1]) & (places <= segments[:, 1:])


def _of_queries(frames: Tensor, videos: Tensor, inside: Tensor) -> Tensor:
    """[B, N, D] each query's frames, those that do not count as zeros."""
    return torch.where(inside[..., None], widened(frames)[videos], 0.0)


def _only(found: tuple[Tensor, ...], *wanted: bool) -> tuple[Tensor, ...]:
    """The gradients; for the first ones, where nobody asked for them, an empty tensor."""
    first = tuple(
        gradient if ask else gradient.new_empty(0)
        for gradient, ask in zip(found, wanted, strict=False)
    )
    return first + found[len(wanted) :]


def gram_matrix(frames: Tensor, lengths: Tensor) -> Tensor:
    """[U, N, N] dot products of a video's frames with one another; zeros in the padding."""
    valid = valid_frames(lengths, frames.shape[1])[..., None]
    rows = torch.where(valid, widened(frames), 0.0)
    return torch.where(valid & valid.mT, rows @ rows.mT, 0.0).to(frames.dtype)


def gram_matrix_backward(output_gradients: Tensor, frames: Tensor, lengths: Tensor) -> Tensor:
    """The gradient of the frames."""
    return gradients(gram_matrix, output_gradients, (frames, lengths))[0]


def anchor_segment(
    frames: Tensor,
    queries: Tensor,
    lengths: Tensor,
    videos: Tensor,
    normalize: bool,
    reach_end: bool,
) -> tuple[Tensor, Tensor]:
    """The anchor frame and the two transition points, eqs. 1 to 5, in float64."""
    total = frames.shape[1]
    valid = valid_frames(lengths[videos], total)
    v, q = _of_queries(frames, videos, valid).double(), queries.double()[:, None]
    if normalize:
        v, q = F.normalize(v, dim=-1, eps=1e-30), F.normalize(q, dim=-1, eps=1e-30)
    c = F.cosine_similarity(q, v, dim=-1, eps=1e-30)[..., None]
    embedded = c * q + (1 - c) * v  # eq. 1
    relevance = F.cosine_similarity(embedded, q, dim=-1, eps=1e-30)
    anchors = relevance.masked_fill(~valid, -torch.inf).argmax(dim=1)  # eq. 2

    def to_all(place: Tensor) -> Tensor:
        one = embedded.take_along_dim(place[:, None, None], dim=1)
        return F.cosine_similarity(one, embedded, dim=-1, eps=1e-30)

    last = lengths[videos] - 1
    first_to, anchor_to, last_to = to_all(torch.zeros_like(last)), to_all(anchors), to_all(last)
    if reach_end:
        # As eq. 3 does with the first frame: the last one's similarity to itself does not count.
        last_to = last_to.scatter(1, last[:, None], 0.0)
    # From b - 1 to b a sum of eq. 3 changes by cos(v_1, v_b) - cos(v_A, v_b), one of eq. 4 by
    # cos(v_A, v_b) - cos(v_N, v_b). Ties are exact this way.
    places = torch.arange(total, device=frames.device)
    left = (first_to - anchor_to).masked_fill(places == 0, 0.0).cumsum(dim=1)
    left = left.masked_fill(places > anchors[:, None], -torch.inf)
    after = (places > anchors[:, None]) & valid
    right = (anchor_to - last_to).masked_fill(~after, 0.0).cumsum(dim=1)
    right = right.masked_fill(~after & (places != anchors[:, None]), -torch.inf)
    return anchors, torch.stack((left.argmax(dim=1), right.argmax(dim=1)), dim=1)


def attention_pool(
    frames: Tensor, vectors: Tensor, segments: Tensor, videos: Tensor
) -> tuple[Tensor, Tensor]:
    """Eqs. 7 and 8 before V^g: softmax of v_i . u over the segment, and the frames' mean by it."""
    inside = _inside(segments, frames.shape[1])
    v = _of_queries(frames, videos, inside)
    logits = (v @ widened(vectors)[..., None]).squeeze(-1)
    weights = logits.masked_fill(~inside, -torch.inf).softmax(dim=1)
    pooled = (weights[:, None] @ v).squeeze(1)
    return pooled.to(frames.dtype), weights.to(frames.dtype)


def attention_pool_backward(
    pooled_gradients: Tensor,
    weight_gradients: Tensor,
    frames: Tensor,
    vectors: Tensor,
    segments: Tensor,
    videos: Tensor,
    frames_wanted: bool,
) -> tuple[Tensor, ...]:
    """The gradients of frames and vectors."""
    found = gradients(
        attention_pool, (pooled_gradients, weight_gradients), (frames, vectors, segments, videos)
    )
    return _only(found, frames_wanted)


def frame_alignment(
    frames: Tensor,
    queries: Tensor,
    relevance_vectors: Tensor,
    relevance_offsets: Tensor,
    alignment_vectors: Tensor,
    alignment_offsets: Tensor,
    segments: Tensor,
    lengths: Tensor,
    videos: Tensor,
    reweight: bool,
    align: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """Eqs. 9 and 11 with both products on the query's side: r, alpha, and v_i . q."""
    total = frames.shape[1]
    valid = valid_frames(lengths[videos], total)
    v = _of_queries(frames, videos, valid)

    def dots(vectors: Tensor) -> Tensor:
        return (v @ widened(vectors)[..., None]).squeeze(-1)

    relevance = torch.ones_like(v[..., 0])
    if reweight:
        relevance = (dots(relevance_vectors) + widened(relevance_offsets)[:, None]).tanh()
    weights = torch.zeros_like(relevance)
    if align:
        logits = relevance * dots(alignment_vectors) + widened(alignment_offsets)[:, None]
        weights = logits.sigmoid().masked_fill(~_inside(segments, total), 0.0)
    dotted = dots(queries).masked_fill(~valid, 0.0)
    found = relevance.masked_fill(~valid, 0.0), weights.masked_fill(~valid, 0.0), dotted
    return found[0].to(frames.dtype), found[1].to(frames.dtype), found[2].to(frames.dtype)


def frame_alignment_backward(
    relevance_gradients: Tensor,
    weight_gradients: Tensor,
    dot_gradients: Tensor,
    frames: Tensor,
    queries: Tensor,
    relevance_vectors: Tensor,
    relevance_offsets: Tensor,
    alignment_vectors: Tensor,
    alignment_offsets: Tensor,
    segments: Tensor,
    lengths: Tensor,
    videos: Tensor,
    reweight: bool,
    align: bool,
    frames_wanted: bool,
    queries_wanted: bool,
) -> tuple[Tensor, ...]:
    """The gradients of the six floating-point arguments."""
    found = gradients(
        frame_alignment,
        (relevance_gradients, weight_gradients, dot_gradients),
        (
            frames,
            queries,
            relevance_vectors,
            relevance_offsets,
            alignment_vectors,
            alignment_offsets,
            segments,
            lengths,
            videos,
        ),
        reweight,
        align,
    )
    return _only(found, frames_wanted, queries_wanted)


def aligned_frames(
    frames: Tensor,
    queries: Tensor,
    relevance: Tensor,
    weights: Tensor,
    lengths: Tensor,
    videos: Tensor,
) -> Tensor:
    """[B, N, D] the aligned frames of eqs. 10 and 12; zeros in the padding."""
    valid = valid_frames(lengths[videos], frames.shape[1])
    v = _of_queries(frames, videos, valid)
    alpha, r = (torch.where(valid, widened(x), 0.0)[..., None] for x in (weights, relevance))
    aligned = alpha * widened(queries)[:, None] + (1 - alpha) * r * v
    return torch.where(valid[..., None], aligned, 0.0).to(frames.dtype)


def aligned_frames_backward(
    output_gradients: Tensor,
    frames: Tensor,
    queries: Tensor,
    relevance: Tensor,
    weights: Tensor,
    lengths: Tensor,
    videos: Tensor,
    frames_wanted: bool,
) -> tuple[Tensor, ...]:
    """The gradients of frames, queries, relevance and weights."""
    found = gradients(
        aligned_frames,
        output_gradients,
        (frames, queries, relevance, weights, lengths, videos),
    )
    return _only(found, frames_wanted)


def aligned_similarity(
    gram: Tensor,
    query_dots: Tensor,
    query_norms: Tensor,
    relevance: Tensor,
    weights: Tensor,
    lengths: Tensor,
    videos: Tensor,
) -> Tensor:
    """[B, N, N] cosines of the aligned frames, S^a of eq. 13, without them.

    With x = alpha and y = (1 - alpha) r an aligned frame is x q + y v, so its products with others
    follow from |q|^2, v . q and the Gram matrix.
    """
    valid = valid_frames(lengths[videos], gram.shape[-1])
    both = valid[:, :, None] & valid[:, None, :]
    g = torch.where(both, widened(gram)[videos], 0.0)
    s = torch.where(valid, widened(query_dots), 0.0)
    x = torch.where(valid, widened(weights), 0.0)
    y = (1 - x) * torch.where(valid, widened(relevance), 0.0)
    qq = widened(query_norms)[:, None, None]
    cross = x[:, :, None] * (y * s)[:, None, :]
    products = (
        qq * x[:, :, None] * x[:, None, :] + cross + cross.mT + y[:, :, None] * y[:, None, :] * g
    )
    terms = qq[:, 0] * x.square() + y.square() * g.diagonal(dim1=1, dim2=2)
    squared = products.diagonal(dim1=1, dim2=2)
    floor = RELATIVE_FLOOR * terms + ABSOLUTE_FLOOR
    inverse = torch.maximum(squared, floor).rsqrt()
    cosines = products * inverse[:, :, None] * inverse[:, None, :]
    return cosines.clamp(-1, 1).masked_fill(~both, 0.0).to(gram.dtype)


def aligned_similarity_backward(
    output_gradients: Tensor,
    gram: Tensor,
    query_dots: Tensor,
    query_norms: Tensor,
    relevance: Tensor,
    weights: Tensor,
    lengths: Tensor,
    videos: Tensor,
    gram_wanted: bool,
) -> tuple[Tensor, ...]:
    """The gradients of the five floating-point arguments."""
    found = gradients(
        aligned_similarity,
        output_gradients,
        (gram, query_dots, query_norms, relevance, weights, lengths, videos),
    )
    return _only(found, gram_wanted)
