"""Whole runs on a small corpus."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from importlib import resources
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

import vmr
from tests.training.corpus import write_config, write_corpus
from vmr.cli import main
from vmr.errors import CacheError, InputError, TrainingError
from vmr.models.moment_detr import MomentDETR
from vmr.training import RunResults, load_config, train
from vmr.training.run_folder import RunFolder

TINY = ["training.epochs=2"]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_corpus(tmp_path_factory.mktemp("corpus"))


@pytest.fixture
def config(corpus: Path, tmp_path: Path) -> str:
    return write_config(corpus, tmp_path / "tiny.yaml")


def run(config: str, out: Path, *settings: str, **more: Any) -> RunResults:
    return train(load_config(config, [*TINY, *settings]), out, device="cpu", **more)


def weights(out: Path) -> dict[str, torch.Tensor]:
    return load_file(out / "last.safetensors")


def lines(out: Path) -> list[dict[str, Any]]:
    """metrics.jsonl without what depends on the time."""
    found = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    for line in found:
        line.pop("steps_per_second", None)
    return found


def assert_same_run(one: Path, other: Path) -> None:
    first, second = weights(one), weights(other)
    assert first.keys() == second.keys()
    for name, value in first.items():
        assert torch.equal(value, second[name]), name
    for file in ("best/model.safetensors", "best/config.json", "val_predictions.jsonl"):
        assert (one / file).read_bytes() == (other / file).read_bytes()
    assert lines(one) == lines(other)


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


# ---- going on -----------------------------------------------------------------------------------------

# Children are forked before anything was computed, so that only the first start costs an import.
KILLER = """
import os, signal, sys, time
from pathlib import Path
import torch, vmr.training, vmr.models.moment_detr
torch.set_num_threads(1)
config, out, kills = sys.argv[1], Path(sys.argv[2]), [int(n) for n in sys.argv[3].split(",")]
settings = sys.argv[4:]
for kill in [*kills, None]:
    child = os.fork()
    if child == 0:
        vmr.training.train(vmr.training.load_config(config, settings), out, device="cpu")
        os._exit(0)
    while kill is not None:
        path = out / "metrics.jsonl"
        if path.is_file() and len(path.read_bytes().splitlines()) >= kill:
            os.kill(child, signal.SIGKILL)
            break
        time.sleep(0.001)
    code = os.waitpid(child, 0)[1]
    assert code == (signal.SIGKILL if kill is not None else 0), code
