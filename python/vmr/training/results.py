"""How far a run is, and what came of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import msgspec

from vmr.tables import table
from vmr.training.config import Paper
from vmr.training.run_folder import Best

# Where no paper says which numbers stand side by side, those of a part of the ground truth are left out.
_PARTS = ("MR-long", "MR-middle", "MR-short", "HL-min-Fair", "HL-min-Good")


@dataclass(frozen=True, slots=True)
class Status:
    """How far a run is.

    Attributes:
        epoch: From 1.
        epochs: Of the run.
        step: Steps done.
        steps: Of the run.
        loss: Mean over the latest steps, as this process sees it.
        rate: The learning rate.
        steps_per_second: Since this start, evaluations left out.
        queries_per_second: Likewise, over all processes.
        metric: What chooses the best weights.
        value: Of the last evaluation; None before the first.
        best: The best one; None before the first.
        seconds_left: Until the last epoch at this rate, evaluations left out.
        resumed: The step that this start went on from; 0 for a new run.
        ends_epoch: Whether this was an epoch's last step.
    """

    epoch: int
    epochs: int
    step: int
    steps: int
    loss: float
    rate: float
    steps_per_second: float
    queries_per_second: float
    metric: str
    value: float | None
    best: Best | None
    seconds_left: float
    resumed: int
    ends_epoch: bool


Watch = Callable[[Status], None]
"""Called now and then with how far a run is."""


def unwatched(status: Status) -> None:
    """A :data:`Watch` that shows nothing."""


class RunResults(msgspec.Struct, frozen=True, kw_only=True):
    """results.json; see schemas/run-1.json.

    Attributes:
        version: Of this format: 1.
        name: The config's.
        kind: The model's.
        parameters: How many numbers were learned.
        steps: Optimiser steps that were made.
        seed: Of the run.
        processes: That took part.
        seconds: Spent training and evaluating.
        protocol: Of the metrics.
        metric: What chose the best weights.
        best: The evaluation that it chose.
        metrics: Official keys and numbers of the best weights, by split; none for a split without
            ground truth.
    """

    version: int = 1
    name: str
    kind: str
    parameters: int
    steps: int
    seed: int
    processes: int
    seconds: float
    protocol: str
    metric: str
    best: Best
    metrics: dict[str, dict[str, float | None]]


def results_table(results: RunResults, paper: Paper | None = None) -> str:
    """The best weights' numbers by split, beside the paper's row where there is one."""
    rows: dict[str, dict[str, float | None]] = {
        f"{results.name}, {split}": metrics for split, metrics in results.metrics.items() if metrics
    }
    keys = [
        key
        for key, value in next(iter(rows.values()), {}).items()
        if value is not None and not key.startswith(_PARTS)
    ]
    if paper is not None:
        keys = list(paper.metrics)
        rows[f"{paper.source}, {paper.split}"] = dict(paper.metrics)
    cells = [
        [name, *("-" if (value := row.get(key)) is None else f"{value:.2f}" for key in keys)]
        for name, row in rows.items()
    ]
    return "\n".join(table(["", *keys], cells))
