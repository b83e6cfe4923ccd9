"""A yardstick that sees no video: the windows that training queries share.

A model that does not beat it has learned nothing of videos. It is vmr's own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from vmr import ops
from vmr.errors import InputError
from vmr.models.answers import prediction
from vmr.models.base import ModelConfig, MomentModel
from vmr.models.fitting import THRESHOLDS, Floats, Integers, reached, relative_to_duration, unfitted
from vmr.models.layers.padding import row_mask
from vmr.progress import Progress, silent

if TYPE_CHECKING:
    from vmr.data.dataset import Batch, MomentDataset
    from vmr.data.records import Query
    from vmr.evaluation.predictions import Prediction

_CHUNK = 2048  # queries whose overlaps with all candidates are held at a time


class WindowPriorConfig(ModelConfig, frozen=True, kw_only=True, tag="window-prior"):
    """What the prior over windows is counted on.

    Attributes:
        windows: K, that it answers with.
        grid: Parts that a video is cut into; candidates begin and end between them.
        positions: Places of a video that a saliency is kept for.
    """

    windows: int = 10
    grid: int = 50
    positions: int = 75


class WindowPriorOutput(NamedTuple):
    """What the prior says of a batch: the same of every video.

    Attributes:
        saliency: [B, T] scores of rows; zeros in the padding.
    """

    saliency: Tensor


class WindowPrior(MomentModel):
    """Answers every query with the same K windows, relative to the video's duration.

    The windows are chosen greedily: each adds most to the mean over training queries of the share of
    the IoU thresholds 0.3, 0.4, ..., 0.7 that the best window so far reaches; its score is what it
    added. The saliency is the mean annotated score of a position, or, where nothing is annotated, how
    often it lies in a window.

    Args:
        config: What it is counted on; its widths are not used.

    Raises:
        InputError: A number in the config is below 1, or there are fewer candidates than windows.
    """

    kind = "window-prior"
    config_type = WindowPriorConfig
    config: WindowPriorConfig
    windows: Tensor
    scores: Tensor
    saliency: Tensor

    def __init__(self, config: WindowPriorConfig) -> None:
        super().__init__(config)
        for name in ("windows", "grid", "positions"):
            if getattr(config, name) < 1:
                raise InputError(
                    f"window-prior: {name}: expected at least 1, got {getattr(config, name)}"
                )
        candidates = config.grid * (config.grid + 1) // 2
        if candidates < config.windows:
            raise InputError(
                f"window-prior: grid: {config.grid} gives {candidates} candidates, and "
                f"{config.windows} windows are asked for"
            )
        # Until they are counted, what nothing else is.
        self.register_buffer("windows", torch.full((config.windows, 2), torch.nan))
        self.register_buffer("scores", torch.full((config.windows,), torch.nan))
        self.register_buffer("saliency", torch.full((config.positions,), torch.nan))

    def inputs(self, batch: Batch) -> dict[str, Any]:
        """What :meth:`forward` takes of a batch."""
        return {"video_lengths": batch.video_lengths, "rows": batch.video.shape[1]}

    def forward(self, video_lengths: Tensor, rows: int) -> WindowPriorOutput:
        """The saliency of the rows of each video.

        Args:
            video_lengths: [B] rows.
            rows: T of the padded batch.

        Raises:
            InputError: Nothing was counted yet.
        """
        if self.scores.isnan().any():
            raise InputError(unfitted(self.kind))
        places = (torch.arange(rows, device=video_lengths.device) + 0.5) / video_lengths[:, None]
        bins = (places * len(self.saliency)).long().clamp(max=len(self.saliency) - 1)
        return WindowPriorOutput(
            self.saliency[bins].masked_fill(~row_mask(video_lengths, rows), 0.0)
        )

    @torch.no_grad()
    def decode(self, outputs: WindowPriorOutput, batch: Batch) -> list[Prediction]:
        """The windows, scaled to each video's duration, and its saliency scores."""
        windows, scores = self.windows.cpu().numpy(), self.scores.cpu().numpy()
        saliency = outputs.saliency.cpu().numpy()
        lengths, seconds = batch.video_lengths.tolist(), batch.row_seconds.tolist()
        return [
            prediction(
                query,
                windows * query.duration,
                scores,
                saliency[place, : lengths[place]],
                seconds[place],
            )
            for place, query in enumerate(batch.queries)
        ]

    def fit(self, dataset: MomentDataset, progress: Progress = silent) -> None:
        """Chooses the windows, from the annotations of training queries alone.

        Raises:
            InputError: No query has a window.
        """
        config = self.config
        queries = [query for query in dataset.queries if len(relative_to_duration(query))]
        if not queries:
            raise InputError(f"{self.kind}: expected training queries with windows, got none")
        starts, ends = np.triu_indices(config.grid)
        candidates = np.stack((starts, ends + 1), axis=1) / config.grid
        hits = _hits(queries, candidates, progress)
        chosen, gains = _greedy(hits, config.windows)
        self.windows.copy_(torch.from_numpy(candidates[chosen]))
        self.scores.copy_(torch.from_numpy(gains))
        self.saliency.copy_(torch.from_numpy(_mean_saliency(dataset.queries, config.positions)))


def _hits(queries: list[Query], candidates: Floats, progress: Progress) -> npt.NDArray[np.uint8]:
    """How many thresholds the IoU of each candidate with a query's best window reaches: [C, Q]."""
    spans = torch.from_numpy(candidates)
    found = np.zeros((len(candidates), len(queries)), dtype=np.uint8)
    for begin in range(0, len(queries), _CHUNK):
        windows = [relative_to_duration(query) for query in queries[begin : begin + _CHUNK]]
        overlaps = ops.span_iou(spans, torch.from_numpy(np.concatenate(windows))).numpy()
        firsts = np.cumsum([0, *map(len, windows[:-1])])
        best = np.maximum.reduceat(overlaps, firsts, axis=1)
        found[:, begin : begin + len(windows)] = reached(best)
        progress("windows", begin + len(windows), len(queries))
    return found


def _greedy(hits: npt.NDArray[np.uint8], count: int) -> tuple[Integers, Floats]:
    """Candidates one by one, each with what it adds to the mean; of equal ones the first."""
    best = np.zeros(hits.shape[1], dtype=np.uint8)
    whole = hits.shape[1] * len(THRESHOLDS)
    chosen: list[int] = []
    gains: list[float] = []
    for _ in range(count):
        totals = np.maximum(hits, best).sum(axis=1, dtype=np.int64)
        totals[chosen] = -1
        chosen.append(int(totals.argmax()))
        gains.append(float(totals[chosen[-1]] - best.sum(dtype=np.int64)) / whole)
        best = np.maximum(best, hits[chosen[-1]])
    return np.array(chosen), np.array(gains)


def _mean_saliency(queries: tuple[Query, ...], positions: int) -> Floats:
    """Mean score of each relative position; without scores, how often it lies in a window."""
    places = (np.arange(positions) + 0.5) / positions
    rated = [query for query in queries if query.saliency is not None]
    total = np.zeros(positions)
    for query in rated:
        assert query.saliency is not None
        clips = query.saliency.dense().mean(axis=1)
        seconds = places * query.duration
        owners = (seconds / query.saliency.clip_seconds).astype(np.int64)
        total += clips[owners.clip(0, len(clips) - 1)]
    if rated:
        return total / len(rated)
    for query in queries:
        windows = relative_to_duration(query)
        inside = (places >= windows[:, :1]) & (places < windows[:, 1:])
        total += inside.any(axis=0)
    return total / len(queries)
