"""Scores predictions against ground truth."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias, cast

import msgspec
import numpy as np

from vmr.data.annotations import Queries, read_queries
from vmr.data.jsonl import Row, query_of_row
from vmr.data.layouts import LONGEST_VIDEO, RecordError
from vmr.data.lines import collector_paused
from vmr.data.records import Query
from vmr.errors import InputError
from vmr.evaluation import packing
from vmr.evaluation.measures import Measures
from vmr.evaluation.oddities import Judge, Oddity
from vmr.evaluation.predictions import Prediction, Predictions, as_predictions
from vmr.evaluation.protocols import (
    LENGTHS,
    LEVELS,
    PRECISION_THRESHOLDS,
    PROTOCOLS,
    Protocol,
    for_highlights_alone,
    protocol_named,
)

if TYPE_CHECKING:
    from vmr.evaluation.statistics import Difference, Group, Interval

GroundTruth: TypeAlias = "str | os.PathLike[str] | Sequence[Query] | Sequence[Mapping[str, Any]]"

VERSION = 1
_BY_ANNOTATORS: dict[tuple[int, ...], str] = {(1,): "youtube-highlights", (20,): "tvsum"}


class Evaluation:
    """What an evaluation found.

    Attributes:
        protocol: The protocol's name.
        as_published: Whether what is scored by accident was scored.
        queries: The queries scored, in the order of the ground truth.
        predictions: How many predictions there were.
        measures: One number a query, by measure.
        oddities: What was odd.
    """

    def __init__(
        self,
        protocol: Protocol,
        as_published: bool,
        queries: Sequence[Query],
        predictions: int,
        measures: Measures,
        oddities: Sequence[Oddity],
    ) -> None:
        self._protocol = protocol
        self.protocol = protocol.name
        self.as_published = as_published
        self.queries = tuple(queries)
        self.predictions = predictions
        self.measures = measures
        self.oddities = tuple(oddities)

    @property
    def ranges(self) -> tuple[str, ...]:
        """The ranges of ground-truth lengths that were scored apart (``short``, ..., ``full``)."""
        names = (*LENGTHS, "full")
        return tuple(name for name in names if f"MR-{name}-mIoU" in self.measures)

    @property
    def unit(self) -> float:
        """What 1 is under the official keys: 100 percent, or 1 for TVSum and YouTube Highlights."""
        return 1.0 if self._protocol.ranked else 100.0

    @property
    def source(self) -> str:
        """Whose evaluator the protocol is."""
        return self._protocol.source

    @property
    def headline(self) -> dict[str, str]:
        """The protocol's headline numbers: official key and measure, those that there are."""
        keys = self._protocol.brief
        if self._protocol.brief_without_highlights and not _has_saliency(self.queries):
            keys = self._protocol.brief_without_highlights
        return {key: measure for key, measure in keys if measure in self.measures}

    @property
    def brief(self) -> dict[str, float | None]:
        """The headline numbers under their official keys, in percent rounded as published (the mAP of
        TVSum and YouTube Highlights: from 0 to 1); None where no query falls into a range."""
        return {key: self._rounded(measure) for key, measure in self.headline.items()}

    @property
    def metrics(self) -> dict[str, Any]:
        """Everything the official evaluator reports, under its keys and in its order."""
        protocol = self._protocol
        found: dict[str, Any] = {}
        reported = {name for name, _ in protocol.ranges if protocol.recall}
        for name in sorted(reported & set(self.ranges)):
            entry: dict[str, Any] = {}
            if protocol.mean_iou:
                entry["MR-mIoU"] = self._rounded(f"MR-{name}-mIoU")
            entry["MR-mAP"] = {
                str(threshold): self._rounded(f"MR-{name}-mAP@{threshold}")
                for threshold in PRECISION_THRESHOLDS
            } | {"average": self._rounded(f"MR-{name}-mAP")}
            for top in protocol.tops:
                entry[f"MR-R{top}"] = {
                    str(threshold): self._rounded(f"MR-{name}-R{top}@{threshold}")
                    for threshold in protocol.recall
                }
            found[name] = entry
        levels = {}
        for level in sorted(LEVELS):
            if f"HL-min-{level}-mAP" in self.measures:
                levels[f"HL-min-{level}"] = {
                    "HL-mAP": self._rounded(f"HL-min-{level}-mAP"),
                    "HL-Hit1": self._rounded(f"HL-min-{level}-Hit1"),
                }
        return {"brief": self.brief} | levels | found

    def count(self, measure: str) -> int:
        """How many queries a measure is the mean of."""
        return int((~np.isnan(self.measures[measure])).sum())

    def mean(self, measure: str) -> float | None:
        """A measure from 0 to 1, averaged over the queries that have it; None without any."""
        return self.measures.mean(measure)

    def _rounded(self, measure: str) -> float | None:
        value = self.mean(measure)
        if value is None:
            return None
        # Rounded through text, as published: round() goes by the last bit instead.
        return round(value, 5) if self._protocol.ranked else float(f"{self.unit * value:.2f}")

    def by(self, what: str) -> list[Group]:
        """The headline numbers of groups of queries.

        Args:
            what: ``length`` (mean ground-truth window), ``duration`` (of the video), ``words`` (of the
                query) or ``domain``.

        Raises:
            InputError: For anything else.
        """
        from vmr.evaluation.statistics import groups

        return groups(self, what)

    def bootstrap(self, resamples: int = 1000, seed: int = 0) -> dict[str, Interval]:
        """95% confidence intervals of the headline numbers, by their official keys.

        Videos are drawn with replacement, each with all its queries: queries of one video go together.
        """
        from vmr.evaluation.statistics import intervals

        return intervals(self, resamples, seed)

    def compare(self, other: Evaluation, resamples: int = 10000, seed: int = 0) -> list[Difference]:
        """How the headline numbers of ``other`` differ from these, paired query by query.

        Raises:
            InputError: Where the two were not scored on the same queries by the same protocol.
        """
        from vmr.evaluation.statistics import differences

        return differences(self, other, resamples, seed)

    def to_dict(self) -> dict[str, Any]:
        """As JSON says it; see schemas/evaluation-1.json."""
        return {
            "version": VERSION,
            "protocol": self.protocol,
            "as_published": self.as_published,
            "queries": len(self.queries),
            "predictions": self.predictions,
            "metrics": self.metrics,
            "measures": {name: self.mean(name) for name in self.measures},
            "oddities": msgspec.to_builtins(self.oddities),
        }

    def __repr__(self) -> str:
        return f"Evaluation({self.protocol}, {len(self.queries)} queries, {self.brief})"

    def __str__(self) -> str:
        from vmr.evaluation.report import summary

        return summary(self)


