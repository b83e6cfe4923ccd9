"""Released checkpoints of Moment-DETR (jayleicn/moment_detr)."""

from __future__ import annotations

from vmr.models.moment_detr import MomentDETRConfig
from vmr.models.official.names import Rule, renamed
from vmr.models.official.options import Options, feature_pack, read_options, refuse, settled
from vmr.models.official.plan import (
    ENCODER_LAYER,
    UNREAD,
    UNSUPPORTED,
    Plan,
    mlp,
    projections,
    sizes,
)
from vmr.models.official.reading import Released

_DECODER_LAYER = {
    "self_attn": "self_attention",
    "multihead_attn": "cross_attention",
    "linear1": "feed_forward.0",
    "linear2": "feed_forward.3",
    "norm1": "norms.0",
    "norm2": "norms.1",
    "norm3": "norms.2",
}


def plan(released: Released) -> Plan:
    """What a checkpoint becomes.

    Raises:
        InputError: Its options are not right, do not go with its weights, or are not supported.
    """
    options = read_options(released, Options)
    refuse(released, options, UNSUPPORTED)
    shapes = settled(released, options)
    # With a weight of 0 the layers of this loss are what they were drawn as, and no answer reads them.
    weight = options.contrastive_align_loss_coef if options.contrastive_align_loss else 0.0
    config = MomentDETRConfig(
        **sizes(options, shapes),
        auxiliary=options.aux_loss,
        span_weight=options.span_loss_coef,
        giou_weight=options.giou_loss_coef,
        label_weight=options.label_loss_coef,
        saliency_weight=options.lw_saliency,
        background_weight=options.eos_coef,
        saliency_margin=options.saliency_margin,
        contrastive_align=weight,
        contrastive_dim=shapes.contrastive_hdim or MomentDETRConfig().contrastive_dim,
        temperature=options.temperature,
    )
    pack = feature_pack(options, shapes.columns, "Moment-DETR")
    return Plan(config, rules(config), pack, options)


def rules(config: MomentDETRConfig) -> list[Rule]:
    """What their tensors are here."""
    alignment = [
        Rule("contrastive_align_projection_query.*", "slot_alignment.*"),
        Rule("contrastive_align_projection_txt.*", "token_alignment.*"),
    ]
    return [
        Rule("query_embed.weight", "moment_queries"),
        Rule("class_embed.*", "label_head.*"),
        Rule("saliency_proj.*", "saliency_head.*"),
        *mlp("span_embed", "span_head", 3),
        *projections(config.input_layers),
        *renamed("transformer.encoder.layers.#", "encoder.layers.#", ENCODER_LAYER),
        *renamed("transformer.decoder.layers.#", "decoder.layers.#", _DECODER_LAYER),
        Rule("transformer.decoder.norm.*", "decoder.norm.*"),
        *(alignment if config.contrastive_align else []),
        *UNREAD,
    ]
