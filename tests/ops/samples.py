"""The one list of sample inputs of every operator, and the one table of tolerances.

A sample is the positional arguments of ``torch.ops.vmr.NAME``. The lists feed equality with the
reference, gradients, opcheck, compile, export, autocast, and the invariances (test_every_op.py).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from tests.ops import alignment_samples as alignment
from tests.ops import background_samples as background
from tests.ops import detection_points_samples as points
from tests.ops import dropout_samples as dropout
from tests.ops.detection_conv_samples import convolutions
from tests.ops.sample import Sample, strided

# Relative and absolute; float32 is accumulated over up to 70 dimensions here.
TOLERANCES = {
    torch.float64: (1e-10, 1e-12),
    torch.float32: (1e-5, 2e-6),
    torch.float16: (2e-3, 1e-3),
    torch.bfloat16: (1.6e-2, 8e-3),
}
DTYPES = list(TOLERANCES)


def granular_inputs(
    queries: int, rewrites: int, frames: int, dim: int, aware: list[list[int]], dtype: torch.dtype
) -> tuple[Tensor, ...]:
    """Random embeddings and the aware frames of each query."""
    random = torch.Generator().manual_seed(queries + 10 * rewrites + 100 * frames + dim)

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=random, dtype=torch.float64).to(dtype)

    rows = [frame for own in aware for frame in own]
    return (
        draw(queries, rewrites, dim),
        draw(queries, rewrites, dim),
        draw(frames, dim),
        draw(len(rows), dim),
        torch.tensor(rows, dtype=torch.int64),
        torch.tensor([0, *(len(own) for own in aware)]).cumsum(0),
    )


def granular_scores(dtype: torch.dtype) -> list[Sample]:
    samples = []
    for min_max in (False, True):
        name = "min_max" if min_max else "cosine"
        plain = granular_inputs(3, 3, 37, 70, [[0, 4, 36], [], list(range(37))], dtype)
        long = granular_inputs(
            2, 2, 300, 16, [list(range(0, 300, 3)), list(range(100, 200))], dtype
        )
        zero = granular_inputs(2, 2, 6, 5, [[1], [0, 5]], dtype)
        for tensor in zero[:4]:
            tensor[0].zero_()
        samples += [
            Sample(name, (*plain, min_max, 0.5, 0.5)),
            Sample(f"{name}, aware only", (*plain, min_max, 0.0, 1.0)),
            Sample(f"{name}, several blocks", (*long, min_max, 0.5, 0.5)),
            Sample(
                f"{name}, not contiguous",
                (*(strided(tensor) for tensor in plain), min_max, 0.5, 0.5),
            ),
            Sample(f"{name}, zero vectors", (*zero, min_max, 0.5, 0.5)),
            Sample(
                f"{name}, one of each",
                (*granular_inputs(1, 1, 1, 1, [[0]], dtype), min_max, 0.5, 0.5),
            ),
            Sample(
                f"{name}, no aware captions, D = 16",
                (*granular_inputs(2, 1, 9, 16, [[], []], dtype), min_max, 0.5, 0.5),
            ),
            Sample(
                f"{name}, no queries", (*granular_inputs(0, 3, 4, 8, [], dtype), min_max, 0.5, 0.5)
            ),
        ]
    return samples


def granular_scores_backward(dtype: torch.dtype) -> list[Sample]:
    samples = []
    for sample in granular_scores(dtype):
        simple, _, agnostic, *_ = sample.arguments
        shape = (simple.shape[0], agnostic.shape[0])
        random = torch.Generator().manual_seed(5)
        gradient = torch.randn(shape, generator=random, dtype=torch.float64).to(dtype)
        samples.append(Sample(sample.name, (gradient, *sample.arguments)))
    return samples


def granular_proposals(dtype: torch.dtype) -> list[Sample]:
    random = torch.Generator().manual_seed(3)
    # Eighths: equal means, and scores equal to the threshold, in every dtype.
    scores = (torch.randint(0, 9, (4, 61), generator=random) / 8).to(dtype)
    lengths = torch.tensor([61, 40, 1, 0])
    thresholds = torch.tensor([0.5, 0.75, 0.125, 0.5], dtype=dtype)
    padded = scores.clone()
    for row, length in zip(padded, lengths.tolist(), strict=True):
        row[length:] = torch.nan
    broken = scores.clone()
    broken[:, ::7] = torch.nan
    broken[:, 3::11] = -torch.inf
    broken[:, 5::13] = torch.inf
    return [
        Sample("neighbours", (scores, lengths, thresholds, 0, 0.0, 0.3, False)),
        Sample("gaps, a quarter dropped", (scores, lengths, thresholds, 2, 25.0, 0.3, False)),
        Sample("by the longest, most dropped", (scores, lengths, thresholds, 1, 100.0, 0.5, True)),
        Sample("a gap longer than the video", (scores, lengths, thresholds, 100, 50.0, 0.3, True)),
        Sample("NaN in the padding", (padded, lengths, thresholds, 1, 30.0, 0.3, False)),
        Sample("NaN and infinite scores", (broken, lengths, thresholds, 3, 40.0, 0.3, False)),
        Sample(
            "nothing is high", (scores, lengths, torch.full_like(thresholds, 9), 1, 0.0, 0.3, True)
        ),
        Sample(
            "not contiguous",
            (strided(scores), strided(lengths), strided(thresholds), 1, 10.0, 0.3, False),
        ),
        # More than a block of CUDA threads looks at in one go.
        Sample(
            "many frames",
            (scores.repeat(1, 20), lengths * 20, thresholds, 1, 30.0, 0.3, False),
        ),
        Sample("one frame", (scores[:1, :1], lengths[2:3], thresholds[2:3], 0, 0.0, 0.3, False)),
        Sample("no queries", (scores[:0], lengths[:0], thresholds[:0], 0, 0.0, 0.3, False)),
    ]


def span_pairs(dtype: torch.dtype) -> list[tuple[str, Tensor, Tensor]]:
    random = torch.Generator().manual_seed(7)

    def spans(*shape: int) -> Tensor:
        starts = torch.rand(*shape, generator=random, dtype=torch.float64) * 10
        widths = torch.rand(*shape, generator=random, dtype=torch.float64) * 5
        return torch.stack([starts, starts + widths], dim=-1).to(dtype)

    # Equal, touching, nested, apart, of length zero (twice in one place), reversed.
    special = torch.tensor(
        [[0, 4], [4, 8], [1, 2], [10, 12], [4, 4], [4, 4], [6, 5], [0, 8]], dtype=dtype
    )
    padded = special.clone()
    padded[5:] = torch.nan
    batch = spans(2, 3, 5), spans(2, 3, 4)
    return [
        ("batch", *batch),
        ("special cases", special, special),
        ("NaN in the padding", padded, special),
        ("not contiguous", strided(batch[0]), strided(batch[1])),
        ("one with one", spans(1), spans(1)),
        ("many with one another", spans(70), spans(90)),
        ("none", spans(2, 0), spans(2, 3)),
        ("empty batch", spans(0, 4), spans(0, 3)),
    ]


def span_iou(dtype: torch.dtype) -> list[Sample]:
    return [Sample(name, (a, b)) for name, a, b in span_pairs(dtype)]


def span_iou_backward(dtype: torch.dtype) -> list[Sample]:
    samples = []
    random = torch.Generator().manual_seed(11)
    for name, a, b in span_pairs(dtype):
        shape = (*a.shape[:-1], b.shape[-2])
        gradient = torch.randn(shape, generator=random, dtype=torch.float64).to(dtype)
        samples.append(Sample(name, (gradient, a, b)))
    return samples


def span_nms(dtype: torch.dtype) -> list[Sample]:
    random = torch.Generator().manual_seed(13)
    starts = torch.randint(0, 40, (3, 50), generator=random)
    widths = torch.randint(0, 12, (3, 50), generator=random)
    spans = torch.stack([starts, starts + widths], dim=-1).to(dtype)
    scores = (torch.randint(0, 17, (3, 50), generator=random) / 16).to(dtype)  # many are equal
    lengths = torch.tensor([50, 20, 0])
    padded_spans, padded_scores = spans.clone(), scores.clone()
    for query, length in enumerate(lengths.tolist()):
        padded_spans[query, length:] = torch.nan
        padded_scores[query, length:] = torch.nan
    broken = scores.clone()
    broken[:, ::3] = torch.nan
    broken[:, 1::5] = -torch.inf
    return [
        Sample("overlapping", (spans, scores, lengths, 0.5, 7)),
        Sample("nothing may overlap", (spans, scores, lengths, 0.0, 50)),
        Sample("everything may", (spans, scores, lengths, 1.0, 60)),
        Sample("NaN in the padding", (padded_spans, padded_scores, lengths, 0.25, 5)),
        Sample("NaN and infinite scores", (spans, broken, lengths, 0.5, 50)),
        Sample("not contiguous", (strided(spans), strided(scores), strided(lengths), 0.5, 7)),
        Sample(
            "many candidates",
            (spans.repeat(1, 24, 1), scores.repeat(1, 24), lengths * 24, 0.5, 20),
        ),
        Sample("one candidate", (spans[:1, :1], scores[:1, :1], torch.tensor([1]), 0.5, 1)),
        Sample("no candidates", (spans[:, :0], scores[:, :0], torch.zeros(3).long(), 0.5, 2)),
        Sample("no queries", (spans[:0], scores[:0], lengths[:0], 0.5, 2)),
    ]


def assignment(dtype: torch.dtype) -> list[Sample]:
    random = torch.Generator().manual_seed(19)
    counts = torch.tensor([6, 3, 1, 0])

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=random, dtype=torch.float64).to(dtype)

    costs = draw(4, 9, 6)
    padded, broken = costs.clone(), costs.clone()
    for problem, count in zip(padded, counts.tolist(), strict=True):
        problem[:, count:] = torch.nan
    broken[:, ::3] = torch.nan
    broken[:, 1::4, ::2] = torch.inf
    broken[:, 2::4, 1::2] = -torch.inf
    ties = torch.randint(0, 3, (4, 9, 6), generator=random).to(dtype)
    return [
        Sample("fewer windows", (costs, counts)),
        Sample("fewer slots", (costs[:, :2].contiguous(), counts)),
        Sample("as many", (costs[:, :6].contiguous(), counts)),
        Sample("equal costs", (ties, counts)),
        Sample("nothing but equal costs", (torch.ones_like(costs), counts)),
        Sample("NaN in the padding", (padded, counts)),
        Sample("NaN and infinite costs", (broken, counts)),
        Sample("NaN alone", (torch.full_like(costs, torch.nan), counts)),
        Sample("of any size", (costs * 10.0 ** torch.arange(-3, 6 - 3, dtype=dtype), counts)),
        Sample("sums overflow", (costs.sign() * torch.finfo(dtype).max, counts)),
        Sample("not contiguous", (strided(costs), strided(counts))),
        # More than a warp has lanes; and, in CUDA, more than its shared memory holds.
        Sample("many windows", (draw(2, 10, 75), torch.tensor([75, 40]))),
        Sample("very many slots", (draw(2, 1500, 3), torch.tensor([3, 2]))),
        Sample("one of each", (draw(1, 1, 1), torch.tensor([1]))),
        Sample("no slots", (costs[:, :0], counts)),
        Sample("no windows", (costs[:, :, :0], torch.zeros(4).long())),
        Sample("no problems", (costs[:0], counts[:0])),
    ]


def large_conv2d(dtype: torch.dtype) -> list[Sample]:
    return [Sample(name, drawn[:4]) for name, drawn in convolutions(dtype)]


def large_conv2d_kept(dtype: torch.dtype) -> list[Sample]:
    # Also a spectrum that was made for other maps, or is none.
    samples = []
    for name, drawn in convolutions(dtype):
        for frames in {drawn.maps.shape[1], 20}:
            spectrum = torch.ops.vmr.large_conv2d_spectrum(drawn.weight, frames)
            samples.append(Sample(f"{name}, made for {frames}", (*drawn[:4], spectrum)))
    return samples


def large_conv2d_spectrum(dtype: torch.dtype) -> list[Sample]:
    return [
        Sample(name, (drawn.weight, drawn.maps.shape[1])) for name, drawn in convolutions(dtype)
    ]


def large_conv2d_backward(dtype: torch.dtype) -> list[Sample]:
    return [
        Sample(
            name + (", maps wanted" if wanted else ""),
            (drawn.gradient, drawn.maps, drawn.weight, drawn.lengths, wanted),
        )
        for name, drawn in convolutions(dtype)
        for wanted in (True, False)
    ]


SAMPLES: dict[str, Callable[[torch.dtype], list[Sample]]] = {
    **alignment.SAMPLES,
    **background.SAMPLES,
    **dropout.SAMPLES,
    "assignment": assignment,
    "granular_scores": granular_scores,
    "granular_scores_backward": granular_scores_backward,
    "granular_proposals": granular_proposals,
    "large_conv2d": large_conv2d,
    "large_conv2d_backward": large_conv2d_backward,
    "large_conv2d_kept": large_conv2d_kept,
    "large_conv2d_spectrum": large_conv2d_spectrum,
    "span_iou": span_iou,
    "span_iou_backward": span_iou_backward,
    "span_giou": span_iou,
    "span_giou_backward": span_iou_backward,
    "span_nms": span_nms,
    "top_points": points.top_points,
    "vertex_loss": points.vertex_loss,
    "vertex_loss_backward": points.vertex_loss_backward,
}
DIFFERENTIABLE = [
    *alignment.DIFFERENTIABLE,
    *background.DIFFERENTIABLE,
    *dropout.DIFFERENTIABLE,
    "granular_scores",
    "large_conv2d",
    "span_iou",
    "span_giou",
    "vertex_loss",
]
