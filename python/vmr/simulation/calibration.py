"""How strong the frames' noise is: so that the most similar frame is as often right as asked for."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec
import numpy as np
from numpy.typing import NDArray

from vmr.data.records import Query, clipped
from vmr.progress import Progress
from vmr.simulation.parameters import Simulation
from vmr.simulation.queries import QueryViews
from vmr.simulation.randomness import generator
from vmr.simulation.scenes import Track, row_shares
from vmr.simulation.vectors import View, unit

_QUERIES = 300
_STEPS = 9
_MOST = 8.0  # times a latent: nothing is left to see
_NEAR = 0.02


class Calibration(msgspec.Struct, frozen=True):
    """What was found.

    Attributes:
        strength: Of the noise.
        hit: Share of the sampled training queries that was reached.
        queries: How many were sampled.
        in_reach: Whether ``hit`` is near what was asked for.
    """

    strength: float
    hit: float
    queries: int
    in_reach: bool


def inside(query: Query, rows: int, row_seconds: float) -> NDArray[np.bool_]:
    """Which rows [rows] lie in the ground truth: at least half of them, or else the one that most does.

    All are False where the query has no window of any length in the video.
    """
    windows = clipped(query.windows or (), query.duration)
    if not windows:
        return np.zeros(rows, dtype=bool)
    shares = row_shares(np.array(windows), rows, row_seconds, query.duration)
    # Windows may touch within a row.
    share = shares.sum(axis=0)
    found = share >= 0.5
    if not found.any():
        found[int(share.argmax())] = share.max() > 0
    return np.asarray(found, dtype=bool)


def calibrate(
    queries: Sequence[Query],
    track: Callable[[str], Track],
    frames: View,
    views: QueryViews,
    simulation: Simulation,
    progress: Progress,
) -> Calibration:
    """Finds the strength by bisection, on some training queries.

    Args:
        queries: Training queries.
        track: Of a video.
        frames: The frames' view.
        views: Of queries.
        simulation: Its ``hit`` is what is asked for.
        progress: Is told the steps.
    """
    rng = generator(simulation.seed, "calibration")
    places = np.sort(rng.permutation(len(queries))[:_QUERIES])
    drawn = [queries[int(place)] for place in places]
    tracks = {query.video: track(query.video) for query in drawn}
    sample = []
    for query in drawn:
        truth = inside(query, len(tracks[query.video].clean), simulation.row_seconds)
        if truth.any():
            sample.append((query, truth))
    pooled = {query.qid: unit(views.pooled(query)) for query, _ in sample}

    def share(strength: float) -> float:
        seen = {video: unit(frames(found.latents(strength))) for video, found in tracks.items()}
        hits = [
            bool(truth[int((seen[query.video] @ pooled[query.qid]).argmax())])
            for query, truth in sample
        ]
        return float(np.mean(hits)) if hits else 0.0

    least = simulation.frame_noise
    low, high = least, max(_MOST, least)
    tried = {low: share(low)}
    progress("calibrate", 1, _STEPS + 1)
    for step in range(_STEPS):
        # With the least noise the share is largest: below it, there is nothing to find.
        if tried[least] <= simulation.hit:
            break
        middle = (low + high) / 2
        tried[middle] = share(middle)
        if tried[middle] >= simulation.hit:
            low = middle
        else:
            high = middle
        progress("calibrate", step + 2, _STEPS + 1)
    # Of those as near, the stronger: what is asked for is that much noise.
    strength = min(tried, key=lambda value: (abs(tried[value] - simulation.hit), -value))
    reached = tried[strength]
    near = abs(reached - simulation.hit) <= _NEAR
    return Calibration(strength, reached, len(sample), near)
