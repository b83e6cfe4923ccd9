"""Anchor-aware feature alignment, A2FA (Tan et al., CVPR 2025, equations 1 to 13).

``frames`` [U, N, D] are the features of U videos and ``queries`` [B, D] the sentences; ``videos`` [B]
says which video each sentence is about, in any order, and ``lengths`` [U] how many frames a video has,
1 to N. What lies behind them, NaN included, changes nothing. All floating-point arguments of an
operator have one dtype: float32, float64, float16 or bfloat16 (these two are computed in float32).

The paper's matrices multiply the query's side here, and never a frame: K^g v . Q^g q
is v . (K^g)^T Q^g q. So a model calls, with products of a few vectors in between::

    _, segments = anchor_segment(frames, queries, lengths, videos)
    pooled, _ = attention_pool(frames, u, segments, videos)              # u = Kg^T Qg q
    r, alpha, dots = frame_alignment(frames, queries, z, beta, y, offset, segments, lengths, videos)
                                                 # z = w W1r^T W2r Vg pooled, y = W1a^T W2a q
    similarity = aligned_similarity(gram_matrix(frames, lengths), dots, |q|^2, r, alpha, lengths, videos)
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from vmr.ops._library import call, register
from vmr.reference import alignment as reference


def gram_matrix(frames: Tensor, lengths: Tensor) -> Tensor:
    """Dot products of each video's frames with one another, G_ij = v_i . v_j.

    It is the same for all queries of a video: make it once.

    Args:
        frames: [U, N, D]; N, D >= 1.
        lengths: [U] int64.

    Returns:
        [U, N, N], zeros in the padding, exactly symmetric. Differentiable.

    Under autocast: float32.
    """
    gram: Tensor = call(torch.ops.vmr.gram_matrix, frames, lengths)
    return gram


def anchor_segment(
    frames: Tensor,
    queries: Tensor,
    lengths: Tensor,
    videos: Tensor | None = None,
    *,
    normalize: bool = True,
    reach_end: bool = False,
) -> tuple[Tensor, Tensor]:
    """The frame that is most like the query, and the segment around it; eqs. 1 to 5.

    ::

        v^e_i = cos(q, v_i) q + (1 - cos(q, v_i)) v_i
        A     = argmax_i cos(v^e_i, q)
        b^L   = argmax_{b = 1..A} sum_{i = 2..b} cos(v^e_1, v^e_i) + sum_{j = b+1..A} cos(v^e_A, v^e_j)
        b^R   = argmax_{b = A..N} sum_{i = A..b} cos(v^e_A, v^e_i) + sum_{j = b+1..N} cos(v^e_N, v^e_j)

    Of equal frames or sums the first one wins, and a zero vector's cosine is 0. The embedded frames
    are not made: their cosines follow from dot products of q, v_1, v_A and v_N with the frames,
    from which all decisions are taken in float64.

    Args:
        frames: [U, N, D]; N, D >= 1.
        queries: [B, D]; B may be 0.
        lengths: [U] int64.
        videos: [B] int64; where None, query b is about video b.
        normalize: eq. 1 on frames and queries of length one. Else their lengths matter there.
        reach_end: as the paper has it the last frame is never worth including, since its similarity
            to itself, 1, is lost to eq. 4 by it: b^R = N only where A = N. True leaves that term out.

    Returns:
        ``(anchors, segments)``: [B] and [B, 2] int64, counted from 0; a segment is its first and last
        frame (both included).

    Not differentiable. Under autocast: float32.
    """
    anchors, segments = call(
        torch.ops.vmr.anchor_segment,
        _constant(frames),
        _constant(queries),
        lengths,
        _own(videos, queries),
        normalize,
        reach_end,
    )
    return anchors, segments


def attention_pool(
    frames: Tensor, vectors: Tensor, segments: Tensor, videos: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Attention of the queries to the frames of their segments, eqs. 6 to 8 before V^g.

    ::

        A^g = softmax(v_i . u + m_i), pooled = sum_i A^g_i v_i

    with u = (K^g)^T Q^g q; the paper's g is V^g pooled. Only the frames of a segment are read.

    Args:
        frames: [U, N, D]; N, D >= 1.
        vectors: [B, D] u; B may be 0.
        segments: [B, 2] int64, first and last frame (both included), 0 <= first <= last < N.
        videos: [B] int64; where None, query b is about video b.

    Returns:
        ``(pooled, weights)``: [B, D] and [B, N], zeros outside the segment. Differentiable in
        ``frames`` and ``vectors``.

    Under autocast: float32.
    """
    pooled, weights = call(
        torch.ops.vmr.attention_pool, frames, vectors, segments, _own(videos, vectors)
    )
    return pooled, weights


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
    """How relevant each frame is, and how far it is moved to the query; eqs. 9 and 11.

    ::

        r_i     = tanh(v_i . z + relevance_offset)
        alpha_i = sigmoid(r_i v_i . y + alignment_offset) within the segment, and 0 outside of it

    with z = w (W_1^r)^T W_2^r g and y = (W_1^a)^T W_2^a q; the offsets are beta, and what biases give.
    The frames are read once.

    Args:
        frames: [U, N, D]; N, D >= 1.
        queries: [B, D]; B may be 0.
        relevance_vectors: [B, D] z.
        relevance_offsets: [B].
        alignment_vectors: [B, D] y.
        alignment_offsets: [B].
        segments: [B, 2] int64, first and last frame (both included), 0 <= first <= last < N.
        lengths: [U] int64.
        videos: [B] int64; where None, query b is about video b.
        reweight: False for r = 1, without eq. 9.
        align: False for alpha = 0, without eq. 11.

    Returns:
        ``(relevance, weights, dots)``, [B, N] each: r, alpha, and v_i . q, zeros in the padding.
        Differentiable in the six floating-point arguments.

    Under autocast: float32.
    """
    relevance, weights, dots = call(
        torch.ops.vmr.frame_alignment,
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
    return relevance, weights, dots


def aligned_frames(
    frames: Tensor,
    queries: Tensor,
    relevance: Tensor,
    weights: Tensor,
    lengths: Tensor,
    videos: Tensor | None = None,
) -> Tensor:
    """The aligned frames themselves, eqs. 10 and 12: v^a_i = alpha_i q + (1 - alpha_i) r_i v_i.

    :func:`aligned_similarity` does without them.

    Args:
        frames: [U, N, D]; N, D >= 1.
        queries: [B, D]; B may be 0.
        relevance: [B, N] r.
        weights: [B, N] alpha.
        lengths: [U] int64.
        videos: [B] int64; where None, query b is about video b.

    Returns:
        [B, N, D], zeros in the padding. Differentiable in the four floating-point arguments.

    Under autocast: float32.
    """
    aligned: Tensor = call(
        torch.ops.vmr.aligned_frames,
        frames,
        queries,
        relevance,
        weights,
        lengths,
        _own(videos, queries),
    )
    return aligned


def aligned_similarity(
    gram: Tensor,
    query_dots: Tensor,
    query_norms: Tensor,
    relevance: Tensor,
    weights: Tensor,
    lengths: Tensor,
    videos: Tensor | None = None,
) -> Tensor:
    """Cosines of the aligned frames with one another, S^a of eq. 13, without these frames.

    With x = alpha and y = (1 - alpha) r, an aligned frame is x q + y v::

        v^a_i . v^a_j = x_i x_j |q|^2 + x_i y_j v_j . q + y_i x_j v_i . q + y_i y_j v_i . v_j

    Where r < 0 a frame may cancel out with the query, and rounding is all that is left of its
    direction. A squared norm counts as at least 1e-5 times what it were if the two terms were
    orthogonal, plus 1e-12; where it does, its gradient goes to these terms. Cosines are cut off at -1
    and 1, where no gradient passes.

    Args:
        gram: [U, N, N] of :func:`gram_matrix`; symmetric.
        query_dots: [B, N] v_i . q; B may be 0.
        query_norms: [B] |q|^2.
        relevance: [B, N] r.
        weights: [B, N] alpha.
        lengths: [U] int64.
        videos: [B] int64; where None, query b is about video b.

    Returns:
        [B, N, N], zeros in the padding. Differentiable in the five floating-point arguments.

    Under autocast: float32.
    """
    similarity: Tensor = call(
        torch.ops.vmr.aligned_similarity,
        gram,
        query_dots,
        query_norms,
        relevance,
        weights,
        lengths,
        _own(videos, relevance),
    )
    return similarity


def _own(videos: Tensor | None, queries: Tensor) -> Tensor:
    """Which video each query is about; where it is not said, there is one video a query."""
    if videos is not None:
        return videos
    return torch.arange(queries.shape[0], device=queries.device)


def _constant(tensor: Tensor) -> Tensor:
    return tensor.detach() if tensor.requires_grad else tensor


# ---- fake kernels ----


def _like(tensor: Tensor, wanted: bool = True) -> Tensor:
    return tensor.new_empty(tensor.shape if wanted else (0,))


def _fake_gram_matrix(frames: Tensor, lengths: Tensor) -> Tensor:
    return frames.new_empty(frames.shape[0], frames.shape[1], frames.shape[1])


def _fake_gram_matrix_backward(output_gradients: Tensor, frames: Tensor, *_: Any) -> Tensor:
    return _like(frames)


def _fake_anchor_segment(frames: Tensor, queries: Tensor, *_: Any) -> tuple[Tensor, Tensor]:
    count = queries.shape[0]
    return (
        queries.new_empty(count, dtype=torch.int64),
        queries.new_empty((count, 2), dtype=torch.int64),
    )


def _fake_attention_pool(frames: Tensor, vectors: Tensor, *_: Any) -> tuple[Tensor, Tensor]:
    return _like(vectors), vectors.new_empty(vectors.shape[0], frames.shape[1])


def _fake_attention_pool_backward(
    pooled_gradients: Tensor,
    weight_gradients: Tensor,
    frames: Tensor,
    vectors: Tensor,
    segments: Tensor,
    videos: Tensor,
    frames_wanted: bool,
) -> tuple[Tensor, Tensor]:
    return _like(frames, frames_wanted), _like(vectors)


def _fake_frame_alignment(frames: Tensor, queries: Tensor, *_: Any) -> tuple[Tensor, ...]:
    return tuple(queries.new_empty(queries.shape[0], frames.shape[1]) for _ in range(3))


def _fake_frame_alignment_backward(
    relevance_gradients: Tensor,
    weight_gradients: Tensor,
    dot_gradients: Tensor,
    frames: Tensor,
    queries: Tensor,
    *others: Any,
) -> tuple[Tensor, ...]:
    *_, frames_wanted, queries_wanted = others
    return (
        _like(frames, frames_wanted),
        _like(queries, queries_wanted),
        *(_like(tensor) for tensor in others[:4]),
    )


def _fake_aligned_frames(frames: Tensor, queries: Tensor, *_: Any) -> Tensor:
    return queries.new_empty(queries.shape[0], *frames.shape[1:])


def _fake_aligned_frames_backward(
    output_gradients: Tensor,
    frames: Tensor,
    queries: Tensor,
    relevance: Tensor,
    weights: Tensor,
    lengths: Tensor,
    videos: Tensor,
    frames_wanted: bool,
) -> tuple[Tensor, ...]:
    return _like(frames, frames_wanted), _like(queries), _like(relevance), _like(weights)


def _fake_aligned_similarity(gram: Tensor, query_dots: Tensor, *_: Any) -> Tensor:
    return query_dots.new_empty(*query_dots.shape, gram.shape[-1])


def _fake_aligned_similarity_backward(
    output_gradients: Tensor, gram: Tensor, *others: Any
) -> tuple[Tensor, ...]:
    *_, gram_wanted = others
    return (_like(gram, gram_wanted), *(_like(tensor) for tensor in others[:4]))


# ---- gradients; those of frames, queries and the Gram matrix only where somebody asked for them ----


def _gram_matrix_backward(context: Any, gradients: Tensor) -> tuple[Tensor | None, ...]:
    return torch.ops.vmr.gram_matrix_backward(gradients, *context.saved_tensors), None


def _attention_pool_backward(context: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
    wanted = context.needs_input_grad[0]
    to_frames, to_vectors = torch.ops.vmr.attention_pool_backward(
        *gradients, *context.saved_tensors, wanted
    )
    return to_frames if wanted else None, to_vectors, None, None


def _frame_alignment_backward(context: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
    wanted = context.needs_input_grad[:2]
    to_frames, to_queries, *others = torch.ops.vmr.frame_alignment_backward(
        *gradients, *context.saved_tensors, *context.settings, *wanted
    )
    return (
        to_frames if wanted[0] else None,
        to_queries if wanted[1] else None,
        *others,
        *[None] * 5,
    )


def _aligned_frames_backward(context: Any, gradients: Tensor) -> tuple[Tensor | None, ...]:
    wanted = context.needs_input_grad[0]
    to_frames, *others = torch.ops.vmr.aligned_frames_backward(
        gradients, *context.saved_tensors, wanted
    )
    return (to_frames if wanted else None, *others, None, None)


def _aligned_similarity_backward(context: Any, gradients: Tensor) -> tuple[Tensor | None, ...]:
    wanted = context.needs_input_grad[0]
    to_gram, *others = torch.ops.vmr.aligned_similarity_backward(
        gradients, *context.saved_tensors, wanted
    )
    return (to_gram if wanted else None, *others, None, None)


register(
    "gram_matrix",
    reference=reference.gram_matrix,
    fake=_fake_gram_matrix,
    backward=_gram_matrix_backward,
)
register(
    "gram_matrix_backward",
    reference=reference.gram_matrix_backward,
    fake=_fake_gram_matrix_backward,
)
register("anchor_segment", reference=reference.anchor_segment, fake=_fake_anchor_segment)
register(
    "attention_pool",
    reference=reference.attention_pool,
    fake=_fake_attention_pool,
    backward=_attention_pool_backward,
)
register(
    "attention_pool_backward",
    reference=reference.attention_pool_backward,
    fake=_fake_attention_pool_backward,
)
register(
    "frame_alignment",
    reference=reference.frame_alignment,
    fake=_fake_frame_alignment,
    backward=_frame_alignment_backward,
)
register(
    "frame_alignment_backward",
    reference=reference.frame_alignment_backward,
    fake=_fake_frame_alignment_backward,
)
register(
    "aligned_frames",
    reference=reference.aligned_frames,
    fake=_fake_aligned_frames,
    backward=_aligned_frames_backward,
)
register(
    "aligned_frames_backward",
    reference=reference.aligned_frames_backward,
    fake=_fake_aligned_frames_backward,
)
register(
    "aligned_similarity",
    reference=reference.aligned_similarity,
    fake=_fake_aligned_similarity,
    backward=_aligned_similarity_backward,
)
register(
    "aligned_similarity_backward",
    reference=reference.aligned_similarity_backward,
    fake=_fake_aligned_similarity_backward,
)
