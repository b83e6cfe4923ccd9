"""Released checkpoints of BM-DETR: what the code computes, and what its options become."""

from __future__ import annotations

import json
from argparse import Namespace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.models import bm_detr_case, detr_case
from tests.models.bm_detr_case import OFFICIAL, batch
from tests.models.test_bm_detr import GOLDEN, drawn, gradients, official_pass
from vmr.errors import InputError
from vmr.models import from_official
from vmr.models.base import MomentModel
from vmr.models.bm_detr import BMDETR
from vmr.models.moment_detr import MomentDETR


def tensors() -> dict[str, Tensor]:
    """The state dict of the official model that the golden numbers are of, under its own names."""
    with np.load(GOLDEN) as file:
        shapes: dict[str, list[int]] = json.loads(str(file["shapes"]))
        names: dict[str, str] = json.loads(str(file["names"]))
    own = drawn(OFFICIAL).state_dict()
    theirs = {names[ours]: value for ours, value in own.items()}
    # What vmr does not have: no answer may depend on it.
    return {
        name: theirs.get(name, detr_case.numbers(name, *shape)) for name, shape in shapes.items()
    }


def options(**changes: Any) -> dict[str, Any]:
    """What the opt.json of the run would say; v_feat_dim without the columns of the TEF."""
    return {
        "dset_name": "charades", "seed": 2018, "max_q_l": 32, "max_v_l": 75, "clip_length": 1,
        "v_feat_dirs": ["features/charades_features/vgg_features"], "ctx_mode": "video_tef",
        "t_feat_dir": "features/charades_features/clip_text_features/",
        "v_feat_dim": detr_case.VIDEO - 2, "t_feat_dim": detr_case.TEXT, "hidden_dim": 16,
        "nheads": 4, "enc_layers": 2, "dec_layers": 3, "dim_feedforward": 24, "num_queries": 4,
        "n_input_proj": 2, "contrastive_hdim": 8, "temperature": 0.07, "dropout": 0.0,
        "input_dropout": 0.0, "transformer_activation": "prelu", "use_temporal_shifting": True,
        "additional_losses": ["shifting"], "span_loss_coef": 1, "giou_loss_coef": 8,
        "label_loss_coef": 8, "class_loss_coef": 1, "eos_coef": 0.1, "lw_saliency": 4.0,
        "lw_prob_loss_coef": 2.0, "lw_contrastive_loss_coef": 1.0, "saliency_margin": 0.2,
        **changes,
    }  # fmt: skip


def released(folder: Path, **changes: Any) -> Path:
    """A file as the code writes it: its own options have the columns of the TEF."""
    path = folder / "model_best.ckpt"
    found = options(**changes)
    found["v_feat_dim"] += 2
    own = Namespace(**{**found, "device": torch.device("cuda")})
    torch.save({"model": tensors(), "optimizer": {}, "epoch": 3, "opt": own}, path)
    (folder / "opt.json").write_text(json.dumps(options(**changes)))
    return path


@pytest.mark.parametrize("name", ["plain", "all"])
def test_answers_losses_and_gradients_are_the_official_ones(name: str, tmp_path: Path) -> None:
    shifting = name == "all"
    model = BMDETR.from_official(released(tmp_path, use_temporal_shifting=shifting))
    assert isinstance(model, BMDETR)
    assert not model.training
    model.train()
    of = batch()
    outputs = official_pass(model, of, name)
    with np.load(GOLDEN) as file:
        golden = {key: torch.from_numpy(file[key]) for key in file.files if "." in key}
    for found, key in ((outputs.spans[-1], "spans"), (outputs.logits[-1], "logits")):
        torch.testing.assert_close(found[:3], golden[f"{name}.{key}"], atol=1e-5, rtol=0)
    assert outputs.joint is not None
    torch.testing.assert_close(outputs.joint[:3], golden[f"{name}.joint"], atol=1e-5, rtol=0)
    loss = model.loss(outputs, of)
    torch.testing.assert_close(loss.total, golden[f"{name}.total"], atol=1e-5, rtol=1e-5)
    loss.total.backward()
    torch.testing.assert_close(gradients(model), golden[f"{name}.gradients"], atol=2e-5, rtol=1e-4)


def test_options_become_settings(tmp_path: Path) -> None:
    model = from_official(released(tmp_path))
    assert isinstance(model, BMDETR)
    config = model.config
    expected = {
        "decoder_memory": "encoded", "refine": False, "reference_epsilon": 1e-3, "pooling": "tanh",
        "activation": "prelu", "semantic_against": "all", "margin_pairs": "sampled",
        "moment_rows": "floor", "shifting": "published", "shift_below": None, "accuracy_term": True,
        "official_padding": True, "answer_extent": "duration", "longest": 75.0, "round_to": 1.0,
        "margin_weight": 8.0, "giou_weight": 8.0, "probability_weight": 2.0, "still_columns": 0,
        "heads": 4, "contrastive_dim": 8,
    }  # fmt: skip
    assert {name: getattr(config, name) for name in expected} == expected
    assert model.about is not None
    pack = model.about.pack
    assert pack is not None
    assert pack.columns == ("vgg", "tef")
    assert pack.seconds_per_row == 1


def test_videos_of_tacos_have_names_of_their_own(tmp_path: Path) -> None:
    folders = ["features/tacos_features/c3d_features"]
    model = from_official(released(tmp_path, dset_name="tacos", v_feat_dirs=folders))
    assert model.about is not None
    assert model.about.pack is not None
    files = model.about.pack.sources["c3d"].files
    assert files == ("c3d_features/{vid}.avi.npy", "c3d_features/{vid}-cam-002.npz")


def test_it_is_kept_as_a_folder(tmp_path: Path) -> None:
    model = from_official(released(tmp_path))
    model.save_pretrained(tmp_path / "kept")
    again = MomentModel.from_pretrained(tmp_path / "kept")
    of = bm_detr_case.batch()
    with torch.no_grad():
        found, expected = (one(**one.inputs(of)) for one in (again, model))
    torch.testing.assert_close(found.spans, expected.spans)


def test_what_does_not_fit_is_named(tmp_path: Path) -> None:
    path = released(tmp_path)
    with pytest.raises(InputError, match=r"expected a checkpoint of moment-detr.* BM-DETR"):
        MomentDETR.from_official(path)
    wrong = r"v_feat_dim is 2816.* v_feat_dim 4 would fit"
    with pytest.raises(InputError, match=wrong):
        from_official(path, options(v_feat_dim=2816))
    with pytest.raises(InputError, match="use_txt_pos"):
        from_official(path, options(use_txt_pos=True))
    content = {"model": tensors(), "opt": options()}
    del content["model"]["FPM.2.weight"]
    torch.save(content, path)
    with pytest.raises(InputError, match=r"FPM\.2\.weight"):
        from_official(path)
