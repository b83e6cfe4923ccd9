"""``vmr convert``: a released file in, a folder that the other commands take out."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.models.released_case import options, own_options, state_dict
from vmr.cli import main
from vmr.models.base import MomentModel
from vmr.models.qd_detr import QDDETR


@pytest.fixture
def released(tmp_path: Path) -> Path:
    path = tmp_path / "model_best.ckpt"
    torch.save({"model": state_dict("qd-detr"), "opt": own_options("qd-detr"), "epoch": 3}, path)
    return path


def test_it_writes_a_checkpoint(
    released: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["convert", str(released), "--out", str(tmp_path / "qd")]) == 0
    told = capsys.readouterr()
    assert told.out.startswith("wjun0830/QD-DETR, model_best.ckpt: qd-detr, ")
    assert "reads rows of 6 and tokens of 5 columns (QD-DETR on QVHighlights: clip)" in told.out
    assert told.err == f"vmr: wrote {tmp_path / 'qd'}\n"
    assert type(MomentModel.from_pretrained(tmp_path / "qd")) is QDDETR


def test_predict_takes_it(released: Path, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for name, rows, columns in (
        ("clip_features/a.npz", 9, 4),
        ("clip_text_features/qid1.npz", 3, 5),
    ):
        (tmp_path / name).parent.mkdir()
        drawn = rng.normal(size=(rows, columns)).astype(np.float32)
        np.savez(tmp_path / name, features=drawn, last_hidden_state=drawn)
    (tmp_path / "data.jsonl").write_text(
        json.dumps({"qid": 1, "vid": "a", "query": "a dog", "duration": 18.0}) + "\n"
    )
    assert main(["convert", str(released), "--out", str(tmp_path / "qd")]) == 0
    asked = ["predict", str(tmp_path / "data.jsonl"), "--checkpoint", str(tmp_path / "qd")]
    found = tmp_path / "found.jsonl"
    assert main([*asked, "--features", str(tmp_path), "--out", str(found), "--device", "cpu"]) == 0
    answer = json.loads(found.read_text())
    assert len(answer["pred_relevant_windows"]) == 4
    assert len(answer["pred_saliency_scores"]) == 9


def test_json(released: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    opt = tmp_path / "run.json"
    opt.write_text(json.dumps(options("qd-detr", seed=5)))
    arguments = ["convert", str(released), "--opt", str(opt), "--out", str(tmp_path / "qd")]
    assert main([*arguments, "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["version"] == 1
    assert document["config"]["kind"] == "qd-detr"
    assert document["origin"]["file"] == "model_best.ckpt"
    assert document["origin"]["options"]["seed"] == 5
    assert document["pack"]["columns"] == ["clip", "tef"]


def test_what_is_not_right_is_3(
    released: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "bad.ckpt").write_bytes(b"no pickle")
    (tmp_path / "opt.json").write_text(json.dumps(options("qd-detr", t_feat_dim=300)))
    for arguments, said in (
        ([str(released), "--out", str(tmp_path)], "--out: expected a new or an empty folder"),
        ([str(tmp_path / "bad.ckpt"), "--out", str(tmp_path / "x")], "is no checkpoint of torch"),
        ([str(released), "--opt", str(tmp_path / "opt.json"), "--out", str(tmp_path / "x")],
         "t_feat_dim is 300, and 5 would fit"),
    ):  # fmt: skip
        assert main(["convert", *arguments]) == 3
        assert said in capsys.readouterr().err
    assert not (tmp_path / "x").exists()
