"""Released checkpoints of BM-DETR (minjoong507/BM-DETR), whose behaviour is the published code's."""

from __future__ import annotations

from typing import Any

import msgspec

from vmr.models.bm_detr_config import BMDETRConfig
from vmr.models.layers.transformer import Activation
from vmr.models.official.names import Rule, renamed
from vmr.models.official.options import Options, feature_pack, read_options, refuse, settled
from vmr.models.official.plan import (
    DAB_LAYERS,
    ENCODER_LAYER,
    UNSUPPORTED,
    Plan,
    mlp,
    projections,
    sizes,
    unscaled,
)
from vmr.models.official.reading import Released


class BMDETROptions(Options, frozen=True, kw_only=True):
    """BM-DETR's options, with its defaults where they are its own."""

    clip_length: float = 1.0
    max_v_l: int = 75
    span_loss_coef: float = 1.0
    giou_loss_coef: float = 8.0
    label_loss_coef: float = 8.0
    class_loss_coef: float = 1.0
    lw_saliency: float = 4.0
    lw_prob_loss_coef: float = 2.0
    lw_contrastive_loss_coef: float = 1.0
    transformer_activation: Activation = "prelu"
    use_temporal_shifting: bool = False


def plan(released: Released) -> Plan:
    """What a checkpoint becomes.

    Raises:
        InputError: Its options are not right, do not go with its weights, or are not supported.
    """
    options = read_options(released, BMDETROptions)
    refuse(released, options, UNSUPPORTED)
    shapes = settled(released, options)
    # The code adds up two pairs a query and doubles them, and vmr takes the mean.
    margin_weight = 2 * options.lw_saliency
    config = BMDETRConfig(
        **{**sizes(options, shapes), "round_to": options.clip_length},
        **OFFICIAL,
        activation=options.transformer_activation,
        contrastive_dim=_rows(released, "contrastive_align_vid_proj.weight"),
        span_weight=options.span_loss_coef,
        giou_weight=options.giou_loss_coef,
        label_weight=options.label_loss_coef,
        background_weight=options.eos_coef,
        margin_weight=margin_weight,
        margin=options.saliency_margin,
        probability_weight=options.lw_prob_loss_coef,
        # With a weight of 0 its layers are there all the same, and no answer reads them.
        semantic_weight=options.lw_contrastive_loss_coef,
        temperature=options.temperature,
        shifting="published" if options.use_temporal_shifting else "none",
        accuracy_term=options.class_loss_coef != 0,
        longest=options.max_v_l * options.clip_length,
    )
    pack = feature_pack(options, shapes.columns, "BM-DETR")
    if pack is not None and options.dset_name != "hl":
        pack = msgspec.structs.replace(pack, assumed=True)
    return Plan(config, rules(config), pack, options)


def _rows(released: Released, name: str) -> int:
    """Of a weight; where it lacks, that is said when the weights are filled in."""
    found = released.tensors.get(name)
    return 1 if found is None else len(found)


OFFICIAL: dict[str, Any] = {
    "refine": False,
    "reference_epsilon": 1e-3,
    "decoder_memory": "encoded",
    "pooling": "tanh",
    "margin_pairs": "sampled",
    "semantic_against": "all",
    "moment_rows": "floor",
    "shift_below": None,
    "still_columns": 0,
    "official_padding": True,
    "answer_extent": "duration",
}
"""Settings of :class:`BMDETRConfig` by which vmr does what the published code does."""


def rules(config: BMDETRConfig) -> list[Rule]:
    """What their tensors are here."""
    pooling = []
    for theirs, ours in (("vid", "video"), ("txt", "text")):
        kept = bool(config.semantic_weight)
        parts = {"feat2att": "scores.0", "to_alpha": "scores.2", "fc": "project.0"}
        for part, name in parts.items():
            place = f"{ours}_pooling.{name}.*" if kept else None
            pooling.append(Rule(f"{theirs}_att_pooling.{part}.*", place))
        place = f"{ours}_pooling.project.1.*" if kept else None
        pooling.append(Rule(f"contrastive_align_{theirs}_proj.*", place))
    return [
        Rule("query_embed.weight", "moment_queries"),
        Rule("class_embed.*", "label_head.*"),
        Rule("saliency_proj.*", "saliency_head.*"),
        Rule("FPM.0.*", "matcher.hidden.*"),
        Rule("FPM.2.*", "matcher.score.*"),
        *pooling,
        *mlp("span_embed", "span_head", 3),
        *projections(config.input_layers),
        *mlp("transformer.encoder.query_scale", "encoder.position_scale", 2),
        *renamed("transformer.encoder.layers.#", "encoder.layers.#", ENCODER_LAYER),
        *unscaled(config.decoder_layers),
        *mlp("transformer.decoder.query_scale", "decoder.sine_scale", 2),
        *mlp("transformer.decoder.ref_point_head", "decoder.place_head", 2),
        *mlp("transformer.decoder.ref_anchor_head", "decoder.width_head", 2),
        Rule(
            "transformer.decoder.layers.#.ca_qpos_sine_proj.*",
            "decoder.layers.#.cross_attention.sine.*",
        ),
        *DAB_LAYERS,
        Rule("transformer.decoder.norm.*", "decoder.norm.*"),
        Rule("txt_position_embed.*", None),
    ]
