"""The detector on the map of frame-to-frame similarities: convolutions with large kernels."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from vmr import _core
from vmr.ops._library import register
from vmr.reference import detection_conv as reference


def large_conv2d(
    maps: Tensor,
    weight: Tensor,
    bias: Tensor,
    lengths: Tensor,
    *,
    spectrum: Tensor | None = None,
) -> Tensor:
    """2D convolution with large kernels, exact, of the valid part of each map.

    ::

        Y[b, i, j] = bias + sum over u, v of W[:, :, u, v] X[b, i + u - C // 2, j + v - C // 2]

    for i, j < n_b, where what lies outside ``maps[b, :n_b, :n_b]`` counts as zero (and is not read):
    ``torch.nn.Conv2d(Ci, Co, C, padding=C // 2)`` on each sample alone, as the 21 x 21 and 27 x 27
    layers of eq. 13 are (Tan et al., "Anchor-Aware Similarity Cohesion", CVPR 2025). On the CPU it
    goes by FFT where that is faster, on CUDA by torch's convolution. By FFT two samples share a
    transform, so that rounding errors are in proportion to the larger of the two; one that is not
    finite leaves the others' results alone, though not their part of the gradients.

    Args:
        maps: [B, N, N, Ci] with N >= 1, channels last; float32, float64, float16 or bfloat16 (these
            two are computed in float32 on the CPU).
        weight: [Co, Ci, C, C] with an odd C, of the same dtype.
        bias: [Co] of the same dtype.
        lengths: [B] int64, each sample's n, 0 to N.
        spectrum: what :func:`kernel_spectrum` made of ``weight``, for inference: it saves
            transforming the weights at each call. Of other weights it gives wrong results. Then there
            is no derivative.

    Returns:
        [B, N, N, Co] in the dtype of ``maps``, zeros outside the valid parts. Differentiable in
        ``maps``, ``weight`` and ``bias`` without a spectrum.

    Under autocast: float32.
    """
    if spectrum is None:
        convolved: Tensor = torch.ops.vmr.large_conv2d(maps, weight, bias, lengths)
        return convolved
    if torch.is_grad_enabled() and any(t.requires_grad for t in (maps, weight, bias)):
        raise RuntimeError(
            "large_conv2d: with a spectrum there is no derivative, got an argument that requires grad"
        )
    kept: Tensor = torch.ops.vmr.large_conv2d_kept(maps, weight, bias, lengths, spectrum)
    return kept


def kernel_spectrum(weight: Tensor, frames: int) -> Tensor:
    """The transform of ``weight`` [Co, Ci, C, C] that :func:`large_conv2d` may be given.

    Made for maps of N up to ``frames`` and as fast for all N with the same :func:`spectrum_size`;
    with other N the result is the same. Opaque: for this version of vmr and the devices of ``weight``.
    Empty, which is as good as none, where the size is 0, and on CUDA. Not differentiable.
    """
    spectrum: Tensor = torch.ops.vmr.large_conv2d_spectrum(weight.detach(), frames)
    return spectrum


def spectrum_size(frames: int, kernel: int) -> int:
    """The FFT size for maps of N = ``frames`` and C = ``kernel``; 0 where none is taken.

    Two N with the same size share a spectrum.
    """
    return _core.convolution_size(frames, kernel)


def _fake_conv2d(maps: Tensor, weight: Tensor, bias: Tensor, lengths: Tensor) -> Tensor:
    return maps.new_empty(*maps.shape[:3], weight.shape[0])


def _fake_kept(
    maps: Tensor, weight: Tensor, bias: Tensor, lengths: Tensor, spectrum: Tensor
) -> Tensor:
    return _fake_conv2d(maps, weight, bias, lengths)


def _fake_spectrum(weight: Tensor, frames: int) -> Tensor:
    outputs, inputs, kernel, _ = weight.shape
    dtype = torch.float64 if weight.dtype == torch.float64 else torch.float32
    size = 0 if weight.is_cuda else spectrum_size(frames, int(kernel))
    if size == 0:
        return weight.new_empty(0, 0, 0, dtype=dtype)
    row = inputs * 2 * ((outputs + 15) // 16 * 16) + 16
    return weight.new_empty(size // 2 + 1, size, row, dtype=dtype)


def _fake_backward(
    gradients: Tensor, maps: Tensor, weight: Tensor, lengths: Tensor, maps_wanted: bool
) -> tuple[Tensor, Tensor, Tensor]:
    return (
        maps.new_empty(maps.shape if maps_wanted else (0, *maps.shape[1:])),
        weight.new_empty(weight.shape),
        weight.new_empty(weight.shape[0]),
    )


def _conv2d_backward(context: Any, gradients: Tensor) -> Any:
    maps, weight, _, lengths = context.saved_tensors
    maps_wanted = context.needs_input_grad[0]
    to_maps, to_weight, to_bias = torch.ops.vmr.large_conv2d_backward(
        gradients, maps, weight, lengths, maps_wanted
    )
    return to_maps if maps_wanted else None, to_weight, to_bias, None


register(
    "large_conv2d",
    reference=reference.large_conv2d,
    fake=_fake_conv2d,
    backward=_conv2d_backward,
)
register("large_conv2d_kept", reference=reference.large_conv2d_kept, fake=_fake_kept)
register("large_conv2d_spectrum", reference=reference.large_conv2d_spectrum, fake=_fake_spectrum)
register("large_conv2d_backward", reference=reference.large_conv2d_backward, fake=_fake_backward)
