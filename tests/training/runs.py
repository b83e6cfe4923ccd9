"""Whole runs, for tests: started, looked at, compared."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from vmr.training import RunResults, load_config, train

TINY = ["training.epochs=2"]


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
