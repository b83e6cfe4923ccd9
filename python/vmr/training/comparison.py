"""Rivals trained alike, several seeds each, and what may be said of their differences."""

from __future__ import annotations

import itertools
import json
import os
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import msgspec
import torch

from vmr.devices import pick_device
from vmr.errors import InputError
from vmr.evaluation.scoring import Evaluation, evaluate
from vmr.evaluation.statistics import seed_differences
from vmr.files import make_folder, write_text
from vmr.progress import silent
from vmr.training.comparison_report import (
    Comparison,
    Gain,
    RunReport,
    SideReport,
    TrialReport,
    comparison_table,
)
from vmr.training.config import Config, TrainingConfig, load_config
from vmr.training.distributed import on_main, process_group
from vmr.training.fairness import Side, Trial, check_fair, open_side
from vmr.training.loop import train
from vmr.training.results import RunResults, Status, unwatched

PLAN, TABLE, REPORT = "plan.json", "comparison.txt", "comparison.json"
YARDSTICK = "window-prior"
_FEWEST_SEEDS = 3


class Display(Protocol):
    """Shows how far one run is."""

    def watch(self, status: Status) -> None:
        """A :data:`vmr.training.Watch`."""

    def progress(self, stage: str, done: int, total: int) -> None:
        """A :data:`vmr.progress.Progress`."""


class _Nothing:
    watch = staticmethod(unwatched)
    progress = staticmethod(silent)


def unshown(name: str) -> AbstractContextManager[Display]:
    """Shows nothing of a run."""
    return nullcontext(_Nothing())


def compare(
    configs: Sequence[str],
    out: str | os.PathLike[str],
    *,
    settings: Sequence[str] = (),
    seeds: Sequence[int] = (0, 1, 2),
    tries: Sequence[str] = (),
    ablation: bool = False,
    device: torch.device | str | None = None,
    command: str = "",
    shown: Callable[[str], AbstractContextManager[Display]] = unshown,
) -> Comparison:
    """Trains rivals alike, and compares the weights that validation chose on the test queries.

    A side without parameters is a yardstick and costs what it costs; the prior over windows
    (:class:`vmr.models.window_prior.WindowPrior`) is always one. A comparison that is started again
    with the same arguments goes on: see :func:`vmr.training.train`.

    Args:
        configs: Files or names, as :func:`vmr.training.load_config` takes them: the reference, and its
            rivals or ablations.
        out: The folder. Afterwards it holds comparison.json, comparison.txt, and the folder of each run
            as NAME/TRIAL/seedN.
        settings: For all of them, such as "training.epochs=10".
        seeds: Of the runs, instead of the configs'.
        tries: Grid of settings, such as "training.optimiser.lr=1e-3,1e-4": each side takes the point
            that is best on validation with the first seed.
        ablation: Lets numbers of parameters differ.
        device: None takes a GPU where there is one.
        command: That repeats the comparison.
        shown: Gives what shows a run, by its name.

    Raises:
        InputError: A file or setting is not right, the sides are not treated alike, or the folder holds
            something else.
        TrainingError: A run cannot go on.
        CacheError: A result cannot be written.
        KeyboardInterrupt: SIGINT or SIGTERM came; what was done is kept.
    """
    _check_seeds(seeds, settings)
    grid = _grid(tries)
    with process_group(pick_device(device)):
        variants = [_variant(name, settings) for name in configs]
        sides = [open_side(variant, grid) for variant in variants]
        if not any(side.kind == YARDSTICK for side in sides):
            prior = _prior(variants[0](()))
            sides.append(open_side(lambda _: prior, [()]))
        _check_names([side.name for side in sides])
        check_fair(sides, ablation=ablation)
        folder = Path(out)
        plan = {
            "version": 1,
            "sides": [side.name for side in sides],
            "seeds": list(seeds),
            "tries": list(tries),
            "ablation": ablation,
        }
        on_main(lambda: _hold(folder, plan))
        runs = _Runs(folder, sides, seeds, device, command, shown)
        tried = [runs.choose(side) for side in sides]
        for one in tried:
            runs.finish(one)
        return on_main(lambda: _concluded(folder, tried, seeds, ablation, command, shown))


@dataclass
class _Tried:
    """A side and its runs: of each trial with the first seed, and of the chosen one with all."""

    side: Side
    values: list[float]
    chosen: int
    runs: list[RunResults]

    @property
    def trial(self) -> Trial:
        return self.side.trials[self.chosen]