def evaluate(
    predictions: Predictions,
    ground_truth: GroundTruth,
    *,
    protocol: str | None = None,
    as_published: bool = False,
    limit: float | None = None,
    durations: str | os.PathLike[str] | None = None,
) -> Evaluation:
    """Scores predictions as a published evaluator does.

    Args:
        predictions: An official jsonl file, or its records (:class:`Prediction` or mappings).
        ground_truth: Any annotation file that :func:`vmr.read_queries` reads, or its records
            (:class:`Query`, or mappings with the keys of QVHighlights).
        protocol: One of :data:`PROTOCOLS`; by default the one that goes with the ground truth
            (``qvhighlights``, or for highlights alone ``tvsum`` or ``youtube-highlights``).
        as_published: Scores what the published code scores by accident (NaN, reversed windows, scores of
            the wrong length, duplicate lines) as it does, instead of refusing it.
        limit: Seconds of a video that the model reads (rows times seconds a row), to which ``bm-detr``
            cuts the ground truth outside QVHighlights and Charades-STA.
        durations: Where the ground truth has no durations (Charades-STA's txt), the file that does.

    Returns:
        The metrics; a query without a prediction counts as zero.

    Raises:
        InputError: For a file or record that is not right, and for what is scored by accident.
    """
    with collector_paused():
        return _evaluate(predictions, ground_truth, protocol, as_published, limit, durations)


