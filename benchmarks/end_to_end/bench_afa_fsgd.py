"""A whole training step and a whole inference of A2FA + F2SGD, against the paper read literally.

python benchmarks/end_to_end/bench_afa_fsgd.py --out benchmarks/results/afa-fsgd.md
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import torch
from literal_afa_fsgd import Literal
from torch import Tensor, nn

from vmr.models.afa_fsgd import A2FAF2SGD, A2FAF2SGDConfig

sys.path.insert(0, str(Path(__file__).parents[1]))
from timing import Comparison, main

FRAMES, DIM, KERNEL, TOP_K = 75, 512, 21, 10


def new_model() -> A2FAF2SGD:
    """The paper's for QVHighlights."""
    torch.manual_seed(0)
    return A2FAF2SGD(A2FAF2SGDConfig(video_dim=DIM, text_dim=DIM, kernel_size=KERNEL, top_k=TOP_K))


def inputs(batch: int, frames: int = FRAMES) -> tuple[Tensor, Tensor, Tensor]:
    """Videos of scenes, sentences that are like one of each video's scenes, lengths."""
    random = torch.Generator().manual_seed(1)
    scene_of = torch.arange(frames) * 6 // frames
    scenes = torch.randn(batch, 6, DIM, generator=random)
    video = scenes[:, scene_of] + 0.7 * torch.randn(batch, frames, DIM, generator=random)
    queries = scenes[:, 2] + 0.7 * torch.randn(batch, DIM, generator=random)
    return video, torch.full((batch,), frames), queries


def ground_truth(batch: int) -> tuple[Tensor, Tensor]:
    """A moment a sentence."""
    points = torch.tensor([[25, 36]]).repeat(batch, 1)
    return points, torch.arange(batch + 1)


def ours_step(model: A2FAF2SGD, batch: int) -> Callable[[], object]:
    video, lengths, queries = inputs(batch)
    points, splits = ground_truth(batch)
    optimiser = torch.optim.Adam(model.parameters(), lr=1e-4)

    def step() -> None:
        optimiser.zero_grad()
        scores = model(video, lengths, queries).scores
        model.detection.loss(scores, points, splits, lengths).mean().backward()
        optimiser.step()

    return step


def literal_step(model: nn.Module, literal: Literal, batch: int) -> Callable[[], object]:
    video, lengths, queries = inputs(batch)
    points, splits = ground_truth(batch)
    optimiser = torch.optim.Adam(literal.parameters(), lr=1e-4)

    def step() -> None:
        optimiser.zero_grad()
        scores = model(video, lengths, queries)
        literal.loss(scores, points, splits, lengths).mean().backward()
        optimiser.step()

    return step


def ours_answers(model: A2FAF2SGD, batch: int) -> Callable[[], object]:
    video, lengths, queries = inputs(batch)
    seconds = torch.full((batch,), 2.0)

    @torch.no_grad()
    def answer() -> Tensor:
        scores = model(video, lengths, queries).scores
        return model.detection.moments(scores, lengths, seconds, TOP_K)[0]

    return answer


def literal_answers(model: nn.Module, literal: Literal, batch: int) -> Callable[[], object]:
    video, lengths, queries = inputs(batch)

    @torch.no_grad()
    def answer() -> Tensor:
        return literal.best(model(video, lengths, queries), lengths, TOP_K)

    return answer


def same_numbers() -> None:
    """The contenders compute the same."""
    model = new_model().eval()
    video, lengths, queries = inputs(2)
    with torch.no_grad():
        wanted = Literal(model, channels_last=False)(video, lengths, queries)
        torch.testing.assert_close(
            model(video, lengths, queries).scores, wanted, rtol=1e-3, atol=1e-4
        )


def comparisons() -> list[Comparison]:
    """Both, on batches of 32 and of one."""
    same_numbers()
    found = []
    for batch, repeats in ((32, 2), (1, 9)):
        model = new_model()
        plain = Literal(new_model(), channels_last=False)
        last = Literal(new_model(), channels_last=True)
        compiled = Literal(new_model(), channels_last=True)
        fast: nn.Module = torch.compile(compiled)
        found += [
            Comparison(
                f"training step, B = {batch}",
                {
                    "vmr": ours_step(model, batch),
                    "literal PyTorch": literal_step(plain, plain, batch),
                    "literal, channels_last": literal_step(last, last, batch),
                    "literal, channels_last, torch.compile": literal_step(fast, compiled, batch),
                },
                repeats,
            ),
            Comparison(
                f"inference, B = {batch}",
                {
                    "vmr": ours_answers(model, batch),
                    "literal PyTorch": literal_answers(plain, plain, batch),
                    "literal, channels_last": literal_answers(last, last, batch),
                    "literal, channels_last, torch.compile": literal_answers(fast, compiled, batch),
                },
                repeats,
            ),
        ]
    return found


if __name__ == "__main__":
    main(
        f"A2FA + F2SGD: N = {FRAMES}, D = {DIM}, C = {KERNEL}, 16 channels, float32",
        comparisons,
        __file__,
    )
