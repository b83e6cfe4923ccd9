"""The tensor operators of vmr: C++ and CUDA kernels behind ordinary PyTorch functions.

They work in eager mode, under autocast, ``torch.compile(fullgraph=True)`` and ``torch.export``. Each
has the same function in plain PyTorch in :mod:`vmr.reference`, which also runs where there is no
kernel for a device.

Wrong shapes, dtypes or values raise a RuntimeError that names the operator, the rule and what came,
unknown names an :class:`vmr.InputError`. On CUDA tensors values (lengths, indices) are not checked,
because that would wait for the GPU: what is out of range is then ignored.
"""

from __future__ import annotations

from vmr.ops._library import HAS_CUDA
from vmr.ops.alignment import (
    aligned_frames,
    aligned_similarity,
    anchor_segment,
    attention_pool,
    frame_alignment,
    gram_matrix,
)
from vmr.ops.background import (
    attentive_pool,
    frame_attention,
    margin_loss,
    probability_loss,
)
from vmr.ops.detection import top_points, vertex_loss
from vmr.ops.detection_conv import kernel_spectrum, large_conv2d, spectrum_size
from vmr.ops.dropout import activated_dropout, residual_dropout
from vmr.ops.granular import granular_proposals, granular_scores
from vmr.ops.spans import assignment, cxw_to_span, span_giou, span_iou, span_nms, span_to_cxw

__all__ = [
    "HAS_CUDA",
    "activated_dropout",
    "aligned_frames",
    "aligned_similarity",
    "anchor_segment",
    "assignment",
    "attention_pool",
    "attentive_pool",
    "cxw_to_span",
    "frame_alignment",
    "frame_attention",
    "gram_matrix",
    "granular_proposals",
    "granular_scores",
    "kernel_spectrum",
    "large_conv2d",
    "margin_loss",
    "probability_loss",
    "residual_dropout",
    "span_giou",
    "span_iou",
    "span_nms",
    "span_to_cxw",
    "spectrum_size",
    "top_points",
    "vertex_loss",
]
