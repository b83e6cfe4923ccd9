"""The large convolution on examples worked by hand, and its input checks."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from vmr import ops


def arguments(kernel: int = 7, frames: int = 9) -> dict[str, Any]:
    """A convolution of one sample from two channels to three, of zeros."""
    return {
        "maps": torch.zeros(1, frames, frames, 2),
        "weight": torch.zeros(3, 2, kernel, kernel),
        "bias": torch.zeros(3),
        "lengths": torch.tensor([frames]),
    }


@pytest.mark.parametrize("kernel", [3, 7, 21])
def test_one_tap_moves_the_map(kernel: int) -> None:
    given = arguments(kernel)
    given["maps"][0, 4, 5] = torch.tensor([2.0, 10.0])
    # The result at (i, j) takes the map's point one below and one to the left.
    given["weight"][1, 0, kernel // 2 + 1, kernel // 2 - 1] = 3
    given["weight"][1, 1, kernel // 2 + 1, kernel // 2 - 1] = 1
    given["bias"][1] = 0.5
    wanted = torch.zeros(1, 9, 9, 3)
    wanted[..., 1] = 0.5
    wanted[0, 3, 6, 1] = 16.5
    torch.testing.assert_close(ops.large_conv2d(**given), wanted, rtol=0, atol=2e-6)


@pytest.mark.parametrize("kernel", [3, 7])
def test_outside_the_valid_part_nothing_is_read_and_zeros_are_written(kernel: int) -> None:
    given = arguments(kernel)
    given["maps"] = torch.ones(1, 9, 9, 2)
    given["maps"][:, 5:] = torch.nan
    given["maps"][:, :, 5:] = torch.inf
    given["weight"] += 1
    given["bias"] += 1
    given["lengths"] = torch.tensor([5])
    result = ops.large_conv2d(**given)
    assert result[:, 5:].eq(0).all()
    assert result[:, :, 5:].eq(0).all()
    taps = 9 if kernel == 3 else 25  # of two channels, in the middle
    torch.testing.assert_close(result[0, 2, 2], torch.full((3,), 2.0 * taps + 1))
    torch.testing.assert_close(
        result[0, 0, 0], torch.full((3,), 2.0 * (4 if kernel == 3 else 16) + 1)
    )


def test_an_undefined_value_spoils_its_own_pair_of_samples_at_most() -> None:
    random = torch.Generator().manual_seed(1)
    maps = torch.randn(4, 9, 9, 2, generator=random)
    weight = torch.randn(3, 2, 7, 7, generator=random)
    given = weight, torch.zeros(3), torch.full((4,), 9)
    before = ops.large_conv2d(maps, *given)
    maps[3, 0, 0, 0] = torch.nan
    assert torch.equal(ops.large_conv2d(maps, *given)[:2], before[:2])


@pytest.mark.parametrize("frames", [9, 75, 130])
def test_a_spectrum_serves_all_maps(frames: int) -> None:
    random = torch.Generator().manual_seed(2)
    weight = torch.randn(3, 2, 21, 21, generator=random) / 30
    bias = torch.randn(3, generator=random)
    spectrum = ops.kernel_spectrum(weight, frames)
    assert spectrum.shape[1] == ops.spectrum_size(frames, 21)
    for size in (1, 9, 75, 130):
        maps = torch.randn(2, size, size, 2, generator=random)
        lengths = torch.tensor([size, size // 2])
        torch.testing.assert_close(
            ops.large_conv2d(maps, weight, bias, lengths, spectrum=spectrum),
            ops.large_conv2d(maps, weight, bias, lengths),
            rtol=1e-5,
            atol=4e-6,
        )


def test_only_what_asks_for_a_gradient_gets_one() -> None:
    maps, weight, bias, lengths = arguments().values()
    weight.requires_grad_()
    ops.large_conv2d(maps, weight, bias, lengths).sum().backward()
    assert weight.grad is not None
    assert maps.grad is None
    maps.requires_grad_()
    ops.large_conv2d(maps, weight.detach(), bias, lengths).sum().backward()
    assert maps.grad is not None


def test_with_a_spectrum_there_is_no_derivative() -> None:
    given = arguments()
    spectrum = ops.kernel_spectrum(given["weight"], 9)
    given["weight"].requires_grad_()
    with pytest.raises(RuntimeError, match="large_conv2d: with a spectrum there is no derivative"):
        ops.large_conv2d(**given, spectrum=spectrum)
    with torch.no_grad():
        assert ops.large_conv2d(**given, spectrum=spectrum).shape == (1, 9, 9, 3)


def test_without_an_fft_the_spectrum_is_empty_and_as_good_as_none() -> None:
    given = arguments(3)
    assert ops.spectrum_size(9, 3) == 0
    spectrum = ops.kernel_spectrum(given["weight"], 9)
    assert spectrum.numel() == 0
    given["weight"] += 1
    given["maps"] += 1
    assert torch.equal(ops.large_conv2d(**given, spectrum=spectrum), ops.large_conv2d(**given))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"maps": torch.zeros(9, 9, 2)}, r"maps must be \[B, N, N, Ci\], got \[9, 9, 2\]"),
        ({"maps": torch.zeros(1, 9, 8, 2)}, r"maps must be .* with N >= 1, got \[1, 9, 8, 2\]"),
        ({"maps": torch.zeros(1, 0, 0, 2)}, r"maps must be .* with N >= 1, got \[1, 0, 0, 2\]"),
        ({"maps": torch.zeros(1, 9, 9, 2).int()}, r"maps must be float32, .*, got Int"),
        (
            {"weight": torch.zeros(3, 1, 7, 7)},
            r"weight must be .* with maps' Ci, got \[3, 1, 7, 7\]",
        ),
        ({"weight": torch.zeros(3, 2, 7, 5)}, r"weight must be .* an odd C, got \[3, 2, 7, 5\]"),
        ({"weight": torch.zeros(3, 2, 8, 8)}, r"weight must be .* an odd C, got \[3, 2, 8, 8\]"),
        (
            {"weight": torch.zeros(0, 2, 7, 7)},
            r"weight must have at least one channel in .*\[0, 2, 7, 7\]",
        ),
        ({"weight": torch.zeros(3, 2, 7, 7).double()}, r"weight must have the dtype of maps"),
        ({"bias": torch.zeros(2)}, r"bias must be \[Co\] with weight's Co, got \[2\]"),
        ({"bias": torch.zeros(3).double()}, r"bias must have the dtype of maps"),
        ({"lengths": torch.tensor([9, 9])}, r"lengths must be \[B\] with maps' B, got \[2\]"),
        ({"lengths": torch.tensor([9.0])}, r"lengths must be int64, got Float"),
        ({"lengths": torch.tensor([10])}, r"lengths must be between 0 and 9, got 10 at query 0"),
        ({"lengths": torch.tensor([-1])}, r"lengths must be between 0 and 9, got -1 at query 0"),
    ],
)
def test_bad_input_is_refused(changes: dict[str, Tensor], message: str) -> None:
    given = {**arguments(), **changes}
    with pytest.raises(RuntimeError, match="large_conv2d: " + message):
        ops.large_conv2d(**given)


@pytest.mark.parametrize(
    ("spectrum", "message"),
    [
        (torch.zeros(17), r"must be \[F / 2 \+ 1, F, K\] of large_conv2d_spectrum, got \[17\]"),
        (torch.zeros(17, 32, 64), r"for kernels of weight's shape, got \[17, 32, 64\]"),
        (torch.zeros(17, 33, 80), r"for kernels of weight's shape, got \[17, 33, 80\]"),
        (torch.zeros(17, 32, 80).double(), r"spectrum must be Float, .*, got Double"),
    ],
)
def test_a_spectrum_of_other_kernels_is_refused(spectrum: Tensor, message: str) -> None:
    with pytest.raises(RuntimeError, match="large_conv2d_kept: .*" + message):
        ops.large_conv2d(**arguments(), spectrum=spectrum)


def test_other_bad_input_is_refused() -> None:
    maps, weight, _, lengths = arguments().values()
    with pytest.raises(
        RuntimeError, match=r"gradients must be \[B, N, N, Co\], got \[1, 9, 9, 2\]"
    ):
        torch.ops.vmr.large_conv2d_backward(maps, maps, weight, lengths, True)
    with pytest.raises(RuntimeError, match="frames must not be negative, got -1"):
        ops.kernel_spectrum(weight, -1)
    with pytest.raises(RuntimeError, match=r"weight must be \[Co, Ci, C, C\], got \[3\]"):
        ops.kernel_spectrum(torch.zeros(3), 9)
