"""The similarity of queries and frames before and after alignment, over a data set."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch.utils.data import DataLoader

from vmr.data.dataset import collate
from vmr.errors import InputError
from vmr.evaluation.separation import Separation
from vmr.models.layers.padding import row_mask
from vmr.models.layers.targets import relative_windows, rows_inside
from vmr.progress import Progress, silent

if TYPE_CHECKING:
    from vmr.data.dataset import MomentDataset
    from vmr.models.afa_fsgd import A2FAF2SGD


@torch.no_grad()
def query_cosines(
    model: A2FAF2SGD,
    dataset: MomentDataset,
    *,
    batch_size: int = 100,
    device: torch.device | str = "cpu",
    progress: Progress = silent,
) -> dict[str, Separation]:
    """The cosines of each query with the frames of its video inside and outside of its ground truth.

    What Fig. 5 of Tan et al. (CVPR 2025) shows; :func:`vmr.viz.cosine_distributions` draws it. A frame
    is inside where its middle is. Queries without a window that the features cover say nothing.

    Args:
        model: Its mode is set to evaluation for the time of the call.
        dataset: Queries with ground truth, made with ``pooled=True``.
        batch_size: Queries at once.
        device: Where the model is already.
        progress: Told how many queries are done.

    Returns:
        "before alignment" and "after alignment".

    Raises:
        InputError: Another model, no query has a window, or as :meth:`vmr.A2FAF2SGD.inputs`.
    """
    from vmr.models.afa_fsgd import A2FAF2SGD

    if not isinstance(model, A2FAF2SGD):
        raise InputError(f"query_cosines: expected a model of afa-fsgd, got {type(model).__name__}")
    parts: dict[str, list[np.ndarray]] = {
        f"{when} {where}": [] for when in ("before", "after") for where in ("inside", "outside")
    }
    was_training, done = model.training, 0
    model.eval()
    try:
        for batch in DataLoader(dataset, batch_size=batch_size, collate_fn=collate):
            batch = batch.to(device)
            outputs = model.forward(**model.inputs(batch))
            windows, rows = relative_windows(batch), batch.video.shape[1]
            inside = rows_inside(windows, batch.video_lengths, rows)
            counts = row_mask(batch.video_lengths, rows) & (windows.counts > 0)[:, None]
            for when, cosines in (("before", outputs.before), ("after", outputs.after)):
                for where, chosen in (("inside", inside), ("outside", ~inside)):
                    found = cosines[chosen & counts].double().cpu().numpy()
                    parts[f"{when} {where}"].append(found)
            done += len(batch)
            progress("comparing", done, len(dataset))
    finally:
        model.train(was_training)
    joined = {name: np.concatenate(values) for name, values in parts.items()}
    if not len(joined["before inside"]):
        raise InputError(
            f"query_cosines: expected queries with ground truth, got {len(dataset)} without a window"
        )
    return {
        f"{when} alignment": Separation(joined[f"{when} inside"], joined[f"{when} outside"])
        for when in ("before", "after")
    }
