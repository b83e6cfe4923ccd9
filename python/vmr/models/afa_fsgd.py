"""A2FA + F2SGD (Tan et al., CVPR 2025): moments as points of a map of aligned frames' similarities.

Features of one vision-language model go in, a vector a frame and a sentence. A2FA aligns the frames with
the sentence around an anchor frame (equations 1 to 12); F2SGD reads the map of all pairs' similarities,
where a moment is the corner of a block (equations 13 to 15). docs/papers/afa-fsgd.md says what the paper
leaves open, and what vmr chose.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import torch
from torch import Tensor

from vmr.errors import InputError
from vmr.models.answers import predictions
from vmr.models.layers.a2fa import A2FA, Alignment, Frames
from vmr.models.layers.f2sgd import F2SGD
from vmr.models.layers.padding import row_mask
from vmr.models.layers.points import point_times
from vmr.models.sentence import SentenceConfig, SentenceModel
from vmr.reference.common import widened

if TYPE_CHECKING:
    from vmr.data.dataset import Batch
    from vmr.evaluation.predictions import Prediction


class A2FAF2SGDConfig(SentenceConfig, frozen=True, kw_only=True, tag="afa-fsgd"):
    """The hyper-parameters of A2FA + F2SGD; the defaults are the paper's for QVHighlights.

    Attributes:
        alignment: "full"; "align", without the reweighting of eqs. 7 to 10; "reweight", without the
            alignment of eqs. 11 and 12; "none", F2SGD alone on the frames as they are, whose map is the
            same for all sentences; "embedded", F2SGD alone on the query-embedded frames of eq. 1, which
            learns nothing either.
        bias: Whether A2FA's learned maps have a bias.
        normalize: Whether frames and sentences are brought to length one.
        reach_end: Lets the segment of eq. 5 reach the last frame.
        relevance_scale: What w of eq. 9 begins with.
        kernel_size: C of both convolutions, odd.
        channels: Of both convolutions.
        head_hidden: Columns of the network at each point.
        score: "linear" or "sigmoid", what eq. 14 compares with 0 and 1; see :class:`F2SGD`.
        score_prior: What the sigmoid of every score begins near; likewise.
        loss_region: "whole", all pairs of frames as in eq. 14, or "upper", those with i <= j.
        loss_reduction: "sum" over the points of a map as in eq. 14, or "mean".
        top_k: Moments that the model answers with: 10 for QVHighlights, else 1.
        predict: "points" (eq. 15), or "segment", the interval of eq. 5 (the paper's Table 5).
    """

    alignment: Literal["full", "align", "reweight", "none", "embedded"] = "full"
    bias: bool = False
    normalize: bool = True
    reach_end: bool = False
    relevance_scale: float = 1.0
    kernel_size: int = 21
    channels: int = 16
    head_hidden: int = 16
    score: Literal["linear", "sigmoid"] = "linear"
    score_prior: float = 0.001
    loss_region: Literal["whole", "upper"] = "whole"
    loss_reduction: Literal["sum", "mean"] = "sum"
    top_k: int = 10
    predict: Literal["points", "segment"] = "points"


class A2FAF2SGDOutput(NamedTuple):
    """What the model says of a batch.

    Attributes:
        scores: [B, N, N], at (i, j) the score of the moment from frame i to frame j, before the sigmoid.
        similarity: [B, N, N] of the aligned frames (S^a); zeros in the padding.
        before: [B, N] cosines of frames and sentence; zeros in the padding.
        after: [B, N] cosines of aligned frames and sentence; likewise.
        anchors: [B] the anchor frame.
        segments: [B, 2] first and last frame of the anchor-aware segment.
        relevance: [B, N] r of eq. 9.
        weights: [B, N] alpha of eq. 11.
    """

    scores: Tensor
    similarity: Tensor
    before: Tensor
    after: Tensor
    anchors: Tensor
    segments: Tensor
    relevance: Tensor
    weights: Tensor


class A2FAF2SGD(SentenceModel):
    """A2FA + F2SGD.

    Args:
        config: The hyper-parameters, with both widths; ``text_dim`` is D, the columns of a sentence and
            of the frames' source.

    Raises:
        InputError: A width is missing, or a hyper-parameter is out of its range.
    """

    kind = "afa-fsgd"
    config_type = A2FAF2SGDConfig
    config: A2FAF2SGDConfig

    def __init__(self, config: A2FAF2SGDConfig) -> None:
        super().__init__(config)
        _, dim = self.widths
        if config.top_k < 1:
            raise InputError(f"{self.kind}: top_k: expected at least 1, got {config.top_k}")
        self.alignment = A2FA(
            dim,
            bias=config.bias,
            normalize=config.normalize,
            reach_end=config.reach_end,
            reweight=config.alignment in ("full", "reweight"),
            align=config.alignment in ("full", "align"),
            relevance_scale=config.relevance_scale,
        )
        self.detection = F2SGD(
            config.kernel_size,
            channels=config.channels,
            hidden=config.head_hidden,
            sigmoid=config.score == "sigmoid",
            loss_region=config.loss_region,
            loss_reduction=config.loss_reduction,
            prior=config.score_prior,
        )

    def inputs(self, batch: Batch) -> dict[str, Any]:
        """What :meth:`forward` takes of a batch; queries of a video share its frames.

        Raises:
            InputError: The batch has no pooled sentences or features of another width, or there is NaN
                or an infinity in them.
        """
        sentences = self.sentences(batch)
        videos, firsts = _shared(batch) if self._compiled_call_impl is None else (None, None)
        inputs = {"video": batch.video, "video_lengths": batch.video_lengths}
        if batch.anchor_video is not None:
            inputs["anchor_video"] = batch.anchor_video
        if firsts is not None:
            inputs = {name: value[firsts] for name, value in inputs.items()}
        if batch.anchor_pooled is not None:
            inputs["anchor_queries"] = batch.anchor_pooled
        return {**inputs, "queries": sentences, "videos": videos}

    def shared(self, batch: Batch) -> dict[str, Any]:
        """The frames of the one video that a batch is about, and their Gram matrix."""
        if self._compiled_call_impl is not None:
            return {}  # each query has frames of its own then
        inputs = self.inputs(batch)
        return {"frames": self.frames(inputs["video"], inputs["video_lengths"])}

    def forward(
        self,
        video: Tensor,
        video_lengths: Tensor,
        queries: Tensor,
        videos: Tensor | None = None,
        *,
        segments: Tensor | None = None,
        anchor_video: Tensor | None = None,
        anchor_queries: Tensor | None = None,
        frames: Frames | None = None,
    ) -> A2FAF2SGDOutput:
        """Scores of all moments.

        Args:
            video: [U, N, video_dim] of U videos.
            video_lengths: [U] frames of each, at least 1.
            queries: [B, D].
            videos: [B] the video that each query is about; None for one query a video, in order.
            segments: [B, 2] ready intervals in place of eqs. 1 to 5: first and last frame.
            anchor_video: [U, N, E] features of another model that eqs. 1 to 5 read instead (the paper's
                Table 4).
            anchor_queries: [B, E] its sentences.
            frames: What :meth:`frames` gave for the videos before; None computes it.
        """
        if frames is None:
            frames = self.frames(video, video_lengths)
        return self.answer(
            frames,
            queries,
            videos,
            segments=segments,
            anchor_frames=anchor_video,
            anchor_queries=anchor_queries,
        )

    def frames(self, video: Tensor, video_lengths: Tensor) -> Frames:
        """What all queries of a video share, to be kept between calls of :meth:`answer`.

        Raises:
            InputError: The model does not know its columns yet, or the features are too narrow.
        """
        video = video[..., self.source_columns(video)]
        return self.alignment.frames(video, video_lengths)

    def answer(
        self,
        frames: Frames,
        queries: Tensor,
        videos: Tensor | None = None,
        *,
        segments: Tensor | None = None,
        anchor_frames: Tensor | None = None,
        anchor_queries: Tensor | None = None,
    ) -> A2FAF2SGDOutput:
        """The same as :meth:`forward` on what :meth:`frames` gave."""
        found = self.alignment.align(
            frames,
            queries,
            videos,
            segments=segments,
            anchor_frames=anchor_frames,
            anchor_queries=anchor_queries,
        )
        untouched = torch.ones_like(found.relevance), torch.zeros_like(found.weights)
        before = _cosines(frames, found._replace(relevance=untouched[0], weights=untouched[1]))
        if self.config.alignment == "embedded":
            # Eq. 12 is eq. 1 with these weights.
            found = found._replace(weights=before)
        similarity = self.alignment.similarity(frames, found)
        lengths = frames.lengths[found.videos]
        return A2FAF2SGDOutput(
            scores=self.detection.detect(similarity, lengths),
            similarity=similarity,
            before=before,
            after=_cosines(frames, found),
            anchors=found.anchors,
            segments=found.segments,
            relevance=found.relevance,
            weights=found.weights,
        )

    # ---- loss -----------------------------------------------------------------------------------------

    def loss_weights(self) -> dict[str, float]:
        """``vertex``, eq. 14."""
        return self.detection.loss_weights()

    def loss_counts(self, batch: Batch) -> dict[str, Tensor]:
        """Queries with a window that the features cover; others say nothing."""
        return self.detection.loss_counts(batch)

    def loss_sums(self, outputs: A2FAF2SGDOutput, batch: Batch) -> dict[str, Tensor]:
        """Eq. 14, summed over queries."""
        return self.detection.loss_sums(outputs.scores, batch)

    # ---- answers --------------------------------------------------------------------------------------

    @torch.no_grad()
    def decode(self, outputs: A2FAF2SGDOutput, batch: Batch) -> list[Prediction]:
        """The best points as moments (eq. 15), and the rows' cosines with the sentence as saliency.

        Those of frames as they are: eq. 14 does not ask for aligned frames like the sentence, only for
        frames that are alike, so that training may turn the sign of their cosines.
        """
        lengths, seconds = batch.video_lengths, batch.row_seconds
        if self.config.predict == "segment":
            spans = point_times(outputs.segments, seconds)[:, None]
            scores = outputs.before.amax(dim=1, keepdim=True)
            counts = torch.ones_like(lengths)
        else:
            spans, scores, counts = self.detection.moments(
                outputs.scores, lengths, seconds, self.config.top_k
            )
        return predictions(batch, spans, scores, counts, row_scores=outputs.before)


def _cosines(frames: Frames, found: Alignment) -> Tensor:
    """[B, N] cosines of aligned frames and sentence, from the dot products that are there."""
    length = frames.features.shape[1]
    squares = widened(frames.gram.diagonal(dim1=1, dim2=2)[found.videos])
    norms, dots, weights = (
        widened(found.norms)[:, None],
        widened(found.dots),
        widened(found.weights),
    )
    rest = (1 - weights) * widened(found.relevance)
    along = weights * norms + rest * dots
    squared = weights.square() * norms + 2 * weights * rest * dots + rest.square() * squares
    cosines = along * (squared.clamp(min=1e-12) * norms.clamp(min=1e-12)).rsqrt()
    return cosines.clamp(-1, 1).masked_fill(~row_mask(frames.lengths[found.videos], length), 0.0)


def _shared(batch: Batch) -> tuple[Tensor | None, Tensor | None]:
    """The video of each query and each video's first query, where queries share videos."""
    places: dict[tuple[str, float], int] = {}
    firsts: list[int] = []
    videos = []
    for place, query in enumerate(batch.queries):
        name = query.video, query.duration
        if name not in places:
            places[name] = len(firsts)
            firsts.append(place)
        videos.append(places[name])
    if len(firsts) == len(batch):
        return None, None
    device = batch.video.device
    return torch.tensor(videos, device=device), torch.tensor(firsts, device=device)
