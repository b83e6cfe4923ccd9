"""Table 9 of BM-DETR: how likely frames match, inside and outside the ground truth, held out."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from vmr.data.dataset import Batch, MomentDataset, collate
from vmr.data.negatives import NegativeQueries, token_embeddings
from vmr.models.base import MomentModel
from vmr.models.bm_detr import BMDETR
from vmr.models.layers.padding import row_mask
from vmr.models.layers.targets import relative_windows, rows_inside

COLUMNS = ("P(f|Q+), inside", "P(f|Q+), outside", "p, inside", "p, outside")
_BATCH = 100


def probabilities(run: Path, dataset: MomentDataset, *, negatives: bool) -> list[float]:
    """The means over queries of the means over their frames, as :data:`COLUMNS`.

    Args:
        run: A training run's folder, of a bm-detr.
        dataset: Held-out queries; those whose moments leave no frame out do not count.
        negatives: Whether each is asked with a negative query, drawn among the held-out queries by the
            paper's rule; the same for all runs.
    """
    model = MomentModel.from_pretrained(run)
    assert isinstance(model, BMDETR)
    found = []
    for batch in _batches(dataset, negatives):
        with torch.no_grad():
            said = model(**model.inputs(batch))
        rows = batch.video.shape[1]
        inside = rows_inside(relative_windows(batch), batch.video_lengths, rows)
        outside = row_mask(batch.video_lengths, rows) & ~inside
        assert said.positive is not None
        assert said.joint is not None
        means = [
            (values * where).sum(1) / where.sum(1)
            for values in (said.positive, said.joint)
            for where in (inside, outside)
        ]
        found.append(torch.stack(means, dim=1))
    values = torch.cat(found)
    kept = values[values.isfinite().all(dim=1)]
    return [float(mean) for mean in kept.mean(dim=0)]


def _batches(dataset: MomentDataset, negatives: bool) -> Iterator[Batch]:
    places: list[Any] = list(range(len(dataset)))
    if negatives:
        pools = NegativeQueries(
            dataset.queries, "paper", embeddings=token_embeddings(dataset.queries, dataset.pack)
        )
        rng = np.random.default_rng(0)
        places = [(place, pools.draw(place, rng)) for place in places]
    for first in range(0, len(places), _BATCH):
        yield collate([dataset[place] for place in places[first : first + _BATCH]])
