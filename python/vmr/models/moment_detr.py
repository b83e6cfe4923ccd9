"""Moment-DETR (Lei, Berg and Bansal, "QVHighlights", NeurIPS 2021): moments as a set, on a transformer.

Rows of the video and tokens of the sentence go through one encoder; learned moment queries read its
memory, and each says a span and whether it is one; a linear layer on the memory gives every row a
saliency. docs/papers/moment-detr.md says what the paper and its code do, and where vmr differs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vmr import ops
from vmr.errors import require
from vmr.models.answers import predictions
from vmr.models.base import ModelConfig, MomentModel
from vmr.models.layers.contrastive import batch_contrastive
from vmr.models.layers.padding import masked_mean, row_mask, without_padding
from vmr.models.layers.projection import InputProjection, Mlp, sine_positions
from vmr.models.layers.set_prediction import (
    FOREGROUND,
    SetLoss,
    alignment_losses,
    saliency_loss,
)
from vmr.models.layers.targets import ranked_clips, relative_windows, rows_inside
from vmr.models.layers.transformer import Decoder, Encoder, transformer_rules
from vmr.reference.common import widened

if TYPE_CHECKING:
    from vmr.data.dataset import Batch
    from vmr.evaluation.predictions import Prediction


class MomentDETRConfig(ModelConfig, frozen=True, kw_only=True, tag="moment-detr"):
    """The hyper-parameters of Moment-DETR; the defaults are those of its code for QVHighlights.

    Attributes:
        hidden: Columns of the transformer; even, and a multiple of ``heads``.
        heads: Of each attention.
        encoder_layers: Of the encoder.
        decoder_layers: Of the decoder.
        feed_forward: Columns inside the feed-forward networks.
        dropout: In the transformer.
        input_dropout: In the projections of the features.
        input_layers: Linear layers of these projections.
        moment_queries: Moments that the model answers with.
        auxiliary: Whether the loss is also taken after every decoder layer before the last.
        span_weight: Of the L1 loss of (centre, width); in the matching cost too.
        giou_weight: Of 1 - gIoU; in the matching cost too.
        label_weight: Of the classification; in the matching cost too.
        saliency_weight: Of the saliency loss.
        background_weight: Of a moment query without a moment, within the classification.
        saliency_margin: By which a row that fits shall score higher than one that does not.
        contrastive_align: Weight of the alignment of moment queries with tokens (0.02 is the published
            code's option); 0 leaves its layers out.
        batch_contrastive: Weight of an InfoNCE loss between moments and sentences over the batch, on the
            projected features; 0 leaves its layers out. Not of the published model.
        contrastive_dim: Columns that both are computed in.
        temperature: Of both.
        round_to: Seconds that answers are rounded to; None leaves them as they are. QVHighlights
            annotates clips of 2 s.
    """

    hidden: int = 256
    heads: int = 8
    encoder_layers: int = 2
    decoder_layers: int = 2
    feed_forward: int = 1024
    dropout: float = 0.1
    input_dropout: float = 0.5
    input_layers: int = 2
    moment_queries: int = 10
    auxiliary: bool = True
    span_weight: float = 10.0
    giou_weight: float = 1.0
    label_weight: float = 4.0
    saliency_weight: float = 1.0
    background_weight: float = 0.1
    saliency_margin: float = 0.2
    contrastive_align: float = 0.0
    batch_contrastive: float = 0.0
    contrastive_dim: int = 64
    temperature: float = 0.07
    round_to: float | None = 2.0


class MomentDETROutput(NamedTuple):
    """What the model says of a batch.

    Attributes:
        spans: [layers, B, Q, 2] (centre, width) in parts of the time that a video's rows cover; of every
            decoder layer, the last is the answer.
        logits: [layers, B, Q, 2] of foreground and background.
        saliency: [B, T] scores of rows; zeros in the padding.
        slots: [layers, B, Q, C] for contrastive_align; None without.
        tokens: [B, L, C] likewise.
        frames: [B, T, C] for batch_contrastive; None without.
        sentences: [B, C] likewise.
    """

    spans: Tensor
    logits: Tensor
    saliency: Tensor
    slots: Tensor | None = None
    tokens: Tensor | None = None
    frames: Tensor | None = None
    sentences: Tensor | None = None


class MomentDETR(MomentModel):
    """Moment-DETR.

    Args:
        config: The hyper-parameters, with both widths.

    Raises:
        InputError: A width is missing, or a hyper-parameter is out of its range.
    """

    kind = "moment-detr"
    config_type = MomentDETRConfig
    config: MomentDETRConfig

    def __init__(self, config: MomentDETRConfig) -> None:
        super().__init__(config)
        _check(config)
        video_dim, text_dim = self.widths
        hidden = config.hidden

        def projection(width: int) -> InputProjection:
            return InputProjection(
                width, hidden, layers=config.input_layers, dropout=config.input_dropout
            )

        self.video_projection = projection(video_dim)
        self.text_projection = projection(text_dim)
        shape = hidden, config.heads, config.feed_forward, config.dropout
        self.encoder = Encoder(*shape, layers=config.encoder_layers)
        self.decoder = Decoder(*shape, layers=config.decoder_layers)
        self.moment_queries = nn.Parameter(torch.randn(config.moment_queries, hidden))
        self.span_head = Mlp(hidden, hidden, 2, layers=3)
        self.label_head = nn.Linear(hidden, 2)
        self.saliency_head = nn.Linear(hidden, 1)
        if config.contrastive_align:
            self.slot_alignment = nn.Linear(hidden, config.contrastive_dim)
            self.token_alignment = nn.Linear(hidden, config.contrastive_dim)
        if config.batch_contrastive:
            self.frame_contrast = nn.Linear(hidden, config.contrastive_dim)
            self.sentence_contrast = nn.Linear(hidden, config.contrastive_dim)
        self.set_loss = SetLoss(
            slots=config.moment_queries,
            layers=config.decoder_layers,
            auxiliary=config.auxiliary,
            span_weight=config.span_weight,
            giou_weight=config.giou_weight,
            label_weight=config.label_weight,
            background_weight=config.background_weight,
        )

    def inputs(self, batch: Batch) -> dict[str, Any]:
        """What :meth:`forward` takes of a batch.

        Raises:
            InputError: The batch has no tokens, or features of another width.
        """
        self.check_tokens(batch)
        return super().inputs(batch)

    def forward(
        self, video: Tensor, video_lengths: Tensor, text: Tensor, text_lengths: Tensor
    ) -> MomentDETROutput:
        """Moments and saliency of a batch.

        Args:
            video: [B, T, video_dim].
            video_lengths: [B] rows, at least 1 each.
            text: [B, L, text_dim].
            text_lengths: [B] tokens.
        """
        config = self.config
        rows = video.shape[1]
        video_mask = row_mask(video_lengths, rows)
        text_mask = row_mask(text_lengths, text.shape[1])
        frames = self.video_projection(without_padding(video, video_mask))
        words = self.text_projection(without_padding(text, text_mask))
        mask = torch.cat((video_mask, text_mask), dim=1)
        # Tokens have no position: CLIP's already know theirs.
        positions = F.pad(
            sine_positions(video_lengths, rows, config.hidden), (0, 0, 0, words.shape[1])
        )
        memory = self.encoder(torch.cat((frames, words), dim=1), ~mask, positions)
        slots = self.decoder(self.moment_queries, memory, positions, ~mask)
        saliency = self.saliency_head(memory[:, :rows]).squeeze(-1)
        aligned, tokens, contrasted, sentences = None, None, None, None
        if config.contrastive_align:
            aligned = F.normalize(self.slot_alignment(slots), dim=-1)
            tokens = F.normalize(self.token_alignment(memory[:, rows:]), dim=-1)
            tokens = without_padding(tokens, text_mask)
        if config.batch_contrastive:
            # Before the encoder, where a frame does not know the sentence yet.
            contrasted = self.frame_contrast(frames)
            sentences = self.sentence_contrast(masked_mean(words, text_mask))
        return MomentDETROutput(
            spans=widened(self.span_head(slots)).sigmoid(),
            logits=self.label_head(slots),
            saliency=saliency.masked_fill(~video_mask, 0.0),
            slots=aligned,
            tokens=tokens,
            frames=contrasted,
            sentences=sentences,
        )

    # ---- loss -----------------------------------------------------------------------------------------

    def loss_weights(self) -> dict[str, float]:
        """``span``, ``giou``, ``label``, ``saliency`` and what else is on.

        A term of a decoder layer before the last has the layer's number, from 0, behind its name.
        """
        config = self.config
        more = {}
        if config.contrastive_align:
            more["contrastive_align"] = config.contrastive_align
        weights = self.set_loss.weights(**more)
        weights["saliency"] = config.saliency_weight
        if config.batch_contrastive:
            weights["batch_contrastive"] = config.batch_contrastive
        return weights

    def loss_counts(self, batch: Batch) -> dict[str, Tensor]:
        """Matched windows, moment queries, and queries that the other terms can be taken of."""
        config = self.config
        windows = relative_windows(batch)
        inside = rows_inside(windows, batch.video_lengths, batch.video.shape[1])
        answerable = (windows.counts > 0).sum().float()
        more = {"contrastive_align": answerable} if config.contrastive_align else {}
        counts = self.set_loss.counts(windows, **more)
        counts["saliency"] = ranked_clips(batch, inside).kinds().any(dim=0).sum().float()
        if config.batch_contrastive:
            counts["batch_contrastive"] = answerable.clone()
        return counts

    def loss_sums(self, outputs: MomentDETROutput, batch: Batch) -> dict[str, Tensor]:
        """The terms as sums; a part of a batch has its share of each.

        But for ``batch_contrastive``: it spans what all processes of torch.distributed hold at the time,
        and not other parts of a batch that is cut in time.
        """
        config = self.config
        windows = relative_windows(batch)
        inside = rows_inside(windows, batch.video_lengths, batch.video.shape[1])
        layered, match = self.set_loss.sums(outputs.spans, outputs.logits, windows)
        if outputs.slots is not None and outputs.tokens is not None:
            layers = len(self.set_loss.names)
            layered["contrastive_align"] = alignment_losses(
                outputs.slots[-layers:], outputs.tokens, match, config.temperature
            )
        sums = self.set_loss.by_layer(layered)
        clips = ranked_clips(batch, inside)
        sums["saliency"] = saliency_loss(outputs.saliency, clips, config.saliency_margin)
        if outputs.frames is not None and outputs.sentences is not None:
            known = windows.counts > 0
            moments = masked_mean(outputs.frames, inside)
            sums["batch_contrastive"] = batch_contrastive(
                moments[known], outputs.sentences[known], config.temperature
            )
        return sums

    # ---- answers --------------------------------------------------------------------------------------

    @torch.no_grad()
    def decode(self, outputs: MomentDETROutput, batch: Batch) -> list[Prediction]:
        """The moments of the last decoder layer, best first, and a saliency score a clip.

        Spans are scaled by the time that a video's rows cover, as the targets of the loss are, rounded
        to ``round_to`` and cut to the video.
        """
        extents = batch.video_lengths * batch.row_seconds
        spans = ops.cxw_to_span(outputs.spans[-1].float()) * extents[:, None, None]
        scores = outputs.logits[-1].float().softmax(dim=-1)[..., FOREGROUND]
        return predictions(
            batch, spans, scores, row_scores=outputs.saliency, round_to=self.config.round_to
        )


def _check(config: MomentDETRConfig) -> None:
    """Hyper-parameters that no model can be made of."""
    counted = (
        "encoder_layers decoder_layers feed_forward input_layers moment_queries contrastive_dim"
    )
    rules = {name: (getattr(config, name) >= 1, "at least 1") for name in counted.split()}
    for name in ("contrastive_align", "batch_contrastive", "saliency_margin", "background_weight"):
        rules[name] = (getattr(config, name) >= 0, "at least 0")
    rules["temperature"] = (config.temperature > 0, "above 0")
    rules |= transformer_rules(
        hidden=config.hidden,
        heads=config.heads,
        dropout=config.dropout,
        input_dropout=config.input_dropout,
        round_to=config.round_to,
    )
    require("moment-detr", msgspec.structs.asdict(config), rules)
