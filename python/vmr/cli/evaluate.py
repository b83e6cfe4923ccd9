"""``vmr evaluate``: score predictions as the published evaluators do."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vmr.cli.common import add_durations

if TYPE_CHECKING:
    from vmr.cli.common import Commands
    from vmr.data.annotations import Queries
    from vmr.evaluation import Evaluation

_PROTOCOLS = (
    "qvhighlights",
    "lighthouse",
    "univtg",
    "bm-detr",
    "emb",
    "tvsum",
    "youtube-highlights",
)
_GROUPS = ("length", "duration", "words", "domain")


def add_parser(commands: Commands) -> None:
    """Adds the command to the parser."""
    parser = commands.add_parser(
        "evaluate",
        help="score predictions against ground truth, as the published evaluators do",
        description="Scores a prediction file (official jsonl: qid, pred_relevant_windows, "
        "pred_saliency_scores) against ground truth of any layout that vmr reads. What published code "
        "scores by accident (NaN, reversed windows, scores of the wrong length, duplicate lines) is "
        "refused, unless --as-published asks for its number; a query without a prediction counts as "
        "zero.",
    )
    parser.add_argument("predictions", type=Path, metavar="PREDICTIONS", help="official jsonl")
    parser.add_argument("ground_truth", type=Path, metavar="GROUND_TRUTH", help="annotations")
    parser.add_argument(
        "--protocol", choices=_PROTOCOLS, metavar="P",
        help=f"one of {', '.join(_PROTOCOLS)} (default: qvhighlights, or for highlights alone the one "
        "of the ground truth)",
    )  # fmt: skip
    parser.add_argument(
        "--as-published", action="store_true",
        help="score what is scored by accident as the published code does, and list it",
    )  # fmt: skip
    parser.add_argument(
        "--limit", type=float, metavar="SECONDS",
        help="with bm-detr: what the model reads of a video (rows x seconds a row), to which ground "
        "truth is cut outside QVHighlights and Charades-STA",
    )  # fmt: skip
    add_durations(parser)
    parser.add_argument(
        "--by", type=_groupings, default=(), metavar="WHAT,...",
        help="also for groups of queries: length (of the ground truth), duration (of the video), "
        "words (of the query), domain",
    )  # fmt: skip
    parser.add_argument(
        "--bootstrap", type=_resamples, metavar="N",
        help="95%% confidence intervals from N resamples of the videos",
    )  # fmt: skip
    parser.add_argument(
        "--compare", type=Path, metavar="OTHER",
        help="a second prediction file: paired differences, their intervals and p-values",
    )  # fmt: skip
    parser.add_argument(
        "--plot", type=_picture, metavar="FILE", help="draw recall over IoU (.png, .svg or .pdf)"
    )
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(run=run)


def _groupings(text: str) -> tuple[str, ...]:
    names = tuple(name.strip() for name in text.split(","))
    for name in names:
        if name not in _GROUPS:
            raise argparse.ArgumentTypeError(f"expected some of {', '.join(_GROUPS)}, got {name!r}")
    return names


def _resamples(text: str) -> int:
    if not text.isascii() or not text.isdigit() or int(text) < 100:
        raise argparse.ArgumentTypeError(f"expected a whole number from 100, got {text!r}")
    return int(text)


def _picture(text: str) -> Path:
    path = Path(text)
    if path.suffix not in (".png", ".svg", ".pdf"):
        raise argparse.ArgumentTypeError(f"expected a name in .png, .svg or .pdf, got {text!r}")
    return path


def run(options: argparse.Namespace) -> int:
    """Prints the numbers."""
    import msgspec

    from vmr.cli.common import say
    from vmr.data.annotations import read_queries
    from vmr.evaluation import report

    queries = read_queries(options.ground_truth, durations=options.durations)
    first = _evaluate(options, options.predictions, queries)
    second = _evaluate(options, options.compare, queries) if options.compare else None
    found: dict[str, Any] = first.to_dict()
    texts = [str(first)]
    if options.bootstrap is not None:
        intervals = first.bootstrap(options.bootstrap)
        found["intervals"] = intervals
        texts.append(report.intervals_table(first, intervals))
    for what in options.by:
        groups = first.by(what)
        found.setdefault("by", {})[what] = groups
        texts.append(report.groups_table(first, what, groups))
    if second is not None:
        resamples = options.bootstrap if options.bootstrap is not None else 10000
        differences = first.compare(second, resamples)
        found["comparison"] = {
            "with": str(options.compare),
            "differences": differences,
            "oddities": second.oddities,
        }
        names = (str(options.predictions), str(options.compare))
        texts.append(report.differences_table(*names, second, differences))
    if options.plot is not None:
        _plot(options, first, second)
        print(f"vmr: wrote {options.plot}", file=sys.stderr)
    if options.json:
        say(msgspec.json.format(msgspec.json.encode(found)).decode())
    else:
        say("\n\n".join(texts))
    return 0


def _evaluate(options: argparse.Namespace, predictions: Path, queries: Queries) -> Evaluation:
    from vmr.evaluation import evaluate

    return evaluate(
        predictions,
        queries,
        protocol=options.protocol,
        as_published=options.as_published,
        limit=options.limit,
    )


def _plot(options: argparse.Namespace, first: Evaluation, second: Evaluation | None) -> None:
    from vmr.errors import InputError
    from vmr.viz.recall import save_recall_curve

    if "full" not in first.ranges:
        raise InputError("--plot draws recall over IoU; these predictions hold no moments")
    named = {options.predictions.name: first}
    if second is not None:
        named[
            options.compare.name if options.compare.name not in named else str(options.compare)
        ] = second
    save_recall_curve(named, options.plot)
