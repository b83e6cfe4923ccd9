"""Evaluations as text, in the tables of the field."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from vmr.evaluation.protocols import LEVELS
from vmr.tables import table

if TYPE_CHECKING:
    from vmr.evaluation.scoring import Evaluation
    from vmr.evaluation.statistics import Difference, Group, Interval

_MOMENT_COLUMNS = (
    *(f"R1@{threshold}" for threshold in (0.3, 0.5, 0.7)),
    *(f"R5@{threshold}" for threshold in (0.5, 0.7)),
    *(f"mAP@{threshold}" for threshold in (0.5, 0.75)),
    "mAP",
    "mIoU",
)


def summary(evaluation: Evaluation) -> str:
    """The protocol, moments by length, highlights by level, and what was odd."""
    how = ", as published" if evaluation.as_published else ""
    lines = [
        f"{len(evaluation.queries):,} queries, {evaluation.predictions:,} predictions; protocol "
        f"{evaluation.protocol} ({evaluation.source}){how}"
    ]
    if evaluation.ranges:
        rows = []
        for name in reversed(evaluation.ranges):
            values = [evaluation.mean(f"MR-{name}-{column}") for column in _MOMENT_COLUMNS]
            count = evaluation.count(f"MR-{name}-mIoU")
            rows.append([name, str(count), *map(percent, values)])
        lines += ["", *table(["moments", "queries", *_MOMENT_COLUMNS], rows)]
    if "HL-min-Fair-mAP" in evaluation.measures:
        rows = [
            [level, *(percent(evaluation.mean(f"HL-min-{level}-{key}")) for key in ("mAP", "Hit1"))]
            for level in LEVELS
        ]
        lines += ["", *table(["highlights", "mAP", "Hit1"], rows)]
    if "HL-mAP" in evaluation.measures:
        lines += ["", f"highlights mAP  {percent(evaluation.mean('HL-mAP'))}"]
    if evaluation.oddities:
        lines += ["", "noticed:", *(f"  {oddity}" for oddity in evaluation.oddities)]
    return "\n".join(lines)


def intervals_table(evaluation: Evaluation, intervals: Mapping[str, Interval]) -> str:
    """The headline numbers with their intervals."""
    rows = [
        [
            key,
            number(evaluation.unit * (evaluation.mean(measure) or 0.0), evaluation.unit),
            f"{number(intervals[key].low, evaluation.unit)} to "
            f"{number(intervals[key].high, evaluation.unit)}",
        ]
        for key, measure in evaluation.headline.items()
        if key in intervals
    ]
    return "\n".join(table(["headline", "value", "95% interval"], rows))


def groups_table(evaluation: Evaluation, what: str, groups: Sequence[Group]) -> str:
    """The headline numbers of each group of queries."""
    rows = [["queries", *(str(group.queries) for group in groups)]]
    rows += [
        [key, *(number(group.values[key], evaluation.unit) for group in groups)]
        for key in (groups[0].values if groups else ())
    ]
    return "\n".join(table([f"by {what}", *(group.name for group in groups)], rows))


def differences_table(
    first: str, second: str, other: Evaluation, differences: Sequence[Difference]
) -> str:
    """The headline numbers of two sets of predictions beside each other, and what the second lacks.

    Args:
        first: Name of the first set.
        second: Name of the second.
        other: The second's evaluation.
        differences: What to show.
    """
    unit = other.unit
    rows = [
        [
            found.key,
            number(found.first, unit),
            number(found.second, unit),
            number(found.second - found.first, unit, "+"),
            f"{number(found.interval.low, unit, '+')} to {number(found.interval.high, unit, '+')}",
            f"{found.p_value:.4f}",
        ]
        for found in differences
    ]
    head = ["headline", "first", "second", "difference", "95% interval", "p"]
    lines = [f"first: {first}", f"second: {second}", *table(head, rows)]
    if other.oddities:
        lines += ["", "noticed in the second:", *(f"  {oddity}" for oddity in other.oddities)]
    return "\n".join(lines)


def percent(value: float | None) -> str:
    """A share as the field prints it; a dash where there is none."""
    return "-" if value is None else number(100 * value, 100.0)


def number(value: float | None, unit: float, sign: str = "") -> str:
    """A number whose 1 is ``unit``, with the digits that the field prints; a dash for None."""
    return "-" if value is None else format(value, f"{sign}.{2 if unit > 1 else 4}f")
