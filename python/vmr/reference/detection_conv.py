"""The detector on the map of frame-to-frame similarities in plain PyTorch."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from vmr import _core
from vmr.reference.common import gradients, valid_frames, widened


def _outside(maps: Tensor, lengths: Tensor) -> Tensor:
    """Which points [B, N, N, 1] of the maps lie outside each sample's [:n, :n]."""
    beyond = ~valid_frames(lengths, maps.shape[1])
    return (beyond.unsqueeze(2) | beyond.unsqueeze(1)).unsqueeze(3)


def large_conv2d(maps: Tensor, weight: Tensor, bias: Tensor, lengths: Tensor) -> Tensor:
    """The convolution of each sample's valid part, as torch.nn.Conv2d has it, by F.conv2d."""
    outside = _outside(maps, lengths)
    given = widened(maps).masked_fill(outside, 0.0).permute(0, 3, 1, 2)
    found = F.conv2d(given, widened(weight), widened(bias), padding=weight.shape[2] // 2)
    return found.permute(0, 2, 3, 1).masked_fill(outside, 0.0).contiguous().to(maps.dtype)


def large_conv2d_kept(
    maps: Tensor, weight: Tensor, bias: Tensor, lengths: Tensor, spectrum: Tensor
) -> Tensor:
    """The same; the spectrum is of use to the CPU's kernels only."""
    return large_conv2d(maps, weight, bias, lengths)


def large_conv2d_spectrum(weight: Tensor, frames: int) -> Tensor:
    """The kernels' transform as the CPU's kernels read it, [F / 2 + 1, F, K]; empty without one."""
    weight = widened(weight)
    outputs, kernel = weight.shape[0], weight.shape[2]
    size = _core.convolution_size(frames, kernel)
    if size == 0:
        return weight.new_zeros(0, 0, 0)
    turned = weight.flip(2, 3)  # a correlation as a convolution
    transform = torch.fft.rfft2(turned, s=(size, size)) / size**2
    by_frequency = torch.view_as_real(transform).permute(
        3, 2, 1, 4, 0
    )  # x, y, in, real / imag, out
    padded = F.pad(by_frequency, (0, -outputs % 16)).flatten(2)
    return F.pad(padded, (0, 16)).contiguous()


def large_conv2d_backward(
    output_gradients: Tensor, maps: Tensor, weight: Tensor, lengths: Tensor, maps_wanted: bool
) -> tuple[Tensor, ...]:
    """The gradients of maps (none for no maps, unless they are wanted), of weight and of bias."""
    bias = weight.new_zeros(weight.shape[0])
    to_maps, to_weight, to_bias = gradients(
        large_conv2d, output_gradients, (maps, weight, bias, lengths)
    )
    return to_maps if maps_wanted else maps.new_empty(0, *maps.shape[1:]), to_weight, to_bias
