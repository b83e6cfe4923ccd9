"""The hyper-parameters of BM-DETR (Jung et al., WACV 2025)."""

from __future__ import annotations

import math
from typing import Literal

import msgspec

from vmr.errors import require
from vmr.models.base import ModelConfig
from vmr.models.layers.moment_rows import RowRule
from vmr.models.layers.shifting import ShiftRule
from vmr.models.layers.transformer import Activation, transformer_rules


class BMDETRConfig(ModelConfig, frozen=True, kw_only=True, tag="bm-detr"):
    """The hyper-parameters of BM-DETR; the defaults are the paper's, and its code's numbers.

    Where the published code does otherwise than the paper, both are values of one setting, the paper's
    being the default; :meth:`vmr.models.bm_detr.BMDETR.from_official` sets the code's.
    docs/papers/bm-detr.md says more of each.

    Attributes:
        hidden: Columns of the transformer; a multiple of ``heads`` and of 4.
        heads: Of each attention.
        encoder_layers: Of the encoder.
        decoder_layers: Of the decoder.
        feed_forward: Columns inside the feed-forward networks.
        dropout: In the transformer.
        input_dropout: In the projections of the features.
        input_layers: Linear layers of these projections.
        activation: Of the feed-forward networks, but for a decoder without learnable spans, which is
            Moment-DETR's; the code's is "prelu".
        moment_queries: M, moments that the model answers with.
        background: Whether frames are weighted by how likely they match the query and not the negative
            one (eqs. 4 to 8; BMD of Table 7).
        learnable_spans: Whether moment queries are spans, as in DAB-DETR (LS of Table 7), or learned
            vectors as in Moment-DETR.
        refine: Whether each decoder layer moves the learnable spans; the code's stay (False).
        reference_epsilon: Where the inverse of the sigmoid is cut; the code's is 1e-3.
        decoder_memory: What the decoder reads: the "attended" frames of eq. 8, or those that were
            "encoded", as in the code, where spans do not depend on negatives.
        auxiliary: Whether the loss is also taken after every decoder layer before the last.
        pooling: Weights of eqs. 9 and 10: "linear", or the code's "tanh", of a network, with a linear
            layer and a projection behind.
        contrastive_dim: Columns of that projection.
        span_weight: Of the L1 loss of (centre, width); in the matching cost too.
        giou_weight: Of 1 - gIoU; in the matching cost too.
        label_weight: Of the classification; in the matching cost too.
        background_weight: Of a moment query without a moment, within the classification.
        margin_weight: Of the frame margin loss, eq. 15.
        margin: Its margin.
        margin_pairs: Which pairs it goes over: "all", or some that are "sampled" each step, as in the
            code.
        probability_weight: Of the frame probability loss, eq. 16.
        semantic_weight: Of the semantic alignment loss, eq. 17; 0 leaves its layers out (FS of Table 7).
        semantic_against: What eq. 17's denominator goes over: the "others" of the batch, or "all", as in
            the code.
        temperature: Of eq. 17.
        moment_rows: Which rows a moment has: those whose "middle" lies in it, or the code's "floor".
        shifting: Temporal shifting (TS of Table 7): "exact", the code's way ("published"), or "none".
        shift_below: Seconds that a video must be shorter than to be shifted; None for any.
        still_columns: Columns at the end of the video features that say where a row lies (TEF's 2) and
            do not move with shifted rows; None takes the feature pack's. The code moves them (0).
        accuracy_term: Whether the loss has the code's constant 100 - accuracy of matched queries.
        official_padding: Whether the softmax of eq. 7 runs over padding too, as in the code. Then what a
            query gets depends on the batch that it is in.
        answer_extent: What answers are scaled by: the time that the "rows" cover, as the targets are, or
            the video's "duration", as in the code.
        longest: Seconds that the latter is cut to; None for none.
        round_to: Seconds that answers are rounded to; None leaves them as they are.
    """

    hidden: int = 256
    heads: int = 8
    encoder_layers: int = 3
    decoder_layers: int = 3
    feed_forward: int = 1024
    dropout: float = 0.1
    input_dropout: float = 0.5
    input_layers: int = 2
    activation: Activation = "relu"
    moment_queries: int = 10
    background: bool = True
    learnable_spans: bool = True
    refine: bool = True
    reference_epsilon: float = 1e-5
    decoder_memory: Literal["attended", "encoded"] = "attended"
    auxiliary: bool = False
    pooling: Literal["linear", "tanh"] = "linear"
    contrastive_dim: int = 256
    span_weight: float = 1.0
    giou_weight: float = 8.0
    label_weight: float = 8.0
    background_weight: float = 0.1
    margin_weight: float = 8.0
    margin: float = 0.2
    margin_pairs: Literal["all", "sampled"] = "all"
    probability_weight: float = 2.0
    semantic_weight: float = 1.0
    semantic_against: Literal["others", "all"] = "others"
    temperature: float = 0.07
    moment_rows: RowRule = "middle"
    shifting: ShiftRule | Literal["none"] = "exact"
    shift_below: float | None = 60.0
    still_columns: int | None = None
    accuracy_term: bool = False
    official_padding: bool = False
    answer_extent: Literal["rows", "duration"] = "rows"
    longest: float | None = None
    round_to: float | None = None


def check(config: BMDETRConfig) -> None:
    """Refuses hyper-parameters that no model can be made of.

    Raises:
        InputError: With the name of the first.
    """
    counted = (
        "encoder_layers decoder_layers feed_forward input_layers moment_queries contrastive_dim"
    )
    weights = (
        "span_weight giou_weight label_weight background_weight margin_weight margin "
        "probability_weight semantic_weight"
    )
    rules = {name: (getattr(config, name) >= 1, "at least 1") for name in counted.split()}
    rules |= {
        name: (0 <= getattr(config, name) < math.inf, "at least 0 and finite")
        for name in weights.split()
    }
    for name in ("shift_below", "longest"):
        value = getattr(config, name)
        rules[name] = (value is None or value > 0, "seconds above 0, or None")
    still = config.still_columns
    most = config.video_dim if config.video_dim is not None else 0
    rules["still_columns"] = (
        still is None or 0 <= still <= most,
        f"from 0 to video_dim ({most}), or None",
    )
    rules["temperature"] = (config.temperature > 0, "above 0")
    rules["reference_epsilon"] = (0 < config.reference_epsilon < 0.5, "above 0 and below 0.5")
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
    require("bm-detr", msgspec.structs.asdict(config), rules)
