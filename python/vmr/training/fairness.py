"""Whether the sides of a comparison are treated alike: checked before any of them is trained."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import msgspec

from vmr.data.records import Query
from vmr.errors import InputError
from vmr.training.config import Config
from vmr.training.setup import batches_of, checked_protocol, set_up

MINIMUM_QUERIES = 1000
TOLERANCE = 0.1


@dataclass(frozen=True)
class Trial:
    """A way to train a side.

    Attributes:
        name: Its settings; a folder's name.
        settings: Such as "training.optimiser.lr=1e-3".
        config: With them.
        parameters: How many numbers are learned.
    """

    name: str
    settings: tuple[str, ...]
    config: Config
    parameters: int


@dataclass(frozen=True)
class Side:
    """One of the rivals.

    Attributes:
        name: Its config's.
        kind: Its model's.
        trials: From which validation chooses one.
        protocol: That it is judged by.
        inputs: Hashes of its annotations, by split.
        queries: That have features, by split.
    """

    name: str
    kind: str
    trials: tuple[Trial, ...]
    protocol: str
    inputs: dict[str, str]
    queries: dict[str, tuple[Query, ...]]

    @property
    def learns(self) -> bool:
        """Whether it has parameters; one without them is a yardstick."""
        return self.trials[0].parameters > 0


Variant = Callable[[Sequence[str]], Config]
"""Gives the config of a side with more settings."""


def open_side(variant: Variant, grid: Sequence[tuple[str, ...]]) -> Side:
    """Opens what the config of a side names.

    Args:
        variant: The side.
        grid: Settings of each trial; a side that learns nothing is not tuned, and has one.

    Raises:
        InputError: As :func:`vmr.training.set_up`; the metric is not one of the protocol's; or there is
            no test split of its own with ground truth, or validation or test is of a single video.
    """
    config = variant(())
    if config.data.test is None:
        raise InputError(
            f"config {config.name}: a comparison tests what validation chose; expected data.test, got "
            "none"
        )
    setup = set_up(config)
    datasets = {"train": setup.train, "val": setup.val, "test": setup.test}
    queries = {split: data.queries for split, data in datasets.items() if data is not None}
    if not any(query.windows or query.saliency for query in queries["test"]):
        raise InputError(
            f"config {config.name}: data.test: {config.data.test}: expected ground truth, and it has "
            "none"
        )
    for split in ("val", "test"):
        videos = {query.video for query in queries[split] if query.windows or query.saliency}
        if len(videos) < 2:
            raise InputError(
                f"config {config.name}: data.{split}: expected ground truth of two videos or more, "
                f"without which no difference has an interval, got {len(videos)}"
            )
    for split in ("train", "val"):
        if setup.inputs[split] == setup.inputs["test"]:
            raise InputError(
                f"config {config.name}: data.test: expected other annotations than data.{split}'s, got "
                f"the same ({config.data.test}): what was chosen on them is not tested by them"
            )
    # The features are not opened again for what changes the model alone.
    known = {msgspec.json.encode(config.model): setup.parameters}
    trials = []
    for settings in grid if setup.parameters else [()]:
        tried = variant(settings)
        key = msgspec.json.encode(tried.model)
        if key not in known:
            known[key] = set_up(tried).parameters
        trials.append(Trial(trial_name(settings), settings, tried, known[key]))
    return Side(
        name=config.name,
        kind=setup.model.kind,
        trials=tuple(trials),
        protocol=checked_protocol(config, setup.val),
        inputs={split: setup.inputs[split] for split in datasets},
        queries=queries,
    )


def trial_name(settings: Sequence[str]) -> str:
    """The name of a trial's folder."""
    kept = "".join(c if c.isalnum() or c in "._=,+-" else "_" for c in ",".join(settings))
    return kept or "default"


def check_fair(sides: Sequence[Side], *, ablation: bool) -> None:
    """Whether all sides learn from the same, are chosen and tested by the same, and cost the same.

    Args:
        sides: The first is what the others are measured by.
        ablation: Lets numbers of parameters differ.

    Raises:
        InputError: They are not; all that differs, with its numbers.
    """
    count = len(sides[0].queries["train"])
    if count < MINIMUM_QUERIES:
        raise InputError(
            f"data.train: a comparison says nothing of models that saw little: expected at least "
            f"{MINIMUM_QUERIES:,} queries, got {count:,}"
        )
    found = []
    for side in sides[1:]:
        found += _data_differences(sides[0], side)
    learners = [side for side in sides if side.learns]
    # Validation may choose any trial, so that each is measured by the same one.
    for side in learners:
        for trial in side.trials:
            found += _cost_differences(learners[0], side, trial, ablation)
    if found:
        raise InputError(f"the sides are not treated alike: {'; '.join(found)}")


def _data_differences(one: Side, other: Side) -> list[str]:
    found = []
    for split in ("train", "val", "test"):
        if one.inputs[split] != other.inputs[split]:
            found.append(f"data.{split}: the annotations of {one.name} and {other.name} differ")
        elif [q.qid for q in one.queries[split]] != [q.qid for q in other.queries[split]]:
            found.append(
                f"data.{split}: {one.name} has features of {len(one.queries[split]):,} queries, and "
                f"{other.name} of {len(other.queries[split]):,}"
            )
    metrics = [side.trials[0].config.evaluation.metric for side in (one, other)]
    for name, (first, second) in (
        ("protocol", (one.protocol, other.protocol)),
        ("metric", metrics),
    ):
        if first != second:
            found.append(f"evaluation.{name}: {one.name} has {first}, and {other.name} {second}")
    return found


def _cost_differences(one: Side, other: Side, trial: Trial, ablation: bool) -> list[str]:
    """What a trial of a side costs that the first one of ``one`` does not, or the other way round."""
    measure = one.trials[0]
    name = f"{other.name} with {', '.join(trial.settings)}" if trial.settings else other.name
    counts = {"steps": (_steps(one, measure), _steps(other, trial))}
    if not ablation:
        counts["parameters"] = (measure.parameters, trial.parameters)
    found = []
    for what, (here, there) in counts.items():
        if abs(there - here) > TOLERANCE * here:
            advice = " (--ablation allows and reports it)" if what == "parameters" else ""
            found.append(
                f"{what}: {one.name} has {here:,}, and {name} {there:,}, "
                f"{there / max(here, 1) - 1:+.0%}; expected within {TOLERANCE:.0%}{advice}"
            )
    stops = [each.config.training.early_stopping for each in (measure, trial)]
    if stops[0] != stops[1]:
        first, second = (f"patience {stop.patience}" if stop else "none" for stop in stops)
        found.append(f"training.early_stopping: {one.name} has {first}, and {name} {second}")
    # More evaluations are more epochs to choose from, and sooner an end.
    every = [each.config.evaluation.every for each in (measure, trial)]
    if every[0] != every[1]:
        found.append(f"evaluation.every: {one.name} has {every[0]}, and {name} {every[1]}")
    return found


def _steps(side: Side, trial: Trial) -> int:
    """How many steps a run of a trial has, unless it stops early."""
    return batches_of(trial.config.training, side.queries["train"]).steps
