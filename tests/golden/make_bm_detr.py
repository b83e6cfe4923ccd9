"""Writes bm_detr.npz: what the official BM-DETR says on a small batch, its losses and gradients.

    python tests/golden/make_bm_detr.py FOLDER

FOLDER holds a checkout of minjoong507/BM-DETR, named OWNER+NAME. The weights are drawn here, in vmr's
model, and put into the official one under its names. Nothing of it is kept but the numbers.
"""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).parents[2]))

from tests.models import bm_detr_case as case
from tests.models import detr_case
from vmr.models.bm_detr import BMDETR
from vmr.models.official.bm_detr import rules
from vmr.models.official.names import translated


def official(folder: Path, model: BMDETR) -> tuple[nn.Module, nn.Module, dict[str, str]]:
    """Their model with the same weights, their losses, and their names of our parameters."""
    sys.path.insert(0, str(folder / "minjoong507+BM-DETR"))
    # Their utilities ask for torchvision, of which the model needs nothing.
    utilities: Any = ModuleType("utils.misc")

    def inverse_sigmoid(x: Tensor, eps: float = 1e-3) -> Tensor:
        return torch.logit(x, eps)

    utilities.inverse_sigmoid = inverse_sigmoid
    sys.modules["utils.misc"] = utilities
    from bm_detr import transformer
    from bm_detr.config import BaseOptions
    from bm_detr.model import build_model

    config = model.config
    if config.hidden != 256:  # theirs encodes spans in 256 columns, whatever the transformer's are
        transformer.gen_sineembed_for_position = lambda spans: sines(spans, config.hidden)
    parser = BaseOptions()
    parser.initialize()
    options = parser.parser.parse_args([])
    changes = {
        "device": "cpu", "hidden_dim": config.hidden, "nheads": config.heads,
        "dropout": config.dropout, "input_dropout": config.input_dropout,
        "enc_layers": config.encoder_layers,
        "dec_layers": config.decoder_layers, "dim_feedforward": config.feed_forward,
        "num_queries": config.moment_queries, "contrastive_hdim": config.contrastive_dim,
        "v_feat_dim": config.video_dim, "t_feat_dim": config.text_dim,
        "additional_losses": ["shifting"],
    }  # fmt: skip
    for name, value in changes.items():
        setattr(options, name, value)
    theirs, criterion = build_model(options)
    state = theirs.state_dict()
    found = translated(state, rules(config), model, "theirs")
    names = {
        ours: next(name for name in state if state[name] is value) for ours, value in found.items()
    }
    own = model.state_dict()
    theirs.load_state_dict({name: own[ours] for ours, name in names.items()}, strict=False)
    return theirs, criterion, names


def sines(spans: Tensor, columns: int) -> Tensor:
    """The encoding that theirs has for 256 columns, for fewer: width before centre."""
    place = torch.arange(columns // 2)
    powers = 10000 ** (2 * (place // 2) / (columns // 2))
    parts = [spans[..., which, None] * 2 * math.pi / powers for which in (1, 0)]
    both = [torch.where(place % 2 == 0, part.sin(), part.cos()) for part in parts]
    return torch.cat(both, dim=-1)


def main() -> None:
    torch.manual_seed(0)
    model = BMDETR(case.OFFICIAL)
    detr_case.draw_weights(model)
    theirs, criterion, names = official(Path(sys.argv[1]), model)
    shapes = {name: list(value.shape) for name, value in theirs.state_dict().items()}
    found = {"shapes": np.array(json.dumps(shapes)), "names": np.array(json.dumps(names))}
    for more in (False, True):
        for key, value in run(theirs, criterion, names, model, more).items():
            found[f"{'all' if more else 'plain'}.{key}"] = value.detach().numpy()
    np.savez_compressed(Path(__file__).with_name("bm_detr.npz"), **found)


def run(
    theirs: nn.Module, criterion: nn.Module, names: dict[str, str], model: BMDETR, more: bool
) -> dict[str, Tensor]:
    """A pass without, or with, a negative query and shifted copies."""
    from bm_detr.span_utils import span_xx_to_cxw

    batch, shift = case.batch(), case.shift(case.batch())
    negative, negative_lengths = case.negatives()
    rows = batch.video.shape[1]
    mask = (torch.arange(rows) < batch.video_lengths[:, None]).float()
    words = (torch.arange(batch.text.shape[1]) < batch.text_lengths[:, None]).float()
    inputs = {"src_txt": batch.text, "src_txt_mask": words, "src_vid": batch.video}
    inputs["src_vid_mask"] = mask

    def labels(first: Tensor, last: Tensor) -> Tensor:
        place = torch.arange(rows)
        return ((place >= first[:, None]) & (place <= last[:, None])).long()

    spans = batch.windows[:, 0] / (batch.video_lengths * batch.row_seconds)[:, None]
    targets: dict[str, Any] = {
        "span_labels": [{"spans": span_xx_to_cxw(span[None])} for span in spans],
        "saliency_pos_labels": case.PAIRS[:, 0],
        "saliency_neg_labels": case.PAIRS[:, 1],
        "match_labels": labels(torch.tensor([2, 0, 7]), torch.tensor([5, 2, 10])),
        "logit_mask": mask,
    }
    criterion.additional_losses = ["shifting"] if more else []
    if more:
        inputs["neg_src_txt"] = negative
        inputs["neg_src_txt_mask"] = (torch.arange(6) < negative_lengths[:, None]).float()
        order = shift.order[..., None].expand_as(batch.video)
        inputs |= {"shifted_vid": batch.video.gather(1, order), "shifted_vid_mask": mask}
        inputs["shifted_match_labels"] = labels(*shift.rows.unbind(1))
        targets["shifting"] = {
            "span_labels": [{"spans": span_xx_to_cxw(span[None])} for span in shift.spans],
            "saliency_pos_labels": case.SHIFTED_PAIRS[:, 0],
            "saliency_neg_labels": case.SHIFTED_PAIRS[:, 1],
            "match_labels": inputs["shifted_match_labels"],
            "logit_mask": mask,
        }
    theirs.zero_grad()
    outputs = theirs(**inputs)
    own, others = criterion(outputs, targets)
    passes = [own, *others.values()]
    weights = criterion.weight_dict
    terms = {name: sum(p[name] for p in passes) / len(passes) * weights[name] for name in weights}
    total = sum(terms.values())
    total.backward()
    gradients = dict(theirs.named_parameters())
    found = {
        "spans": outputs["pred_spans"], "logits": outputs["pred_logits"],
        "saliency": outputs["saliency_scores"], "joint": outputs["vid_logits"],
        "videos": outputs["proj_vid_mem"], "sentences": outputs["proj_txt_mem"],
        "total": total,
        **{f"term.{name.removeprefix('loss_')}": value for name, value in terms.items()},
        # Behind one another, in the order of vmr's parameters.
        "gradients": torch.cat(
            [
                torch.zeros(p.numel()) if gradients[names[name]].grad is None
                else gradients[names[name]].grad.flatten()
                for name, p in model.named_parameters()
            ]
        ),
    }  # fmt: skip
    if more:
        found["shifted spans"] = outputs["shifting"]["pred_spans"]
    return found


if __name__ == "__main__":
    main()
