"""What a comparison found, as JSON and as text."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence

import msgspec

from vmr.evaluation.report import number
from vmr.evaluation.statistics import SeedDifference
from vmr.tables import table


class _Part(msgspec.Struct, frozen=True, kw_only=True):
    """A part of comparison.json; see schemas/comparison-1.json."""


class RunReport(_Part, frozen=True, kw_only=True):
    """A run of the chosen trial.

    Attributes:
        folder: Of the run, below that of the comparison.
        seed: Of the run.
        steps: That were made.
        seconds: Spent training and evaluating.
        best_epoch: Whose weights validation chose.
        val: Official keys and numbers of these weights.
        test: Likewise.
    """

    folder: str
    seed: int
    steps: int
    seconds: float
    best_epoch: int
    val: dict[str, float | None]
    test: dict[str, float | None]


class TrialReport(_Part, frozen=True, kw_only=True):
    """What a side was tried with.

    Attributes:
        name: Of the trial's folder.
        settings: That it has.
        parameters: How many numbers are learned.
        value: Of the metric that chooses, on validation, with the first seed.
    """

    name: str
    settings: list[str]
    parameters: int
    value: float


class SideReport(_Part, frozen=True, kw_only=True):
    """A side of a comparison.

    Attributes:
        name: Its config's.
        kind: Its model's.
        yardstick: Whether it learns nothing.
        parameters: Of the chosen trial.
        chosen: Name of the trial that validation chose.
        trials: All of them.
        runs: Of the chosen one, by seed.
    """

    name: str
    kind: str
    yardstick: bool
    parameters: int
    chosen: str
    trials: list[TrialReport]
    runs: list[RunReport]

    def mean(self, key: str, split: str = "test") -> tuple[float, float] | None:
        """Mean and standard deviation of a metric over the seeds; None where it has no number."""
        values = [getattr(run, split).get(key) for run in self.runs]
        if any(value is None for value in values):
            return None
        return statistics.mean(values), statistics.stdev(values)


class GainReport(_Part, frozen=True, kw_only=True):
    """How far the reference is above another side in one metric, in its unit.

    Attributes:
        reference: Mean over queries and seeds.
        other: Likewise.
        difference: ``reference - other``.
        by_seed: The difference of each seed.
        low: Lower end of the difference's 95% interval; see
            :func:`vmr.evaluation.statistics.seed_differences`.
        high: Upper end.
    """

    reference: float
    other: float
    difference: float
    by_seed: list[float]
    low: float
    high: float


class Gain(_Part, frozen=True, kw_only=True):
    """How far the reference is above another side.

    Attributes:
        over: The other side.
        metrics: The differences by official key.
    """

    over: str
    metrics: dict[str, GainReport]

    @classmethod
    def of(cls, over: str, differences: Iterable[SeedDifference]) -> Gain:
        """From differences whose second model is the reference."""
        return cls(
            over=over,
            metrics={
                found.key: GainReport(
                    reference=found.second,
                    other=found.first,
                    difference=found.second - found.first,
                    by_seed=list(found.by_seed),
                    low=found.interval.low,
                    high=found.interval.high,
                )
                for found in differences
            },
        )


class Comparison(_Part, frozen=True, kw_only=True):
    """comparison.json; see schemas/comparison-1.json.

    Attributes:
        version: Of this format: 1.
        command: That made it.
        protocol: Of the metrics.
        metric: What validation chose by.
        unit: 100 for percent; 1 for TVSum and YouTube Highlights.
        seeds: Of the runs.
        ablation: Whether numbers of parameters may differ.
        queries: How many, by split.
        conclusive: Whether the reference beats the prior over windows on validation.
        over_prior: By how much, in ``metric``.
        sides: The first is the reference.
        gains: Of the reference over each other side, on the test queries.
    """

    version: int = 1
    command: str
    protocol: str
    metric: str
    unit: float
    seeds: list[int]
    ablation: bool
    queries: dict[str, int]
    conclusive: bool
    over_prior: Gain
    sides: list[SideReport]
    gains: list[Gain]


def comparison_table(found: Comparison) -> str:
    """What a comparison found, as text."""
    reference = found.sides[0]
    lines = [] if found.conclusive else [_inconclusive(found), ""]
    counts = ", ".join(f"{count:,} {split}" for split, count in found.queries.items())
    lines += [
        f"queries: {counts}; seeds {', '.join(map(str, found.seeds))}; chosen by {found.metric} on "
        f"validation, tested once; protocol {found.protocol}"
    ]
    if found.ablation:
        lines += ["ablation: the sides may differ in parameters, which are counted below"]
    lines += ["", *_sides_table(found), ""]
    lines += [
        f"{reference.name} minus each other side on test, paired, with 95% intervals",
        *_gains_table(found),
        f"intervals: Student's t, of the variance over videos plus that over {len(found.seeds)} seeds",
        "",
        f"{found.metric} of each seed",
        *_seeds_table(found),
    ]
    if any(len(side.trials) > 1 for side in found.sides):
        lines += [
            "",
            f"trials: {found.metric} on validation with seed {found.seeds[0]}; * is chosen",
            *_trials_table(found),
        ]
    return "\n".join(lines)


def _inconclusive(found: Comparison) -> str:
    gain = found.over_prior.metrics[found.metric]
    return (
        f"INCONCLUSIVE: {found.sides[0].name} does not beat the window prior on validation: "
        f"{found.metric} {number(gain.reference, found.unit)} against "
        f"{number(gain.other, found.unit)}, difference {_difference(gain, found.unit)}"
    )


def _sides_table(found: Comparison) -> list[str]:
    rows = []
    for key in found.sides[0].runs[0].test:
        means = [side.mean(key) for side in found.sides]
        if any(means):
            rows.append([key, *(_spread(mean, found.unit) for mean in means)])
    rows.append(["parameters", *(f"{side.parameters:,}" for side in found.sides)])
    for name in ("steps", "seconds"):
        costs = [statistics.mean(getattr(run, name) for run in side.runs) for side in found.sides]
        rows.append([f"{name} a run", *(f"{cost:,.0f}" for cost in costs)])
    heads = ["test, mean ± deviation over seeds"]
    heads += [
        f"{side.name} ({_role(found, side)})" if _role(found, side) else side.name
        for side in found.sides
    ]
    return table(heads, rows)


def _spread(mean: tuple[float, float] | None, unit: float) -> str:
    return "-" if mean is None else f"{number(mean[0], unit)} ± {number(mean[1], unit)}"


def _role(found: Comparison, side: SideReport) -> str:
    if side is found.sides[0]:
        return "reference"
    return "yardstick" if side.yardstick else ""


def _gains_table(found: Comparison) -> list[str]:
    rows = []
    for key in dict.fromkeys(key for gain in found.gains for key in gain.metrics):
        cells = []
        for gain in found.gains:
            one = gain.metrics.get(key)
            cells.append("-" if one is None else _difference(one, found.unit))
        rows.append([key, *cells])
    return table(["", *(f"- {gain.over}" for gain in found.gains)], rows)


def _difference(gain: GainReport, unit: float) -> str:
    said = (
        f"{number(gain.difference, unit, '+')} ({number(gain.low, unit, '+')} to "
        f"{number(gain.high, unit, '+')})"
    )
    return f"{said}, includes 0" if gain.low <= 0 <= gain.high else said


def _seeds_table(found: Comparison) -> list[str]:
    rows = []
    for split in ("val", "test"):
        for place, seed in enumerate(found.seeds):
            values = [getattr(side.runs[place], split).get(found.metric) for side in found.sides]
            rows.append([f"{split}, seed {seed}", *(number(value, found.unit) for value in values)])
    return table(["", *(side.name for side in found.sides)], rows)


def _trials_table(found: Comparison) -> list[str]:
    rows: list[Sequence[str]] = [
        [
            side.name,
            ("* " if trial.name == side.chosen else "  ") + trial.name,
            number(trial.value, found.unit),
            f"{trial.parameters:,}",
        ]
        for side in found.sides
        if len(side.trials) > 1
        for trial in side.trials
    ]
    return table(["", "trial", found.metric, "parameters"], rows, names=2)