def _evaluate(
    predictions: Predictions,
    ground_truth: GroundTruth,
    protocol: str | None,
    as_published: bool,
    limit: float | None,
    durations: str | os.PathLike[str] | None,
) -> Evaluation:
    queries, truth_name, kind = _queries(ground_truth, durations)
    records, name = as_predictions(predictions)
    chosen = _protocol(protocol, kind, queries, truth_name)
    _check_limit(limit, chosen)
    judge = Judge(name, as_published)
    queries = _prepared(queries, chosen, limit)
    found = packing.by_query(records, queries, judge)
    measures = Measures()
    if _has_windows(queries) and any(r.pred_relevant_windows is not None for r in records):
        _score_moments(measures, found, queries, chosen, judge, limit)
    if chosen.highlights or chosen.ranked:
        scored = any(record.pred_saliency_scores is not None for record in records)
        if scored and _has_saliency(queries):
            whole_clips = chosen.ranked is None
            scores = packing.highlights(found, queries, judge, whole_clips=whole_clips)
            measures.add_highlights(scores, chosen)
        elif scored:
            judge.note_whole(
                "no-truth-saliency", "the ground truth has no saliency to score the clips by", 1
            )
    if not measures:
        raise InputError(
            f"{name}: holds nothing that the protocol {chosen.name} scores; expected "
            f"{'pred_saliency_scores' if not chosen.ranges else 'pred_relevant_windows'}"
        )
    return Evaluation(chosen, as_published, queries, len(records), measures, judge.oddities)


def check(
    records: Sequence[Prediction],
    queries: Sequence[Query],
    protocol: str | None,
    as_published: bool,
) -> None:
    """Refuses at once what :func:`evaluate` would refuse in the predictions of some queries.

    Raises:
        InputError: As :func:`evaluate`.
    """
    judge = Judge("predictions", as_published)
    queries = list(queries)
    chosen = _protocol(protocol, None, queries, packing.TRUTH)
    found = packing.by_query(records, queries, judge)
    if _has_windows(queries):
        packing.moments(found, _prepared(queries, chosen, None), judge)
    if _has_saliency(queries) and (chosen.highlights or chosen.ranked):
        packing.highlights(found, queries, judge, whole_clips=chosen.ranked is None)


def _score_moments(
    measures: Measures,
    found: Sequence[Sequence[Prediction]],
    queries: Sequence[Query],
    protocol: Protocol,
    judge: Judge,
    limit: float | None,
) -> None:
    moments = packing.moments(found, queries, judge)
    empty = []
    repeats = protocol.empty_range_is_full and judge.as_published
    reported = dict(protocol.ranges)
    for name, length_range in (LENGTHS | reported).items():
        # With a limit every window has a length, as in the published filter.
        whole = limit is not None and length_range is None
        span = (0.0, np.inf) if whole else length_range
        measures.add_moments(name, moments, span, judge.as_published)
        if name in reported and measures.mean(f"MR-{name}-mAP") is None:
            empty.append(name)
            if repeats:
                measures.add_moments(name, moments, None, judge.as_published)
    outcome = "the numbers of all lengths are repeated there" if repeats else "no number there"
    judge.note_whole(
        "empty-range", f"no ground truth is {' or '.join(empty)}: {outcome}", len(empty)
    )


