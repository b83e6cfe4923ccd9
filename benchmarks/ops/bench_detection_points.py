"""The vertex loss, forward and backward, and the best points of a map of scores.

python benchmarks/ops/bench_detection_points.py --out benchmarks/results/detection-points.md
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from vmr.ops import detection

sys.path.insert(0, str(Path(__file__).parents[1]))
from timing import Comparison, main

TOP = 10


def torch_loss(scores: Tensor, points: Tensor, upper: bool) -> Tensor:
    """Against an explicit G; one point a query, and no padding."""
    truth = torch.zeros_like(scores)
    truth[torch.arange(len(scores)), points[:, 0], points[:, 1]] = 1
    errors = (scores.sigmoid() - truth).square()
    return (errors.triu() if upper else errors).sum(dim=(1, 2))


def torch_top(scores: Tensor, upper: Tensor) -> tuple[Tensor, Tensor]:
    """The best of the map with what is no moment masked; whichever of equal ones."""
    frames = scores.shape[-1]
    values, places = scores.masked_fill(~upper, -torch.inf).flatten(1).topk(TOP)
    return torch.stack((places // frames, places % frames), dim=-1), values


def with_gradients(loss: Callable[[Tensor], Tensor], scores: Tensor) -> object:
    scores = scores.detach().requires_grad_()
    return torch.autograd.grad(loss(scores).sum(), scores)


def comparisons() -> list[Comparison]:
    """What is measured, after all contenders were found to agree."""
    random = torch.Generator().manual_seed(0)
    found = []
    for batch, frames, repeats in ((32, 75, 25), (1, 3600, 10)):
        scores = torch.randn(batch, frames, frames, generator=random)
        points = torch.randint(0, frames, (batch, 2), generator=random).sort(dim=1).values
        splits = torch.arange(batch + 1)
        lengths = torch.full((batch,), frames)
        upper = torch.ones(frames, frames, dtype=torch.bool).triu()
        for region in ("whole", "upper"):

            def ours(
                scores: Tensor,
                inputs: tuple[Tensor, ...] = (points, splits, lengths),
                region: detection.Region = region,  # type: ignore[assignment]
            ) -> Tensor:
                return detection.vertex_loss(scores, *inputs, region=region)

            def theirs(
                scores: Tensor, points: Tensor = points, upper: bool = region == "upper"
            ) -> Tensor:
                return torch_loss(scores, points, upper)

            name = f"vertex loss of {batch} maps of {frames} x {frames}, {region}"
            torch.testing.assert_close(ours(scores), theirs(scores))
            found += [
                Comparison(
                    name,
                    {
                        "vmr": lambda ours=ours, s=scores: ours(s),
                        "PyTorch": lambda theirs=theirs, s=scores: theirs(s),
                    },
                    repeats,
                ),
                Comparison(
                    f"{name}, forward and backward",
                    {
                        "vmr": lambda ours=ours, s=scores: with_gradients(ours, s),
                        "PyTorch": lambda theirs=theirs, s=scores: with_gradients(theirs, s),
                    },
                    repeats,
                ),
            ]
        best = detection.top_points(scores, lengths, TOP)
        assert torch.equal(best[0], torch_top(scores, upper)[0])
        found.append(
            Comparison(
                f"the best {TOP} points of {batch} maps of {frames} x {frames}",
                {
                    "vmr": lambda s=scores, n=lengths: detection.top_points(s, n, TOP),
                    "PyTorch": lambda s=scores, u=upper: torch_top(s, u),
                },
                repeats,
            )
        )
    return found


if __name__ == "__main__":
    main("Moments as points of a map of scores", comparisons, __file__)