class _Runs:
    """Trains what is not trained yet."""

    def __init__(
        self,
        folder: Path,
        sides: Sequence[Side],
        seeds: Sequence[int],
        device: torch.device | str | None,
        command: str,
        shown: Callable[[str], AbstractContextManager[Display]],
    ) -> None:
        self._folder, self._seeds, self._device = folder, seeds, device
        self._command, self._shown = command, shown
        self._done = 0
        # A side that has a choice is tested after it, in a run of its own.
        self._total = sum(
            len(side.trials) + len(seeds) - 1 + (len(side.trials) > 1) for side in sides
        )

    def choose(self, side: Side) -> _Tried:
        """Runs each trial with the first seed; of equally good ones the first is taken.

        Trials are not tested: only what validation chose is.
        """
        only = len(side.trials) == 1
        runs = [self._run(side, trial, self._seeds[0], test=only) for trial in side.trials]
        values = [run.best.value for run in runs]
        chosen = values.index(max(values))
        return _Tried(side, values, chosen, [runs[chosen]])

    def finish(self, tried: _Tried) -> None:
        """Tests the chosen trial, and runs it with the other seeds."""
        side, trial = tried.side, tried.trial
        if len(side.trials) > 1:
            tried.runs = [self._run(side, trial, self._seeds[0], what=", test")]
        tried.runs += [self._run(side, trial, seed) for seed in self._seeds[1:]]

    def _run(
        self, side: Side, trial: Trial, seed: int, *, what: str = "", test: bool = True
    ) -> RunResults:
        self._done += 1
        trial_said = f", {trial.name}" if trial.settings else ""
        name = f"{self._done}/{self._total} {side.name}{trial_said}, seed {seed}{what}"
        config = msgspec.structs.replace(
            trial.config, training=msgspec.structs.replace(trial.config.training, seed=seed)
        )
        with self._shown(name) as display:
            return train(
                config,
                self._folder / run_path(side, trial, seed),
                test=test,
                device=self._device,
                command=self._command,
                watch=display.watch,
                progress=display.progress,
            )


def run_path(side: Side, trial: Trial, seed: int) -> Path:
    """The folder of a run below that of its comparison."""
    return Path(side.name, trial.name, f"seed{seed}")


# ---- what is asked for --------------------------------------------------------------------------------


def _variant(name: str, settings: Sequence[str]) -> Callable[[Sequence[str]], Config]:
    return lambda more: load_config(name, [*settings, *more])


def _prior(reference: Config) -> Config:
    """The prior over windows, on the reference's data and judged as the reference is."""
    return Config(
        name=YARDSTICK,
        about="the prior over windows that comparisons have for a yardstick",
        model={"kind": YARDSTICK},
        data=reference.data,
        training=TrainingConfig(epochs=0),
        evaluation=reference.evaluation,
    )


def _check_seeds(seeds: Sequence[int], settings: Sequence[str]) -> None:
    if len(set(seeds)) != len(seeds) or len(seeds) < _FEWEST_SEEDS:
        raise InputError(
            f"seeds: expected at least {_FEWEST_SEEDS} different ones, got "
            f"{', '.join(map(str, seeds)) or 'none'}"
        )
    if not all(0 <= seed < 2**31 for seed in seeds):
        raise InputError(f"seeds: expected 0 to {2**31 - 1}, got {min(seeds)} to {max(seeds)}")
    for setting in settings:
        if setting.startswith("training.seed="):
            raise InputError(f"{setting}: a comparison has several seeds; expected them in --seeds")


def _check_names(names: Sequence[str]) -> None:
    for name in names:
        if names.count(name) > 1:
            raise InputError(
                f"config {name}: name: expected a name of its own for each side, got {name!r} "
                f"{names.count(name)} times"
            )


def _grid(tries: Sequence[str]) -> list[tuple[str, ...]]:
    """The settings of each trial: all combinations."""
    axes: dict[str, list[str]] = {}
    for text in tries:
        key, sign, values = text.partition("=")
        each = values.split(",")
        if not sign or not all(each) or len(set(each)) != len(each):
            raise InputError(
                f"--try {text}: expected KEY=V1,V2,... with different values, such as "
                "training.optimiser.lr=1e-3,1e-4"
            )
        if not key.startswith(("model.", "training.")) or key == "training.seed":
            raise InputError(
                f"--try {text}: expected a key of model or training other than the seed: all trials "
                "are judged alike on the same data"
            )
        if key in axes:
            raise InputError(f"--try {text}: expected all values of {key} in one --try")
        axes[key] = [f"{key}={value}" for value in each]
    return list(itertools.product(*axes.values()))