def _queries(
    given: GroundTruth, durations: str | os.PathLike[str] | None
) -> tuple[list[Query], str, str | None]:
    """The queries, the name of their file, and the kind of its layout where that is known."""
    if isinstance(given, str | os.PathLike):
        given = read_queries(given, durations=durations)
    if isinstance(given, Queries):
        return list(given), str(given.path), given.kind
    records = cast("Sequence[Query | Mapping[str, Any]]", given)
    queries = [as_query(record, place) for place, record in enumerate(records, 1)]
    if not queries:
        raise InputError(f"{packing.TRUTH}: expected at least one query, got none")
    known: set[int | str] = set()
    for query in queries:
        if query.qid in known:
            raise InputError(
                f"{packing.TRUTH}: expected one record a query, got qid {query.qid!r} again"
            )
        known.add(query.qid)
        if not 0 < query.duration < LONGEST_VIDEO:
            raise InputError(
                f"{packing.TRUTH}, qid {query.qid!r}: expected a duration in seconds above 0 and below "
                f"{LONGEST_VIDEO:,}, got {query.duration}"
            )
    return queries, packing.TRUTH, None


def as_query(record: Query | Mapping[str, Any], place: int = 1) -> Query:
    """A query from a mapping with the keys of QVHighlights.

    Args:
        record: The mapping; a query is given back as it is.
        place: Its place among the records, from 1, for errors.

    Raises:
        InputError: For a mapping that is not of that layout.
    """
    if isinstance(record, Query):
        return record
    try:
        row = msgspec.convert(record, Row)
        if row.relevant_windows is msgspec.UNSET:
            row.relevant_windows = None
        return query_of_row(row, 0)
    except (msgspec.ValidationError, RecordError) as error:
        raise InputError(f"{packing.TRUTH}, record {place}: {error}") from None


def _protocol(
    name: str | None, kind: str | None, queries: Sequence[Query], truth_name: str
) -> Protocol:
    asked = None if name is None else protocol_named(name)
    if kind is None and not _has_windows(queries):
        # Records of their own do not say where they come from; the number of annotators does.
        annotators = {
            len(query.saliency.scores[0])
            for query in queries
            if query.saliency is not None and query.saliency.scores
        }
        kind = _BY_ANNOTATORS.get(tuple(annotators))
    if kind in ("tvsum", "youtube-highlights"):
        return for_highlights_alone(asked, kind)
    if asked is not None and asked.ranked:
        raise InputError(
            f"{truth_name}: is no ground truth for the protocol {asked.name}, which scores the labels "
            f"of {'TVSum' if asked.name == 'tvsum' else 'YouTube Highlights'}; expected another protocol"
        )
    chosen = asked or PROTOCOLS["qvhighlights"]
    if not _has_windows(queries) and not (chosen.highlights and _has_saliency(queries)):
        raise InputError(
            f"{truth_name}: has no relevant_windows; expected ground truth for the protocol "
            f"{chosen.name} (a test split without ground truth cannot be scored here)"
        )
    return chosen


def _check_limit(limit: float | None, protocol: Protocol) -> None:
    if limit is None:
        return
    if not protocol.takes_limit:
        raise InputError(f"limit is for the protocol bm-detr, got it with {protocol.name}")
    if not 0 < limit < LONGEST_VIDEO:
        raise InputError(f"limit: expected seconds above 0, got {limit}")


def _has_windows(queries: Sequence[Query]) -> bool:
    return any(query.windows is not None for query in queries)


def _has_saliency(queries: Sequence[Query]) -> bool:
    return any(query.saliency is not None for query in queries)


def _prepared(queries: list[Query], protocol: Protocol, limit: float | None) -> list[Query]:
    if protocol.cut_to_video:
        return [
            msgspec.structs.replace(
                query,
                windows=tuple(
                    (min(max(0.0, start), query.duration), min(end, query.duration))
                    for start, end in query.windows or ()
                ),
            )
            for query in queries
        ]
    if limit is not None:
        return [
            msgspec.structs.replace(
                query,
                windows=tuple(
                    (min(start, limit), min(end, limit)) for start, end in query.windows or ()
                ),
            )
            for query in queries
        ]
    return queries
