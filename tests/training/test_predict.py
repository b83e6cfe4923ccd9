"""``vmr predict``: from a checkpoint to official jsonl."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import vmr
from tests.training.corpus import write_config, write_corpus
from vmr.cli import main
from vmr.errors import InputError
from vmr.training import load_config, predict, train


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_corpus(tmp_path_factory.mktemp("corpus"))


@pytest.fixture(scope="module")
def trained(corpus: Path) -> Path:
    config = load_config(write_config(corpus), ["training.epochs=2"])
    train(config, corpus / "run", device="cpu")
    return corpus / "run"


def test_the_predictions_are_those_of_the_run(
    corpus: Path, trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "val.jsonl"
    truth = corpus / "val.jsonl"
    asked = ["predict", str(truth), "--features", str(corpus), "--device", "cpu", "--checkpoint"]
    assert main([*asked, str(trained), "--out", str(out)]) == 0
    assert "11 predictions" in capsys.readouterr().err
    assert out.read_bytes() == (trained / "val_predictions.jsonl").read_bytes()
    scored = vmr.evaluate(out, truth).brief
    assert scored == json.loads((trained / "results.json").read_text())["metrics"]["val"]
    # Ground truth is not looked at, and batches do not matter beyond rounding.
    blind = tmp_path / "blind.jsonl"
    keys = ("qid", "query", "vid", "duration")
    rows = [json.loads(line) for line in truth.read_text().splitlines()]
    blind.write_text("".join(json.dumps({key: row[key] for key in keys}) + "\n" for row in rows))
    asked[1] = str(blind)
    assert main([*asked, str(trained / "best"), "--batch-size", "1"]) == 0
    printed = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [row["qid"] for row in printed] == [row["qid"] for row in rows]
    for one, other in zip(printed, vmr.read_predictions(out), strict=True):
        assert one["pred_relevant_windows"][0] == pytest.approx(
            other.pred_relevant_windows[0], abs=1e-4
        )


def test_missing_features_are_named_or_skipped(
    corpus: Path, trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    own = write_corpus(tmp_path / "own")
    (own / "video" / "val2.npz").unlink()
    asked = ["predict", str(own / "val.jsonl"), "--features", str(own), "--device", "cpu",
             "--checkpoint", str(trained)]  # fmt: skip
    assert main(asked) == InputError.exit_code
    assert "no features of 1 video (val2)" in capsys.readouterr().err
    assert main([*asked, "--skip-missing"]) == 0
    printed = capsys.readouterr()
    assert len(printed.out.splitlines()) == 9
    assert "2 of 11 queries have no features and are left out, of 1 video (val2)" in printed.err


def test_what_does_not_fit_is_said(
    corpus: Path, trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def said(*arguments: str) -> str:
        assert main(["predict", str(corpus / "val.jsonl"), *arguments]) == InputError.exit_code
        return capsys.readouterr().err

    features = ["--features", str(corpus)]
    assert "there is no config.json" in said("--checkpoint", str(corpus), *features)
    assert "expected a folder" in said("--checkpoint", "nowhere.ckpt", *features)
    ready = ["--pack", "moment-detr-qvhighlights"]
    assert "moment-detr-qvhighlights" in said("--checkpoint", str(trained), *features, *ready)
    pack = (corpus / "pack.yaml").read_text()
    (corpus / "narrow.yaml").write_text(pack.replace("[frames, tef]", "[frames]"))
    narrow = ["--pack", str(corpus / "narrow.yaml")]
    assert "expected video features of 18 columns, got 16" in said(
        "--checkpoint", str(trained), *features, *narrow
    )
    assert "--batch-size: expected at least 1" in said(
        "--checkpoint", str(trained), *features, "--batch-size", "0"
    )
    model = vmr.MomentModel.from_pretrained(trained)
    model.about = None
    model.save_pretrained(tmp_path / "bare")
    assert "does not say what features" in said("--checkpoint", str(tmp_path / "bare"), *features)


def test_a_model_stays_in_its_mode(corpus: Path, trained: Path) -> None:
    model = vmr.MomentModel.from_pretrained(trained).train()
    queries = vmr.read_queries(corpus / "val.jsonl")
    dataset = vmr.MomentDataset(queries, vmr.load_pack(corpus))
    found = predict(model, dataset, batch_size=4)
    assert model.training
    assert [record.qid for record in found] == [query.qid for query in queries]
    assert predict(model.eval(), dataset, batch_size=4) == found
