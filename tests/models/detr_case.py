"""A small Moment-DETR and batches for it, the same in every run: tests and tests/golden use them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from vmr.data.dataset import Batch, Item, collate
from vmr.data.records import Query, Saliency
from vmr.models.moment_detr import MomentDETRConfig

VIDEO, TEXT = 6, 5
CONFIG = MomentDETRConfig(
    video_dim=VIDEO,
    text_dim=TEXT,
    hidden=16,
    heads=4,
    feed_forward=24,
    dropout=0.0,
    input_dropout=0.0,
    moment_queries=4,
    contrastive_align=0.02,
    contrastive_dim=8,
)


def numbers(name: str, *shape: int) -> Tensor:
    """Normally distributed, of a generator of their own: torch's may change between versions."""
    seed = [ord(letter) for letter in name]
    return torch.from_numpy(np.random.default_rng(seed).normal(size=shape).astype(np.float32))


def weight(name: str, *shape: int) -> Tensor:
    """A weight that depends on its name alone, of the size that training would give it."""
    drawn = numbers(name, *shape) / max(shape[-1], 4) ** 0.5
    return drawn + (1 if name.endswith("weight") and drawn.dim() == 1 else 0)


def draw_weights(model: nn.Module) -> None:
    """Weights that depend on their names alone; single numbers stay as they are."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.dim():
                parameter.copy_(weight(name, *parameter.shape))


def item(
    name: str,
    rows: int,
    tokens: int,
    windows: Sequence[tuple[float, float]] | None,
    scores: dict[int, float] | None = None,
    *,
    row_seconds: float = 2.0,
) -> Item:
    """A query with features; scores of 2-s clips by their number."""
    duration = rows * row_seconds
    clips = round(duration / 2)
    saliency = None
    if scores is not None:
        rated = tuple((score,) for score in scores.values())
        saliency = Saliency(tuple(scores), rated, clips, 2.0)
    query = Query(
        qid=name,
        video=f"video {name}",
        text=f"query {name}",
        duration=duration,
        windows=None if windows is None else tuple(windows),
        saliency=saliency,
    )
    row_scores = None
    if saliency is not None:
        places = ((np.arange(rows) + 0.5) * row_seconds / 2).astype(int)
        row_scores = torch.from_numpy(saliency.dense()[places, 0].astype(np.float32))
    return Item(
        query=query,
        video=numbers(f"video {name}", rows, VIDEO),
        row_seconds=row_seconds,
        text=numbers(f"text {name}", tokens, TEXT),
        pooled=numbers(f"pooled {name}", TEXT),
        windows=torch.tensor(windows or (), dtype=torch.float32).reshape(-1, 2),
        saliency=row_scores,
    )


def items() -> list[Item]:
    """Queries as QVHighlights has them: windows of whole clips, all clips in them scored.

    Sentences have one length: over padded tokens the published alignment loss sums as well.
    """
    return [
        item("a", 9, 4, [(2, 8)], {1: 1, 2: 3, 3: 2}),
        item("b", 5, 4, [(0, 2), (4, 10)], {0: 2, 2: 2, 3: 1, 4: 4}),
        item("c", 12, 4, [(10, 12), (0, 4), (16, 22)], {5: 1, 0: 4, 1: 2, 8: 2, 9: 3, 10: 1}),
    ]


def batch(chosen: Sequence[Item] | None = None, **changes: Any) -> Batch:
    """A batch of :func:`items` or others, with fields replaced."""
    made = collate(items() if chosen is None else chosen)
    for name, value in changes.items():
        object.__setattr__(made, name, value)
    return made
