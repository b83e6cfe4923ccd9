"""Whole runs on a small corpus."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from importlib import resources
from pathlib import Path

import jsonschema
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

import vmr
from tests.training.corpus import write_config, write_corpus
from tests.training.runs import TINY, assert_same_run, lines, run, weights
from vmr.cli import main
from vmr.errors import CacheError, InputError, TrainingError
from vmr.models.moment_detr import MomentDETR
from vmr.training import load_config

# ---- a run and what it leaves -------------------------------------------------------------------------


def test_a_run_learns_and_leaves_what_it_says(config: str, tmp_path: Path) -> None:
    seen = []
    out = tmp_path / "run"
    results = run(
        config, out, "training.epochs=20", "training.optimiser.lr=3e-3", "model.dropout=0",
        "model.input_dropout=0", watch=seen.append, command="vmr train tiny.yaml",
    )  # fmt: skip
    assert {entry.name for entry in out.iterdir()} == {
        ".lock", "best", "config.yaml", "curves.png", "last.safetensors", "metrics.jsonl",
        "results.json", "run.json", "val_predictions.jsonl",
    }  # fmt: skip
    schema = json.loads((resources.files("vmr") / "schemas" / "run-1.json").read_text())
    jsonschema.validate(json.loads((out / "results.json").read_text()), schema)
    assert results.steps == 100
    evaluations = [line["val"]["MR-full-mAP"] for line in lines(out) if "val" in line]
    assert len(evaluations) == 20
    assert results.best.value == max(evaluations) == results.metrics["val"]["MR-full-mAP"]
    assert results.best.value > evaluations[0]
    losses = [line["loss"] for line in lines(out) if "loss" in line]
    assert losses[-1] < 0.7 * losses[0]
    assert seen[-1].step == 100
    assert seen[-1].best == results.best
    # The predictions that are kept are those of the best weights.
    truth = Path(load_config(config).data.root or "") / "val.jsonl"
    scored = vmr.evaluate(out / "val_predictions.jsonl", truth)
    assert scored.brief == results.metrics["val"]
    model = vmr.MomentModel.from_pretrained(out)
    assert model.about is not None
    assert model.about.steps == results.best.step
    assert model.about.metrics["val"] == results.metrics["val"]
    assert "vmr train tiny.yaml" in (out / "best" / "README.md").read_text()
    assert run(config, out, "training.epochs=20", "training.optimiser.lr=3e-3", "model.dropout=0",
               "model.input_dropout=0") == results  # fmt: skip


@pytest.mark.parametrize(
    "settings",
    [
        ["training.precision=bf16"],
        ["training.precision=fp16"],
        ["training.ema=0.9"],
        ["training.optimiser.kind=adam", "training.schedule={kind: linear, warmup: 2}"],
        ["training.deterministic=true", "data.workers=1"],
    ],
    ids=lambda settings: settings[0],
)
def test_ways_to_train(config: str, tmp_path: Path, settings: list[str]) -> None:
    results = run(config, tmp_path / "run", *settings)
    assert results.steps == 10
    values = weights(tmp_path / "run")
    assert all(torch.isfinite(value).all() for value in values.values())
    assert any(name.startswith("averaged.") for name in values) == ("training.ema=0.9" in settings)
    assert not torch.are_deterministic_algorithms_enabled()


@pytest.mark.slow
def test_a_compiled_model_trains_alike(config: str, tmp_path: Path) -> None:
    still = ["model.dropout=0", "model.input_dropout=0"]
    run(config, tmp_path / "eager", *still)
    run(config, tmp_path / "compiled", *still, "training.compile=true")
    for one, other in zip(lines(tmp_path / "eager"), lines(tmp_path / "compiled"), strict=True):
        if "loss" in one:
            assert other["loss"] == pytest.approx(one["loss"], rel=1e-3)


def test_accumulated_parts_are_the_whole_batch(config: str, tmp_path: Path) -> None:
    still = ["model.dropout=0", "model.input_dropout=0", "training.clip=null"]
    run(config, tmp_path / "whole", *still)
    run(config, tmp_path / "parts", *still, "training.accumulate=3")
    whole, parts = lines(tmp_path / "whole"), lines(tmp_path / "parts")
    for one, other in zip(whole, parts, strict=True):
        assert one.keys() == other.keys()
        if "loss" in one:
            assert one["loss"] == pytest.approx(other["loss"], rel=2e-4)


def test_early_stopping(config: str, tmp_path: Path) -> None:
    results = run(
        config, tmp_path / "run", "training.epochs=50", "training.optimiser.lr=0",
        "training.early_stopping.patience=2",
    )  # fmt: skip
    # Nothing is learned: the first evaluation stays the best, and two more are waited for.
    assert (results.steps, results.best.epoch) == (15, 1)
    assert run(
        config, tmp_path / "run", "training.epochs=50", "training.optimiser.lr=0",
        "training.early_stopping.patience=2",
    ) == results  # fmt: skip


def test_yardsticks_are_trained_alike(config: str, tmp_path: Path) -> None:
    out = tmp_path / "prior"
    settings = ["model={kind: window-prior}", "training.epochs=0", "data.test={root}/val.jsonl"]
    results = run(config, out, *settings)
    assert (results.parameters, results.steps, results.best.epoch) == (0, 0, 0)
    assert results.metrics["val"] == results.metrics["test"] == results.best.metrics
    assert run(config, out, *settings) == results
    model = vmr.MomentModel.from_pretrained(out)
    assert model.kind == "window-prior"


# ---- what goes wrong ----------------------------------------------------------------------------------


def test_a_loss_that_is_no_number(
    config: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(
        TrainingError, match=r"after steps 1 to 3 \(loss (inf|nan).* a lower"
    ) as told:
        run(config, tmp_path / "run", "model.label_weight=1e39", "training.clip=null")
    assert "training.clip" in str(told.value)
    assert not (tmp_path / "run" / "last.safetensors").exists()
    weights_of, calls = MomentDETR.loss_weights, []

    def bad_in_step_8(model: MomentDETR) -> dict[str, float]:
        calls.append(model)
        return {name: float("nan") if len(calls) == 8 else value
                for name, value in weights_of(model).items()}  # fmt: skip

    monkeypatch.setattr(MomentDETR, "loss_weights", bad_in_step_8)
    out = tmp_path / "later"
    with pytest.raises(TrainingError, match=r"after steps 7 to 9 \(loss nan"):
        run(config, out)
    with safe_open(out / "last.safetensors", "pt") as file:
        assert json.loads(file.metadata()["state"])["step"] == 5
    assert all(torch.isfinite(value).all() for value in weights(out).values())


@pytest.mark.parametrize("file", ["last", pytest.param("best", marks=pytest.mark.slow)])
def test_a_full_disk_leaves_the_checkpoint_whole(config: str, tmp_path: Path, file: str) -> None:
    out = tmp_path / "run"
    place = "folder.RunFolder.save" if file == "last" else "base.MomentModel.save_pretrained"
    script = (
        "import resource, signal, sys\n"
        "from vmr.cli import main\n"
        "import vmr.models.base as base\n"
        "import vmr.training.run_folder as folder\n"
        f"write = {place}\n"
        "def limited(kept, *rest):\n"
        "    limited.calls += 1\n"
        "    if limited.calls > 1:\n"
        "        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "        resource.setrlimit(resource.RLIMIT_FSIZE, (20000, 20000))\n"
        "    write(kept, *rest)\n"
        "limited.calls = 0\n"
        f"{place} = limited\n"
        "sys.exit(main(sys.argv[1:]))\n"
    )
    found = subprocess.run(
        [sys.executable, "-c", script, "train", config, *TINY, "--out", str(out), "--device", "cpu"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert found.returncode == CacheError.exit_code, found.stderr
    assert "could not be written" in found.stderr
    assert "Traceback" not in found.stderr
    if file == "last":
        assert "the same command goes on from there" in found.stderr
        with safe_open(out / "last.safetensors", "pt") as opened:
            assert json.loads(opened.metadata()["state"])["step"] == 5
    assert vmr.MomentModel.from_pretrained(out).kind == "moment-detr"
    run(config, tmp_path / "alone")
    run(config, out)
    assert_same_run(tmp_path / "alone", out)


def test_damaged_and_foreign_checkpoints(config: str, tmp_path: Path) -> None:
    out = tmp_path / "run"
    run(config, out)
    last = out / "last.safetensors"
    (out / "results.json").unlink()
    whole = last.read_bytes()
    for damaged in (whole[:100], whole[:-50], b""):
        last.write_bytes(damaged)
        with pytest.raises(InputError, match=r"last.safetensors: is damaged or cut off"):
            run(config, out)
        assert last.read_bytes() == damaged
    save_file({"model.x": torch.zeros(2)}, last, {"state": '{"format": 1, "step": 3}'})
    with pytest.raises(InputError, match="tensors are not those of the model"):
        run(config, out)
    save_file({"model.x": torch.zeros(2)}, last, {"state": '{"format": 9}'})
    with pytest.raises(InputError, match=r"written by a newer vmr \(format 9"):
        run(config, out)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["data.root=null"], r"data.root: expected the folder of the features"),
        (["data.train={annotations}/x.jsonl"], "data.annotations is not set; add data.annot"),
        (["data.val=nothing.jsonl"], r"data.val: nothing.jsonl"),
        (["model.kind=moment-dter"], "did you mean 'moment-detr'"),
        (["model.video_dim=7"], "model.video_dim: is 7, and the features have 18"),
        (["evaluation.metric=mAP"], "evaluation.metric: expected a headline number"),
        (["evaluation.protocol=emd"], "emb"),
        (["training.epochs=0"], "training.epochs: expected at least 1"),
        (["training.batch_size=4", "training.accumulate=4"], "make batches of 3, too few"),
    ],
)
def test_bad_settings(config: str, tmp_path: Path, settings: list[str], message: str) -> None:
    with pytest.raises(InputError, match=message):
        run(config, tmp_path / "run", *settings)


def test_missing_features(corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    own = write_corpus(tmp_path / "own")
    path = write_config(own)
    (own / "video" / "train3.npz").unlink()
    (own / "text" / "qid9.npz").unlink()
    arguments = ["train", path, *TINY, "--out", str(tmp_path / "run"), "--device", "cpu"]
    assert main(arguments) == InputError.exit_code
    said = capsys.readouterr().err
    assert "no features of 1 video (train3)" in said
    assert main([*arguments, "--skip-missing"]) == 0
    said = capsys.readouterr()
    assert "3 of 37 queries have no features and are left out" in said.err
    assert "tiny, val" in said.out


def test_windows_beyond_the_features_are_counted(tmp_path: Path) -> None:
    own = write_corpus(tmp_path / "own")
    pack = (own / "pack.yaml").read_text()
    (own / "pack.yaml").write_text(pack + "max_rows: 6\n")
    with pytest.warns(vmr.VmrWarning, match="windows begin after the last row"):
        run(write_config(own), tmp_path / "run")


# ---- the command --------------------------------------------------------------------------------------


def test_the_command(config: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "run"
    started = time.monotonic()
    assert main(["train", config, *TINY, "--out", str(out), "--device", "cpu", "--json"]) == 0
    assert time.monotonic() - started < 60
    printed = capsys.readouterr()
    assert json.loads(printed.out)["steps"] == 10
    assert "epoch 2/2, step 10/10, loss" in printed.err
    assert main(["train", config, *TINY, "--out", str(out), "--device", "cpu"]) == 0
    printed = capsys.readouterr()
    assert "was complete already" in printed.err
    assert "MR-full-mAP@0.75" in printed.out
    assert main(["train", config, "--profile", "3", "--json", "--device", "cpu"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["steps"] == 3
    assert {"data", "forward", "backward", "optimiser"} <= found["stages"].keys()
    assert sum(found["stages"].values()) == pytest.approx(found["seconds"])
    assert main(["train", "--list"]) == 0
    assert "moment-detr-qvhighlights" in capsys.readouterr().out
    assert main(["train"]) == InputError.exit_code
    # Settings may stand behind options; what is no setting may not.
    assert main(["train", config, "--device", "cpu", "training.epoch=1"]) == InputError.exit_code
    assert "did you mean 'training.epochs'" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["train", config, "--device", "cpu", "--epochs=1"])


def test_the_papers_row_stands_beside(config: str, tmp_path: Path) -> None:
    from vmr.training import results_table

    results = run(config, tmp_path / "run")
    paper = load_config(
        config, ["paper={source: 'Someone, Table 1', metrics: {MR-full-mAP: 30.5}}"]
    ).paper
    table = results_table(results, paper).splitlines()
    assert table[0].split() == ["MR-full-mAP"]
    assert table[1].startswith("tiny, val")
    assert table[2].split()[-1] == "30.50"
