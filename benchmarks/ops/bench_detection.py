"""The detector's large convolutions: 16 to 16 and 1 to 16 channels, 75 frames, kernels of 21 and 27.

python benchmarks/ops/bench_detection.py --out benchmarks/results/detection.md

With --rule: how long the FFT and the direct way take, which the choice between them follows.
"""

from __future__ import annotations

import copy
import sys
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from vmr import ops

sys.path.insert(0, str(Path(__file__).parents[1]))
from timing import Comparison, main, measure

CHANNELS = 16


def layers(inputs: int, kernel: int) -> tuple[torch.nn.Conv2d, torch.nn.Conv2d]:
    """A layer as people write it, and the same in channels_last."""
    torch.manual_seed(0)
    literal = torch.nn.Conv2d(inputs, CHANNELS, kernel, padding=kernel // 2)
    last = copy.deepcopy(literal).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return literal, last


def compare(
    inputs: int, kernel: int, batch: int, frames: int = 75, repeats: int = 3
) -> list[Comparison]:
    """Forward, and forward and backward, of one layer, after all contenders were found to agree."""
    literal, last = layers(inputs, kernel)
    maps = torch.randn(batch, inputs, frames, frames)
    of_result = torch.randn(batch, CHANNELS, frames, frames)
    maps_last = maps.contiguous(memory_format=torch.channels_last)
    ours, of_ours = (t.permute(0, 2, 3, 1).contiguous() for t in (maps, of_result))
    lengths = torch.full((batch,), frames)
    weight, bias = literal.weight, literal.bias
    assert bias is not None
    spectrum = ops.kernel_spectrum(weight, frames)

    def vmr() -> Tensor:
        return ops.large_conv2d(ours, weight, bias, lengths)

    def kept() -> Tensor:
        return ops.large_conv2d(ours, weight, bias, lengths, spectrum=spectrum)

    def without_gradients(forward: Callable[[], Tensor]) -> Callable[[], Tensor]:
        return torch.no_grad()(forward)

    def with_backward(
        forward: Callable[[Tensor], Tensor],
        given: Tensor,
        parameters: list[Tensor],
        gradient: Tensor,
    ) -> Callable[[], object]:
        leaf = given.clone().requires_grad_()
        return lambda: torch.autograd.grad(forward(leaf), [leaf, *parameters], gradient)

    forward = {
        "Conv2d": without_gradients(lambda: literal(maps)),
        "Conv2d, channels_last": without_gradients(lambda: last(maps_last)),
        "vmr": without_gradients(vmr),
        "vmr, spectrum kept": without_gradients(kept),
    }
    wanted = forward["Conv2d"]().permute(0, 2, 3, 1)
    for run in (forward["vmr"], forward["vmr, spectrum kept"]):
        torch.testing.assert_close(run(), wanted, rtol=1e-4, atol=1e-4)
    # torch's channels_last backward takes 20 times as long as its own plain one (42 s at B = 8).
    both = {
        "Conv2d": with_backward(literal, maps, [*literal.parameters()], of_result),
        "vmr": with_backward(
            lambda leaf: ops.large_conv2d(leaf, weight, bias, lengths),
            ours,
            [weight, bias],
            of_ours,
        ),
    }
    name = f"{inputs} to {CHANNELS} channels, {kernel} x {kernel}, N = {frames}, B = {batch}"
    return [
        Comparison(f"{name}: forward", forward, repeats),
        Comparison(f"{name}: forward and backward", both, repeats),
    ]


def comparisons() -> list[Comparison]:
    """The two layers of eq. 13, batches of 1 and 8, and a map that goes in tiles."""
    found = []
    for inputs, kernel, batch in [(16, 21, 8), (1, 21, 8), (16, 27, 8), (16, 21, 1)]:
        found += compare(inputs, kernel, batch)
    found += compare(16, 21, 1, frames=600, repeats=2)[:1]
    return found


def print_rule() -> None:
    """Forward times of channels_last Conv2d over those of the FFT, for each kernel and size of map."""
    torch.set_num_threads(1)
    print("| channels | frames | kernel | FFT size | Conv2d, channels_last / vmr |")
    print("|---:|---:|---:|---:|---:|")
    for inputs in (1, CHANNELS):
        for frames in (10, 25, 75, 150):
            for kernel in (3, 5, 7, 9, 11, 15, 21):
                contenders = compare(inputs, kernel, 8, frames)[0].contenders
                names = ("Conv2d, channels_last", "vmr")
                rows = measure(Comparison("", {name: contenders[name] for name in names}, 5))
                size = ops.spectrum_size(frames, kernel)
                ratio = rows[0].fastest / rows[1].fastest
                print(f"| {inputs} | {frames} | {kernel} | {size} | {ratio:.2f} |", flush=True)


if __name__ == "__main__":
    if "--rule" in sys.argv:
        print_rule()
    else:
        main(
            "Large convolutions of the similarity map (float32)",
            comparisons,
            __file__,
        )
