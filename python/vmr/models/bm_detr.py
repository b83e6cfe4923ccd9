"""BM-DETR (Jung et al., WACV 2025): moments from what a query says and another query does not.

A transformer reads video and sentence; a matcher says of each frame how likely it shows what the
sentence says and not what a negative sentence says; frames are weighted by that; and learned spans find
the moments. docs/papers/bm-detr.md says what paper and code do, and where vmr differs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vmr import ops
from vmr.data.pack_spec import TEF
from vmr.errors import InputError
from vmr.models.answers import predictions
from vmr.models.base import MomentModel
from vmr.models.bm_detr_config import BMDETRConfig, check
from vmr.models.layers.background import AttentivePooling, FrameMatcher
from vmr.models.layers.contrast import ContrastEncoder
from vmr.models.layers.contrastive import batch_contrastive
from vmr.models.layers.dab import DabDecoder
from vmr.models.layers.kept_rows import KeptRows
from vmr.models.layers.moment_rows import in_ranges, moment_rows, sampled_hinge, sampled_pairs
from vmr.models.layers.padding import check_lengths, row_mask
from vmr.models.layers.projection import InputProjection, Mlp, sine_positions
from vmr.models.layers.set_prediction import FOREGROUND, SetLoss
from vmr.models.layers.shifting import Shift, draw_shift, shiftable
from vmr.models.layers.targets import Windows, ranked_clips, relative_windows, rows_inside
from vmr.models.layers.transformer import Decoder
from vmr.progress import Progress, silent
from vmr.reference.common import widened

if TYPE_CHECKING:
    from vmr.data.dataset import Batch, MomentDataset
    from vmr.evaluation.predictions import Prediction


class BMDETROutput(NamedTuple):
    """What the model says of P passes: the B queries of a batch, and behind them the copies of a shift.

    Attributes:
        spans: [layers, P, M, 2] (centre, width) in parts of the time that a video's rows cover; the last
            layer is the answer, and the only one unless ``auxiliary``.
        logits: [layers, P, M, 2] of foreground and background.
        saliency: [P, T] scores of rows; zeros in the padding.
        positive: [P, T] P(f | Q+) of eq. 4; zeros in the padding. None without ``background``.
        joint: [P, T] p of eq. 6; the same without a negative query.
        attention: [P, T] o of eq. 7.
        frames: [P, T, d], v' of eqs. 8 and 9; what stands in the padding has no meaning.
        tokens: [P, L, d], q' of eq. 10; likewise.
        shift: What the copies are; None without.
        pairs: [P, 2, K] rows of the margin loss, better and worse; None for all.
    """

    spans: Tensor
    logits: Tensor
    saliency: Tensor
    frames: Tensor
    tokens: Tensor
    positive: Tensor | None = None
    joint: Tensor | None = None
    attention: Tensor | None = None
    shift: Shift | None = None
    pairs: Tensor | None = None


class _Asked(NamedTuple):
    """The ground truth of P passes: windows, their first and last rows [P, M, 2], and lengths [P]."""

    windows: Windows
    rows: Tensor
    lengths: Tensor


class BMDETR(MomentModel):
    """BM-DETR.

    A batch with ``negative_text`` is read with the negative queries beside its own; in training, videos
    that may be shifted are read a second time with their moment elsewhere. All passes share one batch of
    the encoder, and only those of the positive queries reach the decoder.

    Args:
        config: The hyper-parameters, with both widths.

    Raises:
        InputError: A width is missing, or a hyper-parameter is out of its range.
    """

    kind = "bm-detr"
    config_type = BMDETRConfig
    config: BMDETRConfig
    reads_negatives = True

    def __init__(self, config: BMDETRConfig) -> None:
        super().__init__(config)
        check(config)
        video_dim, text_dim = self.widths
        hidden = config.hidden

        def projection(width: int) -> InputProjection:
            return InputProjection(
                width, hidden, layers=config.input_layers, dropout=config.input_dropout
            )

        self.video_projection = projection(video_dim)
        self.text_projection = projection(text_dim)
        shape = hidden, config.heads, config.feed_forward, config.dropout
        self.encoder = ContrastEncoder(
            *shape, layers=config.encoder_layers, activation=config.activation
        )
        if config.background:
            self.matcher = FrameMatcher(hidden, official_padding=config.official_padding)
        self.span_head = Mlp(hidden, hidden, 2, layers=3)
        if config.learnable_spans:
            self.decoder: DabDecoder | Decoder = DabDecoder(
                *shape,
                layers=config.decoder_layers,
                activation=config.activation,
                epsilon=config.reference_epsilon,
            )
            self.moment_queries = nn.Parameter(torch.randn(config.moment_queries, 2))
        else:
            self.decoder = Decoder(*shape, layers=config.decoder_layers)
            self.moment_queries = nn.Parameter(torch.randn(config.moment_queries, hidden))
        self.label_head = nn.Linear(hidden, 2)
        self.saliency_head = nn.Linear(hidden, 1)
        if config.semantic_weight:
            pooling = hidden, config.contrastive_dim, config.pooling
            self.video_pooling = AttentivePooling(*pooling)
            self.text_pooling = AttentivePooling(*pooling)
        self.set_loss = SetLoss(
            slots=config.moment_queries,
            layers=config.decoder_layers,
            auxiliary=config.auxiliary,
            span_weight=config.span_weight,
            giou_weight=config.giou_weight,
            label_weight=config.label_weight,
            background_weight=config.background_weight,
        )

    def fit(self, dataset: MomentDataset, progress: Progress = silent) -> None:
        """Takes from the feature pack which columns say where a row lies."""
        if self.config.still_columns is None:
            columns = 2 if dataset.pack.spec.columns[-1] == TEF else 0
            self.config = msgspec.structs.replace(self.config, still_columns=columns)

    def inputs(self, batch: Batch) -> dict[str, Any]:
        """What :meth:`forward` takes of a batch; in training, with what is drawn for it.

        Raises:
            InputError: The batch has no tokens, or features of another width.
        """
        self.check_tokens(batch)
        found = super().inputs(batch)
        if self.config.background and batch.negative_text is not None:
            found["negative_text"] = batch.negative_text
            found["negative_lengths"] = batch.negative_lengths
        if self.training:
            shift = self._draw_shift(batch)
            if shift is not None:
                found["shift"] = shift
            if self.config.margin_pairs == "sampled":
                found["pairs"] = self._draw_pairs(batch, shift)
        return found

    def forward(
        self,
        video: Tensor,
        video_lengths: Tensor,
        text: Tensor,
        text_lengths: Tensor,
        negative_text: Tensor | None = None,
        negative_lengths: Tensor | None = None,
        shift: Shift | None = None,
        pairs: Tensor | None = None,
    ) -> BMDETROutput:
        """Moments, probabilities and saliency of a batch.

        Args:
            video: [B, T, video_dim].
            video_lengths: [B] rows, at least 1 each.
            text: [B, L, text_dim].
            text_lengths: [B] tokens.
            negative_text: [B, L', text_dim] of negative queries; None for none.
            negative_lengths: [B] tokens.
            shift: Copies of samples that are read as well; :meth:`inputs` draws them in training.
            pairs: Passed on to the loss; likewise.

        Raises:
            InputError: Features of another width, lengths that are none, or negative queries that do not
                fit the batch.
        """
        rows, config = video.shape[1], self.config
        self._check(video, video_lengths, text, text_lengths)
        sentences = [(text, text_lengths)]
        if (negative_text is None) != (negative_lengths is None):
            raise InputError(
                f"{self.kind}: negative_text and negative_lengths go together, got one"
            )
        if negative_text is not None and negative_lengths is not None:
            self._check(video, video_lengths, negative_text, negative_lengths, "negative_")
            sentences.append((negative_text, negative_lengths))
        words, word_lengths = _stacked(sentences)
        if shift is not None:
            video = torch.cat((video, self._shifted(video, shift)))
            video_lengths = torch.cat((video_lengths, video_lengths[shift.of]))
        frame_mask = row_mask(video_lengths, rows)
        shown = KeptRows(frame_mask)
        frames = self.video_projection(shown.taken(video))
        tokens, read_rows = self._tokens(words, word_lengths, shift)
        positions = sine_positions(video_lengths, rows, config.hidden)
        # Eqs. 2 and 3, of queries and negative queries in one batch.
        memory, against, mask = self.encoder(
            frames, shown.taken(positions), shown, tokens, read_rows
        )
        seen, read = memory[:, :rows], memory[:, rows:]
        positive, joint, attention = None, None, None
        if config.background:
            seen, joint, positive, attention = self.matcher(seen, video_lengths, against)
            if config.decoder_memory == "attended":
                memory = torch.cat((seen, read), dim=1)
        spans, slots = self._decoded(memory, positions, ~mask)
        saliency = self.saliency_head(seen).squeeze(-1).masked_fill(~frame_mask, 0.0)
        return BMDETROutput(
            spans=spans,
            logits=self.label_head(slots),
            saliency=saliency,
            positive=positive,
            joint=joint,
            attention=attention,
            frames=seen,
            tokens=read,
            shift=shift,
            pairs=pairs,
        )

    def _check(
        self, video: Tensor, rows: Tensor, text: Tensor, tokens: Tensor, prefix: str = ""
    ) -> None:
        self.check_widths(video, text)
        check_lengths(f"{self.kind}: video", rows, len(video))
        check_lengths(f"{self.kind}: {prefix}text", tokens, len(video))
        if len(text) != len(video):
            raise InputError(
                f"{self.kind}: {prefix}text: expected {len(video)} sentences, one a video, got "
                f"{len(text)}"
            )

    def _tokens(
        self, words: Tensor, lengths: Tensor, shift: Shift | None
    ) -> tuple[Tensor, KeptRows]:
        """Tokens [K, B, L, X] projected, once for queries and their copies: the rows of [K * P, L]."""
        read = KeptRows(row_mask(lengths, words.shape[2]).flatten(0, 1))
        tokens: Tensor = self.text_projection(read.taken(words.flatten(0, 1)))
        if shift is None:
            return tokens, read
        rows = read.put_back(tokens).view(*words.shape[:3], -1)
        rows = torch.cat((rows, rows[:, shift.of]), dim=1).flatten(0, 1)
        lengths = torch.cat((lengths, lengths[:, shift.of]), dim=1)
        read = KeptRows(row_mask(lengths.flatten(), words.shape[2]))
        return read.taken(rows), read

    def _decoded(self, memory: Tensor, positions: Tensor, padding: Tensor) -> tuple[Tensor, Tensor]:
        """Spans [layers, P, M, 2] and slots [layers, P, M, d] of the layers that count."""
        config = self.config
        layers = slice(0 if config.auxiliary else -1, None)
        if isinstance(self.decoder, DabDecoder):
            slots, began = self.decoder(
                self.moment_queries,
                memory,
                positions,
                padding,
                refine=self.span_head if config.refine else None,
            )
            slots = slots[layers]
            return (widened(self.span_head(slots)) + began[layers]).sigmoid(), slots
        rest = memory.shape[1] - positions.shape[1]
        placed = F.pad(positions, (0, 0, 0, rest))
        slots = self.decoder(self.moment_queries, memory, placed, padding)[layers]
        return widened(self.span_head(slots)).sigmoid(), slots

    # ---- what is drawn in training --------------------------------------------------------------------

    def _draw_shift(self, batch: Batch) -> Shift | None:
        rule = self.config.shifting
        if rule == "none":
            return None
        return draw_shift(batch, relative_windows(batch), rule, self.config.shift_below)

    def _shifted(self, video: Tensor, shift: Shift) -> Tensor:
        """The copies' features [S, T, D]: rows in their new order, but for the columns that stay."""
        columns = video.shape[-1]
        copies = video[shift.of]
        moved = copies.gather(1, shift.order[..., None].expand(-1, -1, columns))
        still = self.config.still_columns or 0
        if still:
            moved = torch.cat((moved[..., : columns - still], copies[..., columns - still :]), -1)
        return moved

    def _draw_pairs(self, batch: Batch, shift: Shift | None) -> Tensor:
        """Pairs of rows as the published code draws them: by clip scores, or inside and outside."""
        rows = batch.video.shape[1]
        windows = relative_windows(batch)
        lengths = batch.video_lengths

        def placed(windows: Windows, lengths: Tensor) -> Tensor:
            ranges = moment_rows(windows, lengths, self.config.moment_rows)
            return sampled_pairs(in_ranges(ranges, windows.counts, lengths, rows), 2)

        graded = sampled_pairs(ranked_clips(batch, rows_inside(windows, lengths, rows)), 1)
        # A query with scores alone is not counted among those that the term is divided by.
        scored = batch.has_saliency & (windows.counts > 0)
        pairs = torch.where(scored[:, None, None], graded, placed(windows, lengths))
        if shift is None:
            return pairs
        moved = Windows(shift.spans[:, None], torch.ones_like(shift.of))
        return torch.cat((pairs, placed(moved, lengths[shift.of])))

    # ---- loss -----------------------------------------------------------------------------------------

    def loss_weights(self) -> dict[str, float]:
        """``span``, ``giou``, ``label``, ``margin``, and what else is on.

        A term of a decoder layer before the last has the layer's number, from 0, behind its name.
        """
        config = self.config
        weights = self.set_loss.weights()
        weights["margin"] = config.margin_weight
        if config.background:
            weights["probability"] = config.probability_weight
        if config.semantic_weight:
            weights["semantic"] = config.semantic_weight
        if config.accuracy_term:
            weights["class"] = 1.0
        return weights

    def loss_counts(self, batch: Batch) -> dict[str, Tensor]:
        """Matched windows, moment queries, and passes with a moment; copies count as the others do."""
        config = self.config
        windows = relative_windows(batch)
        counts = windows.counts
        if self.training and config.shifting != "none":
            copies = shiftable(batch, windows, config.shifting, config.shift_below)
            counts = torch.cat((counts, torch.ones_like(counts)[copies]))
        found = self.set_loss.counts(Windows(windows.spans, counts))
        asked = (counts > 0).sum().float()
        found["margin"] = asked
        if config.background:
            found["probability"] = asked.clone()
        if config.semantic_weight:
            found["semantic"] = asked.clone()
        if config.accuracy_term:
            found["class"] = found["span"].clone()
        return found

    def loss_sums(self, outputs: BMDETROutput, batch: Batch) -> dict[str, Tensor]:
        """The terms as sums; a part of a batch has its share of each.

        But for ``semantic``: it spans what all processes of torch.distributed hold at the time, and not
        other parts of a batch that is cut in time.
        """
        config = self.config
        asked = self._asked(batch, outputs.shift)
        windows, counts = asked.windows, asked.windows.counts
        layered, match = self.set_loss.sums(outputs.spans, outputs.logits, windows)
        sums = self.set_loss.by_layer(layered)
        scores = widened(outputs.saliency)
        if outputs.pairs is not None:
            margins = sampled_hinge(scores, outputs.pairs, config.margin)
        else:
            margins = ops.margin_loss(
                scores, asked.rows, counts, asked.lengths, margin=config.margin
            )
        sums["margin"] = margins.sum()
        if outputs.joint is not None:
            joint = widened(outputs.joint)
            sums["probability"] = ops.probability_loss(
                joint, asked.rows, counts, asked.lengths
            ).sum()
        if config.semantic_weight:
            sums["semantic"] = self._semantic(*self.pooled(outputs, batch), counts, len(batch))
        if config.accuracy_term:
            found = outputs.logits[-1].argmax(dim=-1).gather(1, match.slots[-1].clamp(min=0))
            wrong = (found != FOREGROUND) & (match.slots[-1] >= 0)
            sums["class"] = 100.0 * wrong.sum()
        return sums

    def pooled(self, outputs: BMDETROutput, batch: Batch) -> tuple[Tensor, Tensor]:
        """The videos and sentences of all passes, [P, C] each, eqs. 9 and 10; eq. 11 is their cosine.

        Args:
            outputs: What :meth:`forward` gave.
            batch: The batch it gave it for.
        """
        rows, tokens = batch.video_lengths, batch.text_lengths
        if outputs.shift is not None:
            copied = outputs.shift.of
            rows, tokens = torch.cat((rows, rows[copied])), torch.cat((tokens, tokens[copied]))
        return self.video_pooling(outputs.frames, rows), self.text_pooling(outputs.tokens, tokens)

    def _semantic(self, videos: Tensor, sentences: Tensor, counts: Tensor, queries: int) -> Tensor:
        """Eq. 17, of the queries and of their copies, each among themselves."""
        config = self.config
        total = videos.new_zeros(())
        parts = [slice(0, queries)]
        # Other processes may have copies where this one has none, and all have to ask together.
        if len(counts) > queries or (self.training and config.shifting != "none"):
            parts.append(slice(queries, None))
        for part in parts:
            known = counts[part] > 0
            total = total + batch_contrastive(
                videos[part][known],
                sentences[part][known],
                config.temperature,
                both_ways=False,
                against=config.semantic_against,
            )
        return total

    def _asked(self, batch: Batch, shift: Shift | None) -> _Asked:
        """The ground truth of all passes."""
        windows, lengths = relative_windows(batch), batch.video_lengths
        rows = moment_rows(windows, lengths, self.config.moment_rows)
        if shift is None:
            return _Asked(windows, rows, lengths)
        most = windows.spans.shape[1] - 1
        spans = torch.cat((windows.spans, F.pad(shift.spans[:, None], (0, 0, 0, most))))
        rows = torch.cat((rows, F.pad(shift.rows[:, None], (0, 0, 0, most))))
        counts = torch.cat((windows.counts, torch.ones_like(shift.of)))
        return _Asked(Windows(spans, counts), rows, torch.cat((lengths, lengths[shift.of])))

    # ---- answers --------------------------------------------------------------------------------------

    @torch.no_grad()
    def decode(self, outputs: BMDETROutput, batch: Batch) -> list[Prediction]:
        """The moments of the last decoder layer, best first, and a saliency score a clip."""
        config, queries = self.config, len(batch)
        extents = batch.video_lengths * batch.row_seconds
        if config.answer_extent == "duration":
            longest = torch.inf if config.longest is None else config.longest
            extents = batch.durations.clamp(max=longest)
        spans = ops.cxw_to_span(outputs.spans[-1, :queries].float()) * extents[:, None, None]
        scores = outputs.logits[-1, :queries].float().softmax(dim=-1)[..., FOREGROUND]
        saliency = outputs.saliency[:queries]
        return predictions(batch, spans, scores, row_scores=saliency, round_to=config.round_to)


def _stacked(sentences: list[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    """Tokens [B, L, D] with their lengths, K times, as [K, B, L, D] of the longest L, and [K, B]."""
    most = max(tokens.shape[1] for tokens, _ in sentences)
    padded = [F.pad(tokens, (0, 0, 0, most - tokens.shape[1])) for tokens, _ in sentences]
    return torch.stack(padded), torch.stack([lengths for _, lengths in sentences])
