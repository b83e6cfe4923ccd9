"""Which queries a step learns from: a function of seed and step, whatever process asks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import Sampler

from vmr.data.negatives import NegativeQueries
from vmr.errors import InputError


class EpochBatches(Sampler[list[int] | list[tuple[int, int]]]):
    """The batches of a run from step ``start`` on; for a DataLoader's ``batch_sampler``.

    An epoch has ceil(count / batch_size) batches whose sizes differ by one at most, so that no batch is
    tiny and no query is left out. Every process takes its share of each batch and cuts it into
    ``accumulate`` parts, which come one after the other.

    With ``videos``, no batch holds two queries of one video. No query is left out for that: an epoch has
    at least as many batches as any video has queries, and where these are more, all batches are smaller.

    Args:
        count: Queries.
        batch_size: Queries a step, over all processes and parts.
        epochs: Of the run.
        seed: Of the order.
        start: The step to begin with.
        rank: Of this process.
        world: Processes.
        accumulate: Parts that a share is cut into.
        videos: Of each query, for batches with one query a video; None for any.
        negatives: With them a batch holds pairs: a query and the one that stands against it, drawn anew
            each epoch by what follows from seed, epoch and query alone.

    Attributes:
        per_epoch: Steps of an epoch.
        steps: Of the run; ``len`` counts the parts that are left.
        largest: Queries of the largest batch.

    Raises:
        InputError: A batch has fewer queries than there are parts; or there are videos or negatives of
            another number of queries.
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
        videos: Sequence[str] | None = None,
        negatives: NegativeQueries | None = None,
    ) -> None:
        for what, given in (("videos", videos), ("negatives", negatives)):
            if given is not None and len(given) != count:
                raise InputError(
                    f"EpochBatches: {what}: expected one for each of {count} queries, got {len(given)}"
                )
        self._videos: NDArray[np.int64] | None = None
        self._negatives = negatives
        self.per_epoch = -(-count // batch_size)
        most = 0
        if videos is not None:
            codes = np.unique(videos, return_inverse=True)[1].reshape(-1)
            most = int(np.bincount(codes).max())
            self._videos = codes
        crowded = most > self.per_epoch
        self.per_epoch = max(self.per_epoch, most)
        self.largest = -(-count // self.per_epoch)
        self.steps = self.per_epoch * epochs
        self._count, self._seed, self._start = count, seed, start
        self._rank, self._world, self._accumulate = rank, world, accumulate
        smallest = count // self.per_epoch
        if smallest < world * accumulate:
            why = f"{count} queries in batches of {batch_size}"
            why += f" with one query a video, of which one has {most}," if crowded else ""
            raise InputError(
                f"batch size: {why} make batches of {smallest}, too few for {world} processes with "
                f"{accumulate} parts each; take {'' if crowded else 'a larger batch, '}fewer processes "
                "or fewer parts"
            )

    def __len__(self) -> int:
        return (self.steps - self._start) * self._accumulate

    def __iter__(self) -> Iterator[list[int] | list[tuple[int, int]]]:
        order: list[list[int]] = []
        for step in range(self._start, self.steps):
            epoch, place = divmod(step, self.per_epoch)
            if place == 0 or not order:
                order = self._epoch(epoch)
            share = order[place][self._rank :: self._world]
            for part in range(self._accumulate):
                places = share[part :: self._accumulate]
                if self._negatives is None:
                    yield places
                else:
                    yield [(place, self._negative(epoch, place)) for place in places]

    def _epoch(self, epoch: int) -> list[list[int]]:
        rng = np.random.default_rng([self._seed, epoch])
        shuffled = rng.permutation(self._count)
        if self._videos is None:
            return [batch.tolist() for batch in np.array_split(shuffled, self.per_epoch)]
        # Dealt like cards, video after video: none has more queries than there are batches.
        turns = rng.permutation(int(self._videos.max()) + 1)[self._videos[shuffled]]
        dealt = shuffled[np.argsort(turns, kind="stable")]
        batches = [dealt[first :: self.per_epoch].tolist() for first in range(self.per_epoch)]
        return [batches[place] for place in rng.permutation(self.per_epoch)]

    def _negative(self, epoch: int, place: int) -> int:
        assert self._negatives is not None
        # The last word tells it from other seeds, whose missing words count as zeros.
        return self._negatives.draw(place, np.random.default_rng([self._seed, epoch, place, 1]))
