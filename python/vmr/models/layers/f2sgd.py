"""F2SGD, moments as points of the frame-frame similarity map (Tan et al., CVPR 2025, eqs. 13 to 15)."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vmr import ops
from vmr.errors import InputError, require
from vmr.models.layers.detector import Detector
from vmr.models.layers.kept import Kept, may_keep
from vmr.models.layers.padding import check_lengths, row_mask, unit_rows, without_padding
from vmr.models.layers.points import point_times, window_points
from vmr.ops.detection import Region

if TYPE_CHECKING:
    from vmr.data.dataset import Batch

_PAIRS_AT_ONCE = 2**21  # of frames, in inference: 128 MiB for 16 channels


class F2SGD(Detector):
    """Frame-frame similarity guided detection: each point (i, j) of the map is a moment with a score.

    Two convolutions with large kernels look at the similarities of all pairs of frames, and a small
    network at each point says how much it is the corner (start, end) of a block of frames that are
    alike. As a plug-in, call it with the frame features that a model's own detector takes, then
    :meth:`loss` and :meth:`moments`.

    Where nothing learns, the transform of its kernels is kept between calls.

    Args:
        kernel_size: C, odd: 21 for QVHighlights, 27 for Charades-STA and ActivityNet in the paper.
        channels: Of both convolutions; the paper does not say.
        hidden: Columns inside the network at each point; the paper does not say.
        sigmoid: Whether the score of eq. 14 is a sigmoid, or linear; the paper does not say.
        loss_region: "whole", all pairs of frames as in eq. 14, or "upper", those that are moments.
        loss_reduction: "sum" over the points of a map as in eq. 14, or "mean".
        prior: What the sigmoid of every score begins near; the paper does not say. A map has one 1 among
            thousands of zeros, so that from 0.5 on eq. 14 drives all scores to where a sigmoid no longer
            learns, and it stays 0 everywhere. A linear score begins at 0.

    Raises:
        InputError: A setting is out of its range.
    """

    def __init__(
        self,
        kernel_size: int = 21,
        *,
        channels: int = 16,
        hidden: int = 16,
        sigmoid: bool = False,
        loss_region: Region = "whole",
        loss_reduction: str = "sum",
        prior: float = 0.001,
    ) -> None:
        super().__init__()
        rules = {
            "kernel_size": (kernel_size >= 1 and kernel_size % 2 == 1, "an odd number"),
            "channels": (channels >= 1, "at least 1"),
            "hidden": (hidden >= 1, "at least 1"),
            "loss_region": (loss_region in ("whole", "upper"), "whole or upper"),
            "prior": (0 < prior < 1, "a probability between 0 and 1"),
            "loss_reduction": (loss_reduction in ("sum", "mean"), "sum or mean"),
        }
        require("F2SGD", locals(), rules)
        self.kernel_size, self.sigmoid = kernel_size, sigmoid
        self.loss_region, self.loss_reduction = loss_region, loss_reduction
        # As torch's convolutions keep them; the maps have their channels last.
        self.first = nn.Conv2d(1, channels, kernel_size)
        self.second = nn.Conv2d(channels, channels, kernel_size)
        self.hidden = nn.Linear(channels, hidden)
        self.score = nn.Linear(hidden, 1)
        for layer in (self.first, self.second, self.hidden, self.score):
            nn.init.xavier_uniform_(layer.weight)
            assert layer.bias is not None
            nn.init.zeros_(layer.bias)
        if sigmoid:
            assert self.score.bias is not None
            nn.init.constant_(self.score.bias, math.log(prior / (1 - prior)))
        self._spectra: Kept[Tensor] = Kept()

    def extra_repr(self) -> str:
        """The settings that its layers do not show."""
        return (
            f"sigmoid={self.sigmoid}, loss_region={self.loss_region!r}, "
            f"loss_reduction={self.loss_reduction!r}"
        )

    def forward(self, frames: Tensor, lengths: Tensor) -> Tensor:
        """Scores of all moments from frame features.

        Args:
            frames: [B, N, D].
            lengths: [B] frames of each sample, 1 to N; what lies beyond changes nothing.

        Returns:
            [B, N, N]: at (i, j) the score of the moment from frame i to frame j, before the sigmoid;
            what it holds where i > j or in the padding has no meaning.
        """
        if frames.dim() != 3:
            raise InputError(f"F2SGD: frames: expected [B, N, D], got {list(frames.shape)}")
        check_lengths("F2SGD", lengths, frames.shape[0])
        # At length one, so that no product leaves the range of half precision.
        frames = unit_rows(without_padding(frames, row_mask(lengths, frames.shape[1])))
        gram = ops.gram_matrix(frames, lengths)
        ones = frames.new_ones(frames.shape[:2])
        zeros = torch.zeros_like(ones)
        similarity = ops.aligned_similarity(gram, zeros, zeros[:, 0], ones, zeros, lengths)
        return self.detect(similarity, lengths)

    def detect(self, similarity: Tensor, lengths: Tensor) -> Tensor:
        """Scores of all moments from a similarity map [B, N, N], eq. 13.

        Where nothing learns, samples go through in groups, so that the channels' memory is bounded.
        """
        group = max(1, _PAIRS_AT_ONCE // max(1, similarity[0:1].numel()))
        if torch.is_grad_enabled() or torch.compiler.is_compiling() or len(similarity) <= group:
            return self._detect(similarity, lengths)
        parts = zip(torch.split(similarity, group), torch.split(lengths, group), strict=True)
        return torch.cat([self._detect(*part) for part in parts])

    def _detect(self, similarity: Tensor, lengths: Tensor) -> Tensor:
        maps = self._convolved(self.first, similarity[..., None], lengths)
        maps = self._convolved(self.second, F.relu(maps), lengths)
        scores: Tensor = self.score(F.relu(self.hidden(F.relu(maps))))
        return scores.squeeze(-1)

    def loss(self, scores: Tensor, points: Tensor, splits: Tensor, lengths: Tensor) -> Tensor:
        """Squared differences from a map that is 1 at the true moments and 0 elsewhere, eq. 14.

        Args:
            scores: [B, N, N] of :meth:`forward`.
            points: [P, 2] first and last frame of the true moments, sample after sample;
                :func:`vmr.models.layers.points.nearest_frames` makes them of seconds, and
                ``window_points`` beside it of a batch of vmr's.
            splits: [B + 1] rows ``splits[b]`` to ``splits[b + 1]`` of ``points`` are sample b's:
                [0, 1, 3] for one moment in the first and two in the second. A sample without any is
                taught that there is none.
            lengths: [B].

        Returns:
            [B] a loss a sample.
        """
        losses = ops.vertex_loss(
            scores, points, splits, lengths, region=self.loss_region, sigmoid=self.sigmoid
        )
        if self.loss_reduction == "sum":
            return losses
        pairs = lengths * (lengths if self.loss_region == "whole" else lengths + 1)
        return losses / (pairs if self.loss_region == "whole" else pairs / 2)

    def loss_weights(self) -> dict[str, float]:
        """``vertex``, eq. 14."""
        return {"vertex": 1.0}

    def loss_counts(self, batch: Batch) -> dict[str, Tensor]:
        """Queries of a batch with a window that the features cover; others say nothing."""
        _, splits = window_points(batch)
        return {"vertex": (splits.diff() > 0).sum().float()}

    def loss_sums(self, outputs: Tensor, batch: Batch) -> dict[str, Tensor]:
        """:meth:`loss` summed over the queries of a batch, of the scores of :meth:`forward`."""
        points, splits = window_points(batch)
        losses = self.loss(outputs, points, splits, batch.video_lengths)
        return {"vertex": losses.masked_fill(splits.diff() == 0, 0.0).sum()}

    @torch.no_grad()
    def moments(
        self, scores: Tensor, lengths: Tensor, row_seconds: Tensor, k: int
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The k best moments of each sample, eq. 15.

        Args:
            scores: [B, N, N] of :meth:`forward`.
            lengths: [B].
            row_seconds: [B] seconds from one frame to the next.
            k: How many; a video of n frames has n (n + 1) / 2.

        Returns:
            [B, k, 2] (start s, end s), best first: frames i to j are the time from i to j + 1; [B, k]
            their scores, through the sigmoid where there is one; [B] how many there are.
        """
        points, values, counts = ops.top_points(scores.float(), lengths, k)
        values = values.sigmoid() if self.sigmoid else values
        return point_times(points, row_seconds[:, None]), values, counts

    def _convolved(self, layer: nn.Conv2d, maps: Tensor, lengths: Tensor) -> Tensor:
        assert layer.bias is not None
        spectrum = None
        learns = torch.is_grad_enabled() and maps.requires_grad
        if not learns and may_keep((layer.weight, layer.bias)):
            size = ops.spectrum_size(maps.shape[1], self.kernel_size)
            if size:
                spectrum = self._spectra.get(
                    (layer is self.first, size),
                    (self.first.weight, self.second.weight),
                    lambda: ops.kernel_spectrum(layer.weight, maps.shape[1]),
                )
        return ops.large_conv2d(maps, layer.weight, layer.bias, lengths, spectrum=spectrum)
