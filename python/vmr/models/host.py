"""Hosts for A2FA and F2SGD: a small model whose alignment and whose detector can be exchanged.

The paper's Tables 7 and 8 and its Figure 6 (Tan et al., CVPR 2025) put A2FA in place of other models'
alignment, F2SGD in place of their detectors, and other detectors behind A2FA. Here all of these are one
model, so that a comparison differs in the one part that it is about.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import msgspec
import torch
from torch import Tensor
from torch.nn import functional as F

from vmr.errors import InputError, require
from vmr.models.answers import predictions
from vmr.models.layers.a2fa import A2FA
from vmr.models.layers.detector import Detector
from vmr.models.layers.f2sgd import F2SGD
from vmr.models.layers.padding import row_mask, without_padding
from vmr.models.layers.projection import InputProjection, sine_positions
from vmr.models.layers.regression import RegressionDetector
from vmr.models.layers.set_detector import SetDetector
from vmr.models.layers.tan import MapDetector
from vmr.models.layers.transformer import Encoder, transformer_rules
from vmr.models.sentence import SentenceConfig, SentenceModel
from vmr.progress import Progress, silent

if TYPE_CHECKING:
    from vmr.data.dataset import Batch, MomentDataset
    from vmr.evaluation.predictions import Prediction


class HostConfig(SentenceConfig, frozen=True, kw_only=True, tag="host"):
    """The hyper-parameters of a host.

    Attributes:
        alignment: "original", as Moment-DETR and UniVTG do it: frames and tokens go through one encoder;
            or "a2fa".
        detector: "detr" (Moment-DETR), "regression" (UniVTG), "tan" (2D-TAN) or "points" (F2SGD).
        relevance_scale: What w of A2FA's eq. 9 begins with.
        hidden: Columns of the encoder and of the detector's frames; even, and a multiple of ``heads``.
        heads: Of each attention.
        encoder_layers: Of the encoder; with "a2fa" there may be none.
        decoder_layers: Of "detr".
        feed_forward: Columns inside the feed-forward networks.
        dropout: In encoder and decoder.
        input_dropout: In the projections of the features.
        input_layers: Linear layers of these projections.
        moment_queries: Of "detr".
        map_channels: Of the convolutions of "tan" and "points".
        map_layers: Convolutions of "tan".
        kernel_size: Of the convolutions of "points", odd; "tan" has 5.
        top_k: Moments that the model answers with, at most.
        round_to: Seconds that answers are rounded to; None leaves them as they are.
    """

    alignment: Literal["original", "a2fa"] = "original"
    detector: Literal["detr", "regression", "tan", "points"] = "detr"
    relevance_scale: float = 1.0
    hidden: int = 256
    heads: int = 8
    encoder_layers: int = 2
    decoder_layers: int = 2
    feed_forward: int = 1024
    dropout: float = 0.1
    input_dropout: float = 0.5
    input_layers: int = 2
    moment_queries: int = 10
    map_channels: int = 16
    map_layers: int = 3
    kernel_size: int = 21
    top_k: int = 10
    round_to: float | None = None


class PluginHost(SentenceModel):
    """Projection, alignment, encoder, detector.

    ::

        original:  frames, tokens -> projections -> encoder over frames || tokens -> frames -> detector
        a2fa:      frames, sentence -> A2FA -> projection -> encoder over frames -> detector

    How the comparison is kept to the alignment:

    - With "a2fa" the aligned frames take the place of the columns that they were made of; other columns
      (another extractor's, the frame's place in time) stay as they are. So projection, encoder and
      detector are the same modules of the same sizes on both sides. What falls away is the projection of
      the tokens, and the encoder's sight of them; what comes in is A2FA.
    - The encoder stays, over the frames alone: it is also what lets frames see each other, and without
      it the comparison would be one of temporal context. ``encoder_layers=0`` has A2FA in place of the
      whole encoder.
    - Detectors get frames only. Moment-DETR's decoder reads the tokens as well, and 2D-TAN multiplies
      the sentence onto its map: either would be a second alignment beside the one that is exchanged.
    - A2FA's mask hides nothing from the detector. It was part of the alignment (outside of it alpha is
      0), and the paper calls its interval too coarse to be an answer: moments outside stay possible.
    - There is no saliency loss, since only one of the published detectors has one.

    With "a2fa" and "points" F2SGD reads the similarities of encoded frames, as it does in other models
    (Table 8); the paper's own system, in which it reads those of A2FA's frames, is
    :class:`vmr.A2FAF2SGD`.

    Args:
        config: The hyper-parameters, with both widths; with "a2fa" ``text_dim`` is that of the pooled
            sentence and of the frames' source.

    Raises:
        InputError: A width is missing, or a hyper-parameter is out of its range.
    """

    kind = "host"
    config_type = HostConfig
    config: HostConfig

    def __init__(self, config: HostConfig) -> None:
        super().__init__(config)
        _check(config)
        video_dim, text_dim = self.widths
        hidden = config.hidden

        def projection(width: int) -> InputProjection:
            return InputProjection(
                width, hidden, layers=config.input_layers, dropout=config.input_dropout
            )

        # What both sides have is drawn first: the same seed gives them the same weights.
        self.video_projection = projection(video_dim)
        self.encoder = Encoder(
            hidden,
            config.heads,
            config.feed_forward,
            config.dropout,
            layers=config.encoder_layers,
        )
        self.detector = _detector(config)
        if config.alignment == "a2fa":
            self.alignment = A2FA(text_dim, relevance_scale=config.relevance_scale)
        else:
            self.text_projection = projection(text_dim)

    def inputs(self, batch: Batch) -> dict[str, Any]:
        """What :meth:`forward` takes of a batch.

        Raises:
            InputError: The batch has no tokens ("original") or no pooled sentences ("a2fa"), or features
                of another width; or NaN or an infinity.
        """
        video = {"video": batch.video, "video_lengths": batch.video_lengths}
        if self.config.alignment == "a2fa":
            return {**video, "queries": self.sentences(batch)}
        if batch.text is None:
            raise InputError(
                f"{self.kind}: expected the tokens of sentences, got a pack without them"
            )
        widths = batch.video.shape[-1], batch.text.shape[-1]
        if widths != self.widths:
            raise InputError(
                f"{self.kind}: expected video features of {self.widths[0]} columns and tokens of "
                f"{self.widths[1]}, got {widths[0]} and {widths[1]}: it was made for other features"
            )
        self.check_finite(batch)
        return {**video, "text": batch.text, "text_lengths": batch.text_lengths}

    def forward(
        self,
        video: Tensor,
        video_lengths: Tensor,
        text: Tensor | None = None,
        text_lengths: Tensor | None = None,
        queries: Tensor | None = None,
    ) -> Any:
        """What the detector says.

        Args:
            video: [B, T, video_dim].
            video_lengths: [B] rows, at least 1 each.
            text: [B, L, text_dim] tokens, for "original".
            text_lengths: [B] tokens, for "original".
            queries: [B, text_dim] sentences as one vector, for "a2fa".

        Returns:
            The detector's output: a :class:`~vmr.models.layers.set_detector.SetOutput`, a
            :class:`~vmr.models.layers.regression.FrameSpans`, or scores [B, T, T].

        Raises:
            InputError: The sentences did not come as the alignment takes them, or there are none.
        """
        if len(video) == 0:  # attention has no answer to it
            raise InputError(f"{self.kind}: expected at least one query, got an empty batch")
        rows = video.shape[1]
        mask = row_mask(video_lengths, rows)
        video = without_padding(video, mask)
        positions = sine_positions(video_lengths, rows, self.config.hidden)
        if self.config.alignment == "a2fa":
            if queries is None:
                raise InputError(f"{self.kind}: a2fa: expected queries, the sentences as vectors")
            place = self.source_columns(video)
            aligned, _ = self.alignment(video[..., place], video_lengths, queries)
            parts = video[..., : place.start], aligned, video[..., place.stop :]
            frames = self.video_projection(torch.cat(parts, dim=-1))
            memory = self.encoder(frames, ~mask, positions)
        else:
            if text is None or text_lengths is None:
                raise InputError(f"{self.kind}: original: expected text and text_lengths")
            text_mask = row_mask(text_lengths, text.shape[1])
            words = self.text_projection(without_padding(text, text_mask))
            frames = torch.cat((self.video_projection(video), words), dim=1)
            # Tokens have no position: CLIP's already know theirs.
            positions = F.pad(positions, (0, 0, 0, words.shape[1]))
            memory = self.encoder(frames, ~torch.cat((mask, text_mask), dim=1), positions)
        return self.detector(memory[:, :rows], video_lengths)

    def loss_weights(self) -> dict[str, float]:
        """The detector's."""
        return self.detector.loss_weights()

    def loss_counts(self, batch: Batch) -> dict[str, Tensor]:
        """The detector's."""
        return self.detector.loss_counts(batch)

    def loss_sums(self, outputs: Any, batch: Batch) -> dict[str, Tensor]:
        """The detector's."""
        return self.detector.loss_sums(outputs, batch)

    @torch.no_grad()
    def decode(self, outputs: Any, batch: Batch) -> list[Prediction]:
        """The detector's moments, best first, rounded to ``round_to`` and cut to the video.

        There is no saliency: what detectors know of single frames is not the same, or nothing.
        """
        spans, scores, counts = self.detector.moments(
            outputs, batch.video_lengths, batch.row_seconds, self.config.top_k
        )
        return predictions(batch, spans, scores, counts, round_to=self.config.round_to)

    def fit(self, dataset: MomentDataset, progress: Progress = silent) -> None:
        """Finds the columns that A2FA aligns; see :meth:`SentenceModel.fit`."""
        if self.config.alignment == "a2fa":
            super().fit(dataset, progress)