"""


@pytest.mark.parametrize("ema", [pytest.param("null", marks=pytest.mark.slow), "0.8"])
def test_a_killed_run_ends_as_one_left_alone(config: str, tmp_path: Path, ema: str) -> None:
    settings = [
        "training.epochs=3", f"training.ema={ema}", "training.log_every=1",
        "training.checkpoint_minutes=0", "training.schedule={kind: cosine, warmup: 0.2}",
    ]  # fmt: skip
    settings.append(f"training.precision={'fp32' if ema == 'null' else 'fp16'}")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        run(config, tmp_path / "alone", *settings)
    finally:
        torch.set_num_threads(threads)
    subprocess.run(
        [sys.executable, "-c", KILLER, config, str(tmp_path / "killed"), "2,6,7,12", *settings],
        check=True, env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert_same_run(tmp_path / "alone", tmp_path / "killed")


def test_ctrl_c_saves_and_the_same_command_goes_on(
    config: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run(config, tmp_path / "alone")
    out = tmp_path / "run"

    def interrupt(number: int) -> Any:
        def watch(status: Any) -> None:
            if status.step == number:
                os.kill(os.getpid(), signal.SIGINT if number == 1 else signal.SIGTERM)

        return watch

    with pytest.raises(KeyboardInterrupt, match="step 2 of 10 is saved"):
        run(config, out, watch=interrupt(1))
    with safe_open(out / "last.safetensors", "pt") as file:
        assert json.loads(file.metadata()["state"])["step"] == 2
    with pytest.raises(KeyboardInterrupt, match="step 6 of 10 is saved"):
        run(config, out, watch=interrupt(5))
    run(config, out)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    first, second = weights(tmp_path / "alone"), weights(out)
    assert all(torch.equal(value, second[name]) for name, value in first.items())


@pytest.mark.parametrize("signal_name", ["SIGINT", pytest.param("SIGTERM", marks=pytest.mark.slow)])
def test_a_signal_to_the_whole_group_and_a_kill_with_readers(
    config: str, tmp_path: Path, signal_name: str
) -> None:
    out = tmp_path / "run"
    settings = ["training.epochs=200", "training.log_every=1", "data.workers=2"]
    script = "import sys; from vmr.cli import main; sys.exit(main(sys.argv[1:]))"
    command = [sys.executable, "-c", script, "train", config, *settings, "--out", str(out),
               "--device", "cpu"]  # fmt: skip

    def started(lines_before: int) -> subprocess.Popen[str]:
        run = subprocess.Popen(
            command, stderr=subprocess.PIPE, text=True, start_new_session=True,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )  # fmt: skip
        path = out / "metrics.jsonl"
        while run.poll() is None:
            if path.is_file() and len(path.read_bytes().splitlines()) > lines_before + 3:
                break
            time.sleep(0.01)
        return run

    killed = started(0)
    killed.kill()
    killed.communicate(timeout=60)
    # At once: the readers that are left do not hold the folder.
    interrupted = started(len((out / "metrics.jsonl").read_bytes().splitlines()))
    os.killpg(interrupted.pid, getattr(signal, signal_name))
    said = interrupted.communicate(timeout=60)[1]
    assert interrupted.returncode == 130, said
    assert "is saved, and the same command goes on from there" in said
    assert "Traceback" not in said


def test_ctrl_c_at_the_end_is_not_lost(config: str, tmp_path: Path) -> None:
    out = tmp_path / "run"

    def interrupt(status: Any) -> None:
        if status.step == 10:
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt, match="step 10 of 10 is saved"):
        run(config, out, watch=interrupt)
    assert not (out / "results.json").exists()
    assert run(config, out).steps == 10

    def later(stage: str, done: int, total: int) -> None:
        os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(KeyboardInterrupt, match="what was saved stays"):
        run(config, tmp_path / "prior", "model={kind: window-prior}", progress=later)
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


def test_a_folder_is_whole_after_a_kill_between_any_two_files(config: str, tmp_path: Path) -> None:
    run(config, tmp_path / "alone")
    out = tmp_path / "run"
    out.mkdir()
    (out / "run.json").write_bytes((tmp_path / "alone" / "run.json").read_bytes())

    def stop(status: Any) -> None:
        if status.step == 5:
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(KeyboardInterrupt):
        run(config, out, watch=stop)
    # A line that was cut off, lines of steps that were not saved, and what a kill leaves of a file.
    with (out / "metrics.jsonl").open("a") as file:
        file.write('{"step": 7, "epoch": 2}\n{"step": 8, "epo')
    for left in (".last.abcdefgh.safetensors", "best/.model.abcdefgh.safetensors"):
        (out / left).write_bytes(b"half")
    (out / ".gitignore").write_text("*")
    run(config, out)
    assert not list(out.glob(".*.abcdefgh.*")) + list((out / "best").glob(".*"))
    assert (out / ".gitignore").is_file()
    first, second = weights(tmp_path / "alone"), weights(out)
    assert all(torch.equal(value, second[name]) for name, value in first.items())
    steps = [line["step"] for line in lines(out)]
    assert steps == sorted(steps)
    assert 8 not in steps


def test_a_test_split_may_be_looked_at_later(config: str, tmp_path: Path) -> None:
    out = tmp_path / "run"
    before = run(config, out, "data.test={root}/val.jsonl", test=False)
    assert before.metrics.keys() == {"val"}
    state = (out / "last.safetensors").read_bytes()
    after = run(config, out, "data.test={root}/val.jsonl")
    assert after.metrics == {"val": before.metrics["val"], "test": before.metrics["val"]}
    assert (out / "last.safetensors").read_bytes() == state


def test_two_runs_into_one_folder(config: str, corpus: Path, tmp_path: Path) -> None:
    loaded = load_config(config, TINY)
    holder = RunFolder(tmp_path / "run", loaded, {})
    with pytest.raises(InputError, match=rf"a run is being written there by process {os.getpid()}"):
        run(config, tmp_path / "run")
    holder.close()


def test_a_folder_is_never_taken_over(config: str, tmp_path: Path, corpus: Path) -> None:
    out = tmp_path / "run"
    out.mkdir()
    (out / "thesis.txt").write_text("mine")
    with pytest.raises(InputError, match=r"is not empty and holds no run \(thesis.txt"):
        run(config, out)
    with pytest.raises(InputError, match="expected a folder, got a file"):
        run(config, out / "thesis.txt")
    assert (out / "thesis.txt").read_text() == "mine"
    other = tmp_path / "other"
    results = run(config, other)
    with pytest.raises(InputError, match=r"holds another run \(training.seed was 5 and is 6"):
        run(config, other, "training.seed=6")
    # Where data lies and how it is read may change.
    assert run(config, other, "data.workers=1", f"data.train={corpus}/train.jsonl") == results
    moved = write_corpus(tmp_path / "moved", seed=1)
    with pytest.raises(InputError, match="train has changed"):
        run(config, other, f"data.root={moved}")
    # Fewer queries with features are other queries.
    fewer = write_corpus(tmp_path / "fewer")
    (fewer / "video" / "train3.npz").unlink()
    with pytest.raises(InputError, match="train has changed"), pytest.warns(vmr.VmrWarning):
        run(config, other, f"data.root={fewer}", "data.skip_missing=true")


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
