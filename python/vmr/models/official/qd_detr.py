"""Released checkpoints of QD-DETR (wjun0830/QD-DETR), of video alone or with audio."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from vmr.data.pack_spec import ready_packs
from vmr.models.official.names import Rule, renamed
from vmr.models.official.options import Options, feature_pack, read_options, refuse, settled
from vmr.models.official.plan import (
    DAB_LAYERS,
    ENCODER_LAYER,
    UNREAD,
    UNSUPPORTED,
    Plan,
    mlp,
    projections,
    sizes,
    unscaled,
)
from vmr.models.official.reading import Released
from vmr.models.qd_detr import QDDETRConfig


def plan(released: Released) -> Plan:
    """What a checkpoint becomes.

    Raises:
        InputError: Its options are not right, do not go with its weights, or are not supported.
    """
    options = read_options(released, Options)
    refuse(released, options, UNSUPPORTED)
    shapes = settled(released, options)
    config = QDDETRConfig(**sizes(options, shapes))
    pack = feature_pack(options, shapes.columns, "QD-DETR")
    if options.dset_name == "tvsum":
        sound = options.a_feat_dir is not None
        pack = ready_packs()["qd-detr-tvsum-audio" if sound else "qd-detr-tvsum"]
    return Plan(config, rules(config), pack, options)


def rules(config: QDDETRConfig) -> list[Rule]:
    """What their tensors are here.

    Their sine encoding of a span has the centre's columns before the width's, vmr's the other way round;
    what is multiplied with it turns its halves.
    """
    decoder = "transformer.decoder"
    return [
        Rule("query_embed.weight", "moment_queries"),
        Rule("global_rep_token", "token"),
        Rule("global_rep_pos", "token_position"),
        Rule("class_embed.*", "label_head.*"),
        Rule("saliency_proj1.*", "row_saliency.*"),
        Rule("saliency_proj2.*", "token_saliency.*"),
        *mlp("span_embed", "span_head", 3),
        *projections(config.input_layers),
        *renamed("transformer.t2v_encoder.layers.#", "reading.#", ENCODER_LAYER),
        *renamed("transformer.encoder.layers.#", "encoder.layers.#", ENCODER_LAYER),
        Rule(
            f"{decoder}.layers.#.ca_qpos_sine_proj.weight",
            "decoder.layers.#.cross_attention.sine.weight",
            _columns_turned,
        ),
        Rule(
            f"{decoder}.layers.#.ca_qpos_sine_proj.bias",
            "decoder.layers.#.cross_attention.sine.bias",
        ),
        *DAB_LAYERS,
        Rule(f"{decoder}.norm.*", "decoder.norm.*"),
        Rule(
            f"{decoder}.ref_point_head.layers.0.weight",
            "decoder.place_head.0.weight",
            _columns_turned,
        ),
        *mlp(f"{decoder}.ref_point_head", "decoder.place_head", 2),
        *unscaled(config.decoder_layers),
        Rule(f"{decoder}.query_scale.layers.1.*", "decoder.sine_scale.2.*", _rows_turned),
        *mlp(f"{decoder}.query_scale", "decoder.sine_scale", 2),
        Rule(f"{decoder}.ref_anchor_head.layers.1.*", "decoder.width_head.2.*", _one_more_row),
        *mlp(f"{decoder}.ref_anchor_head", "decoder.width_head", 2),
        *mlp(f"{decoder}.bbox_embed", "step_head", 3),
        *UNREAD,
    ]


def _columns_turned(weight: Tensor) -> Tensor:
    return weight.roll(weight.shape[-1] // 2, dims=-1)


def _rows_turned(weight: Tensor) -> Tensor:
    return weight.roll(len(weight) // 2, dims=0)


def _one_more_row(weight: Tensor) -> Tensor:
    """The decoder's second output, which nothing reads."""
    return F.pad(weight, (*[0, 0] * (weight.dim() - 1), 0, 1))
