"""Writes moment_detr.npz: what the official Moment-DETR says on a small batch, its losses and gradients.

    python tests/golden/make_moment_detr.py FOLDER

FOLDER holds a checkout of jayleicn/moment_detr, named OWNER+NAME. The weights are drawn here, in vmr's
model, and put into the official one under its names. Nothing of it is kept but the numbers.
"""

from __future__ import annotations

import sys
from argparse import Namespace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).parents[2]))

from tests.models import detr_case
from vmr.models.layers.targets import ranked_clips, relative_windows, rows_inside
from vmr.models.moment_detr import MomentDETR
from vmr.models.official.moment_detr import rules
from vmr.models.official.names import their_name


def official(folder: Path, model: MomentDETR) -> tuple[nn.Module, nn.Module]:
    """Their model with the same weights, and their losses."""
    sys.path.insert(0, str(folder / "jayleicn+moment_detr"))
    from moment_detr.model import build_model

    config = model.config
    theirs, criterion = build_model(
        Namespace(
            device="cpu", hidden_dim=config.hidden, dropout=0.0, nheads=config.heads,
            dim_feedforward=config.feed_forward, enc_layers=config.encoder_layers,
            dec_layers=config.decoder_layers, pre_norm=False, position_embedding="sine",
            max_q_l=32, max_v_l=75, input_dropout=0.0, t_feat_dim=config.text_dim,
            v_feat_dim=config.video_dim, num_queries=config.moment_queries, aux_loss=True,
            contrastive_align_loss=True, contrastive_hdim=config.contrastive_dim,
            span_loss_type="l1", use_txt_pos=False, n_input_proj=config.input_layers,
            set_cost_span=10, set_cost_giou=1, set_cost_class=4, span_loss_coef=10,
            giou_loss_coef=1, label_loss_coef=4, lw_saliency=1, contrastive_align_loss_coef=0.02,
            eos_coef=0.1, temperature=0.07, saliency_margin=0.2,
        )
    )  # fmt: skip
    named = rules(config)
    weights = {their_name(name, named): value for name, value in model.state_dict().items()}
    missing = theirs.load_state_dict(weights, strict=False)
    # Theirs has a positional encoding of tokens and a projection of frames that it does not use.
    assert not missing.unexpected_keys
    assert {name.split(".")[0] for name in missing.missing_keys} == {
        "txt_position_embed", "contrastive_align_projection_vid",
    }  # fmt: skip
    return theirs, criterion


def every_pair(batch: Any) -> tuple[Tensor, Tensor]:
    """All draws that their sampling could make, as their [B, pairs] labels: equally often each.

    Their mean over pairs is then the expectation of the loss, which is what vmr computes.
    """
    windows = relative_windows(batch)
    inside = rows_inside(windows, batch.video_lengths, batch.video.shape[1])
    clips = ranked_clips(batch, inside)
    better, worse = [], []
    for sample in range(len(batch)):
        kinds = []
        for kind in range(2):
            first = clips.better[kind, sample].nonzero().flatten()
            second = clips.worse[kind, sample].nonzero().flatten()
            kinds.append(torch.cartesian_prod(first, second))
        most = int(np.lcm(len(kinds[0]), len(kinds[1])))
        pairs = torch.cat([kind.repeat(most // len(kind), 1) for kind in kinds])
        better.append(pairs[:, 0])
        worse.append(pairs[:, 1])
    longest = int(np.lcm.reduce([len(pairs) for pairs in better]))
    return tuple(
        torch.stack([pairs.repeat(longest // len(pairs)) for pairs in side])
        for side in (better, worse)
    )


def main() -> None:
    torch.manual_seed(0)
    model = MomentDETR(detr_case.CONFIG)
    detr_case.draw_weights(model)
    theirs, criterion = official(Path(sys.argv[1]), model)
    batch = detr_case.batch()
    rows, tokens = batch.video.shape[1], batch.text.shape[1]
    outputs = theirs(
        batch.text,
        (torch.arange(tokens) < batch.text_lengths[:, None]).float(),
        batch.video,
        (torch.arange(rows) < batch.video_lengths[:, None]).float(),
    )
    from moment_detr.span_utils import span_xx_to_cxw

    better, worse = every_pair(batch)
    extents = batch.video_lengths * batch.row_seconds
    spans = [
        {"spans": span_xx_to_cxw(windows[:count] / extent)}
        for windows, count, extent in zip(
            batch.windows, batch.window_counts.tolist(), extents, strict=True
        )
    ]
    losses = criterion(
        outputs,
        {
            "span_labels": spans,
            "saliency_pos_labels": better,
            "saliency_neg_labels": worse,
        },
    )
    total = sum(
        value * criterion.weight_dict[name]
        for name, value in losses.items()
        if name in criterion.weight_dict
    )
    total.backward()
    gradients, named = dict(theirs.named_parameters()), rules(model.config)
    auxiliary = outputs["aux_outputs"][0]
    found = {
        "spans": torch.stack((auxiliary["pred_spans"], outputs["pred_spans"])),
        "logits": torch.stack((auxiliary["pred_logits"], outputs["pred_logits"])),
        "saliency": outputs["saliency_scores"],
        "total": total,
        **{
            f"term.{name.removeprefix('loss_')}": value
            for name, value in losses.items()
            if name in criterion.weight_dict
        },
        # Behind one another, in the order of vmr's parameters.
        "gradients": torch.cat(
            [
                gradients[their_name(name, named)].grad.flatten()
                for name, _ in model.named_parameters()
            ]
        ),
    }
    arrays = {name: value.detach().numpy() for name, value in found.items()}
    np.savez_compressed(Path(__file__).with_name("moment_detr.npz"), **arrays)


if __name__ == "__main__":
    main()
