"""QD-DETR (Moon et al., "Query-Dependent Video Representation for Moment Retrieval", CVPR 2023).

Rows of the video first read the sentence, and then each other beside a learned token that comes to say
what is asked; learned spans find the moments in them, each layer moving them on, and a row is as
salient as it is like the token. vmr has it as a rival: it answers with released weights, and is not
trained here. docs/papers/qd-detr.md says what the code does, and where vmr differs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn

import msgspec
import torch
from torch import Tensor, nn

from vmr import ops
from vmr.errors import InputError, require
from vmr.models.answers import predictions
from vmr.models.base import ModelConfig, MomentModel
from vmr.models.layers.dab import DabDecoder
from vmr.models.layers.padding import row_mask, without_padding
from vmr.models.layers.projection import InputProjection, Mlp, sine_positions
from vmr.models.layers.set_prediction import FOREGROUND
from vmr.models.layers.transformer import Attention, Encoder, FeedForward, transformer_rules
from vmr.reference.common import widened

if TYPE_CHECKING:
    from vmr.data.dataset import Batch
    from vmr.evaluation.predictions import Prediction

_EPSILON = 1e-3  # where the code cuts the inverse of the sigmoid


class QDDETRConfig(ModelConfig, frozen=True, kw_only=True, tag="qd-detr"):
    """The hyper-parameters of QD-DETR; the defaults are those of its code for QVHighlights.

    Attributes:
        hidden: Columns of the transformer; a multiple of ``heads`` and of 4.
        heads: Of each attention.
        encoder_layers: From sentence to video, and as many again within the video.
        decoder_layers: Of the decoder.
        feed_forward: Columns inside the feed-forward networks.
        dropout: In the transformer.
        input_dropout: In the projections of the features.
        input_layers: Linear layers of these projections.
        moment_queries: Moments that the model answers with.
        round_to: Seconds that answers are rounded to; None leaves them as they are.
        official_padding: Whether a query's rows leave out tokens by the padding of other queries in the
            batch, as in the code. Then what a query gets depends on the batch that it is in.
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
    round_to: float | None = 2.0
    official_padding: bool = False


class QDDETROutput(NamedTuple):
    """What the model says of a batch.

    Attributes:
        spans: [layers, B, Q, 2] (centre, width) in parts of the time that a video's rows cover; of every
            decoder layer, the last is the answer.
        logits: [layers, B, Q, 2] of foreground and background.
        saliency: [B, T] scores of rows; zeros in the padding.
    """

    spans: Tensor
    logits: Tensor
    saliency: Tensor


