"""Small released checkpoints: their options, their tensors, what they are asked."""

from __future__ import annotations

import functools
import json
from argparse import Namespace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tests.models import detr_case
from vmr.data.dataset import Batch, collate

GOLDEN = Path(__file__).parents[1] / "golden" / "released.npz"
KINDS = {"moment-detr": "moment-detr", "qd-detr": "qd-detr", "qd-detr-audio": "qd-detr"}
"""Cases, and the kind of model that each is."""
AUDIO = 5
_OF_CASE: dict[str, dict[str, Any]] = {
    "moment-detr": {
        "hidden_dim": 32, "contrastive_align_loss": True, "contrastive_align_loss_coef": 0.02
    },
    "qd-detr": {"n_input_proj": 1, "enc_layers": 1},
    "qd-detr-audio": {"enc_layers": 1, "a_feat_dir": "../features/umt_pann_features/",
                      "a_feat_dim": AUDIO},
}  # fmt: skip


def options(case: str, **changes: Any) -> dict[str, Any]:
    """What the opt.json of a run would say.

    QD-DETR's code works with 256 columns alone.
    """
    return {
        "dset_name": "hl", "seed": 2018, "device": 0, "max_q_l": 32, "max_v_l": 75, "clip_length": 2,
        "train_path": "data/train.jsonl", "eval_path": "data/val.jsonl", "no_norm_vfeat": False,
        "no_norm_tfeat": False, "v_feat_dirs": ["../features/clip_features"],
        "t_feat_dir": "../features/clip_text_features/", "a_feat_dir": None,
        "v_feat_dim": detr_case.VIDEO - 2, "t_feat_dim": detr_case.TEXT, "a_feat_dim": None,
        "ctx_mode": "video_tef", "position_embedding": "sine", "enc_layers": 2, "dec_layers": 2,
        "dim_feedforward": 24, "hidden_dim": 256, "input_dropout": 0.5, "dropout": 0.1,
        "use_txt_pos": False, "nheads": 4, "num_queries": 4, "pre_norm": False, "n_input_proj": 2,
        "contrastive_hdim": 8, "temperature": 0.07, "lw_saliency": 1.0, "saliency_margin": 0.2,
        "aux_loss": True, "span_loss_type": "l1", "contrastive_align_loss": False,
        "set_cost_span": 10, "set_cost_giou": 1, "set_cost_class": 4, "span_loss_coef": 10,
        "giou_loss_coef": 1, "label_loss_coef": 4, "eos_coef": 0.1,
        "contrastive_align_loss_coef": 0.0,
        **_OF_CASE[case], **changes,
    }  # fmt: skip


def own_options(case: str, **changes: Any) -> Namespace:
    """What the checkpoint of the same run holds: the TEF's columns are counted by then."""
    found = options(case, **changes)
    found["v_feat_dim"] += 2
    return Namespace(**{**found, "device": torch.device("cuda")})


@functools.cache
def state_dict(case: str) -> dict[str, Tensor]:
    """Tensors with the names and shapes of the official model; drawn once, and not to be changed."""
    with np.load(GOLDEN) as file:
        shapes: dict[str, list[int]] = json.loads(str(file[f"{case}.shapes"]))
    return {name: detr_case.weight(name, *shape) for name, shape in shapes.items()}


def golden(case: str) -> dict[str, Tensor]:
    """What the official model says of :func:`batch`."""
    with np.load(GOLDEN) as file:
        return {
            name.removeprefix(f"{case}."): torch.from_numpy(file[name])
            for name in file.files
            if name.startswith(f"{case}.") and not name.endswith(".shapes")
        }


def batch(case: str) -> Batch:
    """Videos and sentences of several lengths; one is the shortest in both."""
    items = [
        detr_case.item("a", 9, 4, [(2, 8)]),
        detr_case.item("b", 5, 2, [(0, 2)]),
        detr_case.item("c", 12, 6, [(10, 12)]),
    ]
    made = collate(items)
    if case == "qd-detr-audio":
        more = detr_case.numbers("audio", *made.video.shape[:2], AUDIO)
        object.__setattr__(made, "video", torch.cat((made.video, more), dim=-1))
    return made
