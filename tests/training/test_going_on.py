"""Runs that were stopped, by whatever it was, go on as if nothing had been."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open

import vmr
from tests.training.corpus import write_corpus
from tests.training.runs import TINY, assert_same_run, lines, run, weights
from vmr.cli.training_progress import TrainingProgress
from vmr.errors import InputError
from vmr.training import load_config
from vmr.training.results import Status
from vmr.training.run_folder import RunFolder

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

    # Where a shell started the tests in the background it is ignored, and that is to come back.
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt, match="step 2 of 10 is saved"):
        run(config, out, watch=interrupt(1))
    with safe_open(out / "last.safetensors", "pt") as file:
        assert json.loads(file.metadata()["state"])["step"] == 2
    with pytest.raises(KeyboardInterrupt, match="step 6 of 10 is saved"):
        run(config, out, watch=interrupt(5))
    run(config, out)
    assert signal.getsignal(signal.SIGINT) is before
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


def test_going_on_is_said_once(capsys: pytest.CaptureFixture[str]) -> None:
    status = Status(
        epoch=1, epochs=2, step=6, steps=10, loss=1.0, rate=0.1, steps_per_second=1.0,
        queries_per_second=8.0, metric="mAP", value=None, best=None, seconds_left=4.0, resumed=5,
        ends_epoch=False,
    )  # fmt: skip
    with TrainingProgress("tiny") as shown:
        shown.watch(status)
        shown.watch(status)
    assert capsys.readouterr().err.count("tiny: goes on from step 5 of 10") == 1