def _detector(config: HostConfig) -> Detector:
    if config.detector == "regression":
        return RegressionDetector(config.hidden)
    if config.detector == "tan":
        return MapDetector(config.hidden, channels=config.map_channels, layers=config.map_layers)
    if config.detector == "points":
        return F2SGD(config.kernel_size, channels=config.map_channels, sigmoid=True)
    return SetDetector(
        config.hidden,
        heads=config.heads,
        layers=config.decoder_layers,
        feed_forward=config.feed_forward,
        dropout=config.dropout,
        queries=config.moment_queries,
    )


def _check(config: HostConfig) -> None:
    """Hyper-parameters that no model can be made of."""
    counted = (
        "decoder_layers feed_forward input_layers moment_queries map_channels map_layers top_k"
    )
    rules = {name: (getattr(config, name) >= 1, "at least 1") for name in counted.split()}
    least = 0 if config.alignment == "a2fa" else 1
    rules["encoder_layers"] = (
        config.encoder_layers >= least,
        f"at least {least} with {config.alignment}",
    )
    rules |= transformer_rules(
        hidden=config.hidden,
        heads=config.heads,
        dropout=config.dropout,
        input_dropout=config.input_dropout,
        round_to=config.round_to,
    )
    require("host", msgspec.structs.asdict(config), rules)
