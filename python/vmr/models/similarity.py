"""A yardstick that learns nothing: moments where frames are like the sentence.

A model that does not beat it found nothing that its features did not hold. It is vmr's own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec
import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from vmr import ops
from vmr.errors import InputError, require
from vmr.models.answers import prediction
from vmr.models.base import ModelConfig, MomentModel
from vmr.models.fitting import Floats, Integers, reached, relative_to_duration, unfitted
from vmr.models.layers.padding import row_mask, without_padding
from vmr.progress import Progress, silent

if TYPE_CHECKING:
    from vmr.data.dataset import Batch, MomentDataset
    from vmr.evaluation.predictions import Prediction


class RawSimilarityConfig(ModelConfig, frozen=True, kw_only=True, tag="similarity"):
    """How moments are read off the similarity of frames and sentence.

    Attributes:
        source: Of the feature pack, whose columns lie in the sentence's space; None takes the one that
            is as wide as the sentence.
        smoothing: Rows that a moving average may span; one of them is chosen on training queries.
        length_powers: What a proposal's length may count; likewise.
        levels: Thresholds between a curve's lowest and highest value.
        nms_iou: Windows that overlap more with a better one are left out.
        windows: That are kept at most.
        fit_queries: Training queries that the choice is made on, at most, spread evenly.
    """

    source: str | None = None
    smoothing: tuple[int, ...] = (1, 3, 5, 9, 15)
    length_powers: tuple[float, ...] = (0.0, 0.25, 0.5, 1.0)
    levels: int = 9
    nms_iou: float = 0.5
    windows: int = 10
    fit_queries: int = 2000


class RawSimilarityOutput(NamedTuple):
    """What the similarity says of a batch.

    Attributes:
        similarity: [B, T] cosines; zeros in the padding.
    """

    similarity: Tensor


class RawSimilarity(MomentModel):
    """Moments where frames are like the sentence: cosines of pretrained features, as CLIP's.

    The curve of cosines over a video is smoothed; at each of several levels between its lowest and its
    highest value, runs of rows above it are proposals. A proposal scores

    ::

        (mean inside - mean outside) (rows / T)^power

    and what is left after non-maximum suppression is the answer. The width of the smoothing and the
    power are those with the best mean of R1 at IoU 0.3, 0.4, ..., 0.7 on training queries.

    Args:
        config: What to choose from; its widths are not used.

    Raises:
        InputError: A value in the config is out of its range.
    """

    kind = "similarity"
    config_type = RawSimilarityConfig
    config: RawSimilarityConfig
    wants_pooled = True
    columns: Tensor
    chosen: Tensor

    def __init__(self, config: RawSimilarityConfig) -> None:
        super().__init__(config)
        rules = {
            "smoothing": (
                bool(config.smoothing) and all(rows % 2 == 1 for rows in config.smoothing),
                "odd numbers of rows",
            ),
            "length_powers": (bool(config.length_powers), "at least one power"),
            "levels": (config.levels >= 1, "at least 1"),
            "nms_iou": (0 <= config.nms_iou <= 1, "from 0 to 1"),
            "windows": (config.windows >= 1, "at least 1"),
            "fit_queries": (config.fit_queries >= 1, "at least 1"),
        }
        require(self.kind, msgspec.structs.asdict(config), rules)
        # First column and width of the source; rows of the smoothing and power of the length.
        self.register_buffer("columns", torch.full((2,), -1, dtype=torch.int64))
        self.register_buffer("chosen", torch.full((2,), torch.nan))

    def inputs(self, batch: Batch) -> dict[str, Any]:
        """What :meth:`forward` takes of a batch.

        Raises:
            InputError: The batch has no pooled sentences.
        """
        if batch.pooled is None:
            raise InputError(f"{self.kind}: {_WITHOUT_POOLED}")
        return {
            "video": batch.video,
            "video_lengths": batch.video_lengths,
            "pooled": batch.pooled,
        }

    def forward(self, video: Tensor, video_lengths: Tensor, pooled: Tensor) -> RawSimilarityOutput:
        """Cosines of rows and sentences.

        Args:
            video: [B, T, width].
            video_lengths: [B] rows.
            pooled: [B, dim].

        Raises:
            InputError: Nothing was counted yet, or the features are not those that it was fit on.
        """
        start, width = self.columns.tolist()
        if start < 0:
            raise InputError(unfitted(self.kind))
        if pooled.shape[-1] != width or video.shape[-1] < start + width:
            raise InputError(
                f"{self.kind}: expected sentences of {width} columns and videos with columns {start} to "
                f"{start + width}, got {pooled.shape[-1]} and {video.shape[-1]}: it was fit on other "
                "features"
            )
        mask = row_mask(video_lengths, video.shape[1])
        frames = without_padding(video[..., start : start + width], mask)
        cosines = F.cosine_similarity(frames, pooled[:, None], dim=-1)
        return RawSimilarityOutput(cosines.masked_fill(~mask, 0.0))

    @torch.no_grad()
    def decode(self, outputs: RawSimilarityOutput, batch: Batch) -> list[Prediction]:
        """Windows where the similarity is high, and the similarity as saliency."""
        config = self.config
        rows, power = int(self.chosen[0]), float(self.chosen[1])
        lengths, seconds = batch.video_lengths.tolist(), batch.row_seconds.tolist()
        curves = [
            curve[:length].astype(np.float64)
            for curve, length in zip(outputs.similarity.float().cpu().numpy(), lengths, strict=True)
        ]
        found = [_proposals(_smoothed(curve, rows), config.levels) for curve in curves]
        spans = _padded([windows for windows, _ in found])
        scores = _padded(
            [_scored(*pair, len(curve), power) for pair, curve in zip(found, curves, strict=True)]
        )
        counts = torch.tensor([len(windows) for windows, _ in found])
        kept, kept_counts = ops.span_nms(
            spans, scores, counts, iou_threshold=config.nms_iou, top_k=config.windows
        )
        answers = []
        for place, query in enumerate(batch.queries):
            best = kept[place, : int(kept_counts[place])]
            answers.append(
                prediction(
                    query,
                    spans[place, best].numpy() * seconds[place],
                    scores[place, best].numpy(),
                    curves[place],
                    seconds[place],
                )
            )
        return answers

    @torch.no_grad()
    def fit(self, dataset: MomentDataset, progress: Progress = silent) -> None:
        """Finds the columns of the source, and chooses smoothing and power on training queries.

        Raises:
            InputError: The data set has no pooled sentences or no windows, or no source (or more than
                one) fits the sentence.
        """
        if not dataset.pooled:
            raise InputError(f"{self.kind}: {_WITHOUT_POOLED}")
        known = [
            place for place, query in enumerate(dataset.queries) if len(relative_to_duration(query))
        ]
        if not known:
            raise InputError(f"{self.kind}: expected training queries with windows, got none")
        count = min(len(known), self.config.fit_queries)
        places = [known[place * len(known) // count] for place in range(count)]
        first = dataset[places[0]].pooled
        assert first is not None
        found = dataset.pack.columns_like(len(first), self.config.source)
        self.columns.copy_(torch.tensor(found))
        options = [
            (rows, power) for rows in self.config.smoothing for power in self.config.length_powers
        ]
        reached = np.zeros(len(options), dtype=np.int64)
        for done, place in enumerate(places, start=1):
            reached += self._reached(dataset, place)
            progress("similarity", done, count)
        self.chosen.copy_(torch.tensor(options[int(reached.argmax())]))

    def _reached(self, dataset: MomentDataset, place: int) -> Integers:
        """Thresholds that the best window reaches by each choice of smoothing and power."""
        item = dataset[place]
        assert item.pooled is not None
        rows = len(item.video)
        device = self.columns.device
        lengths = torch.tensor([rows], device=device)
        outputs = self(item.video[None].to(device), lengths, item.pooled[None].to(device))
        curve = outputs.similarity[0].cpu().numpy().astype(np.float64)
        truth = relative_to_duration(item.query) * item.query.duration
        best = []
        for width in self.config.smoothing:
            windows, gains = _proposals(_smoothed(curve, width), self.config.levels)
            for power in self.config.length_powers:
                first = windows[_scored(windows, gains, rows, power).argmax()]
                best.append((first * item.row_seconds).clip(0.0, item.query.duration))
        overlaps = ops.span_iou(torch.from_numpy(np.stack(best)), torch.from_numpy(truth))
        return reached(overlaps.amax(dim=1).numpy())


_WITHOUT_POOLED = (
    "expected sentences as one vector each: a pack with a pooled_key, and "
    "MomentDataset(pooled=True)"
)


def _smoothed(curve: Floats, rows: int) -> Floats:
    """Moving average over an odd number of rows; at the ends, over those that there are."""
    kernel = np.ones(min(rows, 2 * len(curve) - 1))
    half = len(kernel) // 2
    total = np.convolve(curve, kernel)[half : half + len(curve)]
    count = np.convolve(np.ones(len(curve)), kernel)[half : half + len(curve)]
    found: Floats = total / count
    return found


def _proposals(curve: Floats, levels: int) -> tuple[Floats, Floats]:
    """Runs above any of several levels, [P, 2] rows, once each, and mean inside less mean outside, [P].

    A level curve has one proposal, the video.
    """
    rows = len(curve)
    low, high = curve.min(), curve.max()
    heights = low + (high - low) * np.arange(1, levels + 1) / (levels + 1)
    above = np.zeros((levels, rows + 2), dtype=np.int8)
    above[:, 1:-1] = curve >= heights[:, None]
    steps = np.diff(above, axis=1)
    windows = np.unique(
        np.stack((np.nonzero(steps == 1)[1], np.nonzero(steps == -1)[1]), axis=1), axis=0
    )
    sums = np.concatenate(([0.0], curve.cumsum()))
    lengths = windows[:, 1] - windows[:, 0]
    inside = sums[windows[:, 1]] - sums[windows[:, 0]]
    outside = (sums[-1] - inside) / np.maximum(rows - lengths, 1)
    gains = np.where(lengths < rows, inside / lengths - outside, 0.0)
    return windows.astype(np.float64), gains


def _scored(windows: Floats, gains: Floats, rows: int, power: float) -> Floats:
    found: Floats = gains * ((windows[:, 1] - windows[:, 0]) / rows) ** power
    return found


def _padded(rows: list[Floats]) -> Tensor:
    return torch.nn.utils.rnn.pad_sequence(
        [torch.from_numpy(row) for row in rows], batch_first=True
    )