class ReadingLayer(nn.Module):
    """Rows of the video read the sentence: attention to its tokens, then a feed-forward network.

    Args:
        columns: D.
        heads: Of the attention.
        hidden: Columns inside the feed-forward network.
        dropout: Of attention weights, of the network, and of both before they are added.
    """

    def __init__(self, columns: int, heads: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.attention = Attention(columns, heads, dropout)
        self.feed_forward = FeedForward(columns, hidden, dropout, "prelu")
        self.norms = nn.ModuleList(nn.LayerNorm(columns) for _ in range(2))
        self.dropout = nn.Dropout(dropout)

    def forward(self, rows: Tensor, positions: Tensor, tokens: Tensor, unread: Tensor) -> Tensor:
        """A layer's turn.

        Args:
            rows: [B, T, D].
            positions: [B, T, D] of them.
            tokens: [B, L, D].
            unread: Where tokens are not read, as ``padding`` of :class:`Attention`.

        Returns:
            [B, T, D].
        """
        found = self.attention(rows + positions, tokens, tokens, unread)
        rows = rows + self.dropout(found)
        # The network reads normalised rows, and its result is added to the others.
        read = self.feed_forward(self.norms[0](rows))
        out: Tensor = self.norms[1](rows + self.dropout(read))
        return out


class QDDETR(MomentModel):
    """QD-DETR, for answers with released weights: :meth:`from_official`.

    Args:
        config: The hyper-parameters, with both widths; that of the video holds the audio features too.

    Raises:
        InputError: A width is missing, or a hyper-parameter is out of its range.
    """

    kind = "qd-detr"
    config_type = QDDETRConfig
    config: QDDETRConfig

    def __init__(self, config: QDDETRConfig) -> None:
        super().__init__(config)
        _check(config)
        hidden = config.hidden
        self.video_projection, self.text_projection = (
            InputProjection(width, hidden, layers=config.input_layers, dropout=config.input_dropout)
            for width in self.widths
        )
        shape = hidden, config.heads, config.feed_forward, config.dropout
        self.reading = nn.ModuleList(ReadingLayer(*shape) for _ in range(config.encoder_layers))
        self.encoder = Encoder(*shape, layers=config.encoder_layers, activation="prelu")
        self.decoder = DabDecoder(
            *shape, layers=config.decoder_layers, activation="prelu", epsilon=_EPSILON
        )
        self.moment_queries = nn.Parameter(torch.randn(config.moment_queries, 2))
        self.token = nn.Parameter(torch.randn(hidden))
        self.token_position = nn.Parameter(torch.randn(hidden))
        self.step_head = Mlp(hidden, hidden, 2, layers=3)
        self.span_head = Mlp(hidden, hidden, 2, layers=3)
        self.label_head = nn.Linear(hidden, 2)
        self.row_saliency = nn.Linear(hidden, hidden)
        self.token_saliency = nn.Linear(hidden, hidden)

    def inputs(self, batch: Batch) -> dict[str, Any]:
        """What :meth:`forward` takes of a batch.

        Raises:
            InputError: The batch has no tokens, or features of another width.
        """
        self.check_tokens(batch)
        return super().inputs(batch)

    def forward(
        self, video: Tensor, video_lengths: Tensor, text: Tensor, text_lengths: Tensor
    ) -> QDDETROutput:
        """Moments and saliency of a batch.

        Args:
            video: [B, T, video_dim].
            video_lengths: [B] rows, at least 1 each.
            text: [B, L, text_dim].
            text_lengths: [B] tokens, at least 1 each.
        """
        batch, rows = video.shape[:2]
        video_mask = row_mask(video_lengths, rows)
        text_mask = row_mask(text_lengths, text.shape[1])
        frames = self.video_projection(without_padding(video, video_mask))
        words = self.text_projection(without_padding(text, text_mask))
        positions = sine_positions(video_lengths, rows, self.config.hidden)
        unread = self._unread(video_mask, text_mask)
        for layer in self.reading:
            frames = layer(frames, positions, words, unread)
        memory = self.encoder(
            torch.cat((self.token.expand(batch, 1, -1), frames), dim=1),
            torch.cat((video_mask.new_zeros(batch, 1), ~video_mask), dim=1),
            torch.cat((self.token_position.expand(batch, 1, -1), positions), dim=1),
        )
        token, frames = memory[:, 0], memory[:, 1:]
        slots, spans = self.decoder(
            self.moment_queries, frames, positions, ~video_mask, refine=self.step_head
        )
        alike = (self.row_saliency(frames) @ self.token_saliency(token)[..., None]).squeeze(-1)
        return QDDETROutput(
            spans=(widened(self.span_head(slots)) + spans).sigmoid(),
            logits=self.label_head(slots),
            saliency=(alike / self.config.hidden**0.5).masked_fill(~video_mask, 0.0),
        )

    def _unread(self, video_mask: Tensor, text_mask: Tensor) -> Tensor:
        """Where tokens are not read: [B, L], or with ``official_padding`` [B, heads, T, L]."""
        if not self.config.official_padding:
            return ~text_mask
        batch, heads = len(video_mask), self.config.heads
        both = ~video_mask[:, :, None] & ~text_mask[:, None]
        # The code repeats it a head at a time, where torch's attention takes it a sample at a time.
        places = torch.arange(batch * heads, device=both.device) % batch
        other = both[places].reshape(batch, heads, *both.shape[1:])
        return other | ~text_mask[:, None, None]

    # ---- answers --------------------------------------------------------------------------------------

    @torch.no_grad()
    def decode(self, outputs: QDDETROutput, batch: Batch) -> list[Prediction]:
        """The moments of the last decoder layer, best first, and a saliency score a clip.

        Spans are scaled by the time that a video's rows cover, rounded to ``round_to`` and cut to the
        video, as those of :class:`vmr.MomentDETR`.
        """
        extents = batch.video_lengths * batch.row_seconds
        spans = ops.cxw_to_span(outputs.spans[-1].float()) * extents[:, None, None]
        scores = outputs.logits[-1].float().softmax(dim=-1)[..., FOREGROUND]
        return predictions(
            batch, spans, scores, row_scores=outputs.saliency, round_to=self.config.round_to
        )

    # ---- no loss --------------------------------------------------------------------------------------

    def loss_weights(self) -> dict[str, float]:
        """Raises InputError: vmr does not train this model."""
        self._untrained()

    def loss_counts(self, batch: Batch) -> dict[str, Tensor]:
        """Raises InputError, likewise."""
        self._untrained()

    def loss_sums(self, outputs: QDDETROutput, batch: Batch) -> dict[str, Tensor]:
        """Raises InputError, likewise."""
        self._untrained()

    def _untrained(self) -> NoReturn:
        raise InputError(
            f"{self.kind}: vmr does not train this model, it answers with released weights (see vmr "
            "convert); moment-detr and bm-detr are trained"
        )


def _check(config: QDDETRConfig) -> None:
    """Hyper-parameters that no model can be made of."""
    counted = "encoder_layers decoder_layers feed_forward input_layers moment_queries"
    rules = {name: (getattr(config, name) >= 1, "at least 1") for name in counted.split()}
    rules |= transformer_rules(
        hidden=config.hidden,
        heads=config.heads,
        dropout=config.dropout,
        input_dropout=config.input_dropout,
        round_to=config.round_to,
    )
    if config.heads >= 1:
        fits = config.hidden > 0 and config.hidden % config.heads == 0 and config.hidden % 4 == 0
        rules["hidden"] = (fits, f"a multiple of heads ({config.heads}) and of 4")
    require("qd-detr", msgspec.structs.asdict(config), rules)
