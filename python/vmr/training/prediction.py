"""What a model answers for a data set."""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch.utils.data import DataLoader, Subset

from vmr.data.dataset import MomentDataset, collate
from vmr.evaluation.predictions import Prediction
from vmr.models.base import MomentModel
from vmr.progress import Progress, silent
from vmr.training.distributed import rank_and_world
from vmr.training.environment import reading


@torch.no_grad()
def predict(
    model: MomentModel,
    dataset: MomentDataset,
    *,
    batch_size: int = 100,
    workers: int = 0,
    device: torch.device | str = "cpu",
    progress: Progress = silent,
) -> list[Prediction]:
    """The answers of a model, one a query, in the order of the data set; computed in float32.

    Where a process group runs, every process answers its share, none twice, and all get the whole.

    Args:
        model: Its mode is set to evaluation for the time of the call.
        dataset: The queries and their features.
        batch_size: Queries at once.
        workers: Processes that read features.
        device: Where the model is already.
        progress: Told how far this process is.
    """
    device = torch.device(device)
    rank, world = rank_and_world()
    share = Subset(dataset, range(rank, len(dataset), world))
    batches = DataLoader(
        share, batch_size=batch_size, num_workers=workers, collate_fn=collate,
        generator=torch.Generator(),
    )  # fmt: skip
    was_training = model.training
    model.eval()
    found: list[Prediction] = []
    try:
        with reading(batches) as read:
            for batch in read:
                batch = batch.to(device)
                # Not by calling the model: what training compiled is for its shapes.
                found += model.decode(model.forward(**model.inputs(batch)), batch)
                progress("predicting", len(found), len(share))
    finally:
        model.train(was_training)
    if world == 1:
        return found
    shares: list[list[Prediction]] = [[] for _ in range(world)]
    dist.all_gather_object(shares, found)
    return [shares[place % world][place // world] for place in range(len(dataset))]
