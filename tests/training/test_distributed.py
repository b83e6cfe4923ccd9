"""Two processes under torchrun train and evaluate as one does."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

import vmr
from tests.training.corpus import write_config, write_corpus
from tests.training.runs import lines
from vmr.errors import InputError
from vmr.training import load_config, train

# Without dropout nothing is drawn, so processes and parts cannot differ in what they draw.
SETTINGS = [
    "training.epochs=2",
    "training.log_every=1",
    "training.clip=0.5",
    "training.ema=0.9",
    "model.dropout=0",
    "model.input_dropout=0",
    "model.contrastive_align=0.02",
    "model.batch_contrastive=0.5",
    "training.one_query_a_video=true",
    "data.negatives={rule: paper, encoder: features}",
]


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> str:
    # Uneven on purpose: 37 and 11 queries, an odd number of them in some batches.
    return write_config(write_corpus(tmp_path_factory.mktemp("corpus")))


def command(config: str, out: Path, *settings: str) -> list[str]:
    return [
        "-m",
        "vmr",
        "train",
        config,
        *SETTINGS,
        *settings,
        "--out",
        str(out),
        "--device",
        "cpu",
    ]


def started(launch: list[str], work: list[str]) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "torch.distributed.run", *launch, *work],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip


def torchrun(config: str, out: Path, *settings: str) -> tuple[int, str, str]:
    """Two processes on one host: exit code, stdout, stderr."""
    launch = ["--standalone", "--nproc-per-node", "2"]
    run = started(launch, command(config, out, *settings))
    output, errors = run.communicate(timeout=300)
    return run.returncode, output, errors


def on_two_hosts(config: str, outs: tuple[Path, Path], *settings: str) -> tuple[int, str, str]:
    """One process on each of two hosts that share no folder: exit code, stdout, stderr."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    launch = ["--nnodes", "2", "--nproc-per-node", "1", "--master-addr", "127.0.0.1",
              "--master-port", str(port), "--node-rank"]  # fmt: skip
    hosts = [
        started([*launch, str(rank)], command(config, out, *settings))
        for rank, out in enumerate(outs)
    ]
    found = [host.communicate(timeout=300) for host in hosts]
    output, errors = ("".join(parts) for parts in zip(*found, strict=True))
    return max(host.returncode for host in hosts), output, errors


@pytest.mark.parametrize("accumulate", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_two_processes_are_one(config: str, tmp_path: Path, accumulate: int) -> None:
    # A loss that spans the batch cannot be cut into parts that come one after the other.
    parts = [] if accumulate == 1 else ["training.accumulate=2", "model.batch_contrastive=0"]
    if accumulate == 1:
        code, output, errors = torchrun(config, tmp_path / "two")
    else:
        hosts = tmp_path / "two", tmp_path / "elsewhere"
        code, output, errors = on_two_hosts(config, hosts, *parts)
        assert not hosts[1].exists()
    assert code == 0, errors
    one = train(load_config(config, [*SETTINGS, *parts]), tmp_path / "one", device="cpu")
    two = json.loads((tmp_path / "two" / "results.json").read_text())
    assert two["processes"] == 2
    assert (two["steps"], two["best"]["epoch"]) == (one.steps, one.best.epoch)
    for alone, shared in zip(lines(tmp_path / "one"), lines(tmp_path / "two"), strict=True):
        assert alone.keys() == shared.keys()
        if "loss" in alone:
            for name in alone:
                assert shared[name] == pytest.approx(alone[name], rel=1e-3, abs=1e-5), name
        else:
            assert shared["val"] == pytest.approx(alone["val"], abs=0.02)
    first = load_file(tmp_path / "one" / "last.safetensors")
    second = load_file(tmp_path / "two" / "last.safetensors")
    assert first.keys() == second.keys()
    for name, value in first.items():
        if name.startswith(("model.", "averaged.module.")):
            assert (value - second[name]).abs().max() < 2e-3, name
    predictions = vmr.read_predictions(tmp_path / "two" / "val_predictions.jsonl")
    truth = vmr.read_queries(Path(load_config(config).data.root or "") / "val.jsonl")
    assert [record.qid for record in predictions] == [query.qid for query in truth]
    # Only one of them speaks.
    assert output.count("tiny, val") == 1
    assert errors.count("steps in") == 1
    assert errors.count("negative queries (rule paper)") == 1


@pytest.mark.slow
def test_a_run_goes_on_with_another_number_of_processes(config: str, tmp_path: Path) -> None:
    train(load_config(config, SETTINGS), tmp_path / "one", device="cpu")

    def stop(status: Any) -> None:
        if status.step == 5:
            raise KeyboardInterrupt

    out = tmp_path / "both"
    with pytest.raises(KeyboardInterrupt):
        train(load_config(config, SETTINGS), out, device="cpu", watch=stop)
    code, _, errors = torchrun(config, out)
    assert code == 0, errors
    first, second = (load_file(folder / "last.safetensors") for folder in (tmp_path / "one", out))
    for name, value in first.items():
        if name.startswith("model."):
            assert (value - second[name]).abs().max() < 2e-3, name


def test_an_error_ends_all_processes(config: str, tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    code, _, errors = torchrun(config, tmp_path)
    assert code != 0
    assert "is not empty and holds no run" in errors
    assert f"exitcode  : {InputError.exit_code}" in errors
