"""What a released checkpoint becomes: hyper-parameters, rules for its tensors, its features."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from vmr.data.pack_spec import Pack
from vmr.models.base import ModelConfig
from vmr.models.official.names import Rule, renamed
from vmr.models.official.options import Options, Shapes

UNSUPPORTED = (
    ("use_txt_pos", lambda on: not on),
    ("pre_norm", lambda on: not on),
    ("position_embedding", lambda kind: kind in ("sine", "v2")),
    ("span_loss_type", lambda kind: kind == "l1"),
)
"""Options of Moment-DETR and QD-DETR that change the model in ways that vmr does not have."""
UNREAD = (
    Rule("txt_position_embed.*", None),
    Rule("contrastive_align_projection_query.*", None),
    Rule("contrastive_align_projection_txt.*", None),
    Rule("contrastive_align_projection_vid.*", None),
)
"""Layers that both codes make, and that no answer depends on."""
# The code rounds answers to clips of 2 s, whatever clip_length says.
ROUND_TO = 2.0


@dataclass(frozen=True, slots=True)
class Plan:
    """What a released checkpoint becomes.

    Attributes:
        config: Of the model.
        rules: For its tensors, see :func:`vmr.models.official.names.translated`.
        pack: What features it was trained on; None where its options do not say.
        options: Those of its run.
    """

    config: ModelConfig
    rules: list[Rule]
    pack: Pack | None
    options: Options

    @property
    def data(self) -> dict[str, str]:
        """Files of the run, by split."""
        files = {"train": self.options.train_path, "val": self.options.eval_path}
        return {split: path for split, path in files.items() if path is not None}

    @property
    def seed(self) -> int:
        """Of the run."""
        return self.options.seed


ENCODER_LAYER = {
    "self_attn": "attention",
    "linear1": "feed_forward.0",
    "activation": "feed_forward.1",
    "linear2": "feed_forward.3",
    "norm1": "norms.0",
    "norm2": "norms.1",
}
"""Parts of an encoder layer, theirs to vmr's; ``activation`` has a weight where it is a PReLU."""

_DAB_LAYER = {
    "sa_qcontent_proj": "query",
    "sa_qpos_proj": "query_position",
    "sa_kcontent_proj": "key",
    "sa_kpos_proj": "key_position",
    "sa_v_proj": "value",
    "self_attn.out_proj": "out",
    "ca_qcontent_proj": "cross_attention.query",
    "ca_qpos_proj": "asked_position",
    "ca_kcontent_proj": "cross_attention.key",
    "ca_kpos_proj": "cross_attention.position_key",
    "ca_v_proj": "cross_attention.value",
    "cross_attn.out_proj": "cross_attention.out",
    "linear1": "feed_forward.0",
    "activation": "feed_forward.1",
    "linear2": "feed_forward.3",
    "norm1": "norms.0",
    "norm2": "norms.1",
    "norm3": "norms.2",
}
_DECODER = "transformer.decoder.layers.#"
DAB_LAYERS = [
    # What is added to all weights before a softmax changes none of them.
    Rule(f"{_DECODER}.ca_kcontent_proj.bias", None),
    Rule(f"{_DECODER}.ca_kpos_proj.bias", None),
    *renamed(_DECODER, "decoder.layers.#", _DAB_LAYER),
]
"""The layers of a DAB-DETR decoder, but for ``ca_qpos_sine_proj``."""


def projections(layers: int) -> list[Rule]:
    """The ways from features to the transformer, of so many layers each."""
    rules = []
    for theirs, ours in (("vid", "video"), ("txt", "text")):
        for place in range(layers):
            names = {"LayerNorm": f"{4 * place}", "net.1": f"{4 * place + 2}"}
            rules += renamed(f"input_{theirs}_proj.{place}", f"{ours}_projection", names)
    return rules


def unscaled(layers: int) -> list[Rule]:
    """Of a decoder of one layer nothing reads what scales the encoding for later ones."""
    return [Rule("transformer.decoder.query_scale.*", None)] if layers == 1 else []


def mlp(theirs: str, ours: str, layers: int) -> list[Rule]:
    """A stack of linear layers."""
    return renamed(
        f"{theirs}.layers", ours, {f"{place}": f"{2 * place}" for place in range(layers)}
    )


def sizes(options: Options, shapes: Shapes) -> dict[str, Any]:
    """The hyper-parameters that Moment-DETR and QD-DETR share, by vmr's names."""
    given = {
        "video_dim": shapes.columns,
        "text_dim": shapes.t_feat_dim,
        "hidden": shapes.hidden_dim,
        "encoder_layers": shapes.enc_layers,
        "decoder_layers": shapes.dec_layers,
        "feed_forward": shapes.dim_feedforward,
        "input_layers": shapes.n_input_proj,
        "moment_queries": shapes.num_queries,
    }
    # What the weights lack has vmr's default here, and is named when they are filled in.
    known = {name: value for name, value in given.items() if value}
    return {
        **known,
        "heads": options.nheads,
        "dropout": options.dropout,
        "input_dropout": options.input_dropout,
        "round_to": ROUND_TO,
    }
