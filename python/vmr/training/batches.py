"""Which queries a step learns from: a function of seed and step, whatever process asks."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from torch.utils.data import Sampler

from vmr.errors import InputError


class EpochBatches(Sampler[list[int]]):
    """The batches of a run from step ``start`` on; for a DataLoader's ``batch_sampler``.

    An epoch has ceil(count / batch_size) batches whose sizes differ by one at most, so that no batch is
    tiny and no query is left out. Every process takes its share of each batch and cuts it into
    ``accumulate`` parts, which come one after the other.

    Args:
        count: Queries.
        batch_size: Queries a step, over all processes and parts.
        epochs: Of the run.
        seed: Of the order.
        start: The step to begin with.
        rank: Of this process.
        world: Processes.
        accumulate: Parts that a share is cut into.

    Attributes:
        per_epoch: Steps of an epoch.
        steps: Of the run; ``len`` counts the parts that are left.

    Raises:
        InputError: A batch has fewer queries than there are parts.
    """

    def __init__(
        self,
        count: int,
        batch_size: int,
        epochs: int,
        *,
        seed: int = 0,
        start: int = 0,
        rank: int = 0,
        world: int = 1,
        accumulate: int = 1,
    ) -> None:
        self.per_epoch = -(-count // batch_size)
        self.steps = self.per_epoch * epochs
        self._count, self._seed, self._start = count, seed, start
        self._rank, self._world, self._accumulate = rank, world, accumulate
        smallest = count // self.per_epoch
        if smallest < world * accumulate:
            raise InputError(
                f"batch size: {count} queries in batches of {batch_size} make batches of "
                f"{smallest}, too few for {world} processes with {accumulate} parts each; take a "
                "larger batch, fewer processes or fewer parts"
            )

    def __len__(self) -> int:
        return (self.steps - self._start) * self._accumulate

    def __iter__(self) -> Iterator[list[int]]:
        order: list[list[int]] = []
        for step in range(self._start, self.steps):
            epoch, place = divmod(step, self.per_epoch)
            if place == 0 or not order:
                order = self._epoch(epoch)
            share = order[place][self._rank :: self._world]
            for part in range(self._accumulate):
                yield share[part :: self._accumulate]

    def _epoch(self, epoch: int) -> list[list[int]]:
        shuffled = np.random.default_rng([self._seed, epoch]).permutation(self._count)
        return [batch.tolist() for batch in np.array_split(shuffled, self.per_epoch)]