def _hold(folder: Path, plan: dict[str, object]) -> None:
    """Makes the folder of a comparison, or sees that it is this one's."""
    path = folder / PLAN
    make_folder(folder)
    entries = [entry.name for entry in folder.iterdir() if not entry.name.startswith(".")]
    if PLAN not in entries:
        if entries:
            raise InputError(
                f"{folder}: is not empty and holds no comparison ({', '.join(sorted(entries)[:3])}, "
                "...); name another folder by --out"
            )
        write_text(path, json.dumps(plan, indent=2) + "\n")
        return
    try:
        before = json.loads(path.read_bytes())
        differences = [
            f"{name} were {before[name]} and are {value}"
            for name, value in plan.items()
            if before[name] != value
        ]
    except (ValueError, KeyError, TypeError):
        raise InputError(f"{path}: is damaged; name another folder by --out") from None
    if differences:
        raise InputError(
            f"{folder}: holds another comparison ({'; '.join(differences)}); name another folder by "
            "--out, or start that comparison again as it was"
        )


# ---- what came of it ----------------------------------------------------------------------------------


def _concluded(
    folder: Path,
    tried: Sequence[_Tried],
    seeds: Sequence[int],
    ablation: bool,
    command: str,
    shown: Callable[[str], AbstractContextManager[Display]],
) -> Comparison:
    """Scores the predictions of all runs again, query by query, and writes what follows."""
    reference = tried[0]
    prior = next(one for one in tried if one.side.kind == YARDSTICK)

    def scored(one: _Tried, split: str) -> list[Evaluation]:
        # The sides have the same queries; the reference's stand for all.
        return [
            evaluate(
                folder / run_path(one.side, one.trial, seed) / f"{split}_predictions.jsonl",
                reference.side.queries[split],
                protocol=reference.side.protocol,
            )
            for seed in seeds
        ]

    metric = reference.trial.config.evaluation.metric
    on_val = seed_differences(scored(prior, "val"), scored(reference, "val"))
    over_prior = next((one for one in on_val if one.key == metric), None)
    if over_prior is None:
        raise InputError(
            f"evaluation.metric: {metric}: expected validation queries of two videos or more that have "
            "it"
        )
    tests = scored(reference, "test")
    gains: list[Gain] = []
    with shown("differences") as display:
        for rival in tried[1:]:
            display.progress(rival.side.name, len(gains), len(tried) - 1)
            found = seed_differences(scored(rival, "test"), tests)
            gains.append(Gain.of(rival.side.name, found))
    comparison = Comparison(
        command=command,
        protocol=reference.side.protocol,
        metric=metric,
        unit=tests[0].unit,
        seeds=list(seeds),
        ablation=ablation,
        queries={split: len(queries) for split, queries in reference.side.queries.items()},
        conclusive=over_prior.interval.low > 0,
        over_prior=Gain.of(prior.side.name, [over_prior]),
        sides=[_side_report(one, seeds) for one in tried],
        gains=gains,
    )
    text = msgspec.json.format(msgspec.json.encode(comparison)).decode()
    write_text(folder / TABLE, comparison_table(comparison) + "\n")
    write_text(folder / REPORT, text + "\n")
    return comparison


def _side_report(one: _Tried, seeds: Sequence[int]) -> SideReport:
    return SideReport(
        name=one.side.name,
        kind=one.side.kind,
        yardstick=not one.side.learns,
        parameters=one.trial.parameters,
        chosen=one.trial.name,
        trials=[
            TrialReport(
                name=trial.name,
                settings=list(trial.settings),
                parameters=trial.parameters,
                value=value,
            )
            for trial, value in zip(one.side.trials, one.values, strict=True)
        ],
        runs=[
            RunReport(
                folder=run_path(one.side, one.trial, seed).as_posix(),
                seed=seed,
                steps=run.steps,
                seconds=run.seconds,
                best_epoch=run.best.epoch,
                val=run.metrics["val"],
                test=run.metrics["test"],
            )
            for seed, run in zip(seeds, one.runs, strict=True)
        ],
    )
