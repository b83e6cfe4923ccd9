"""``vmr data simulate``: a feature pack made of annotations."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vmr.cli.common import add_durations

if TYPE_CHECKING:
    from vmr.cli.common import Commands


def add_parser(actions: Commands) -> None:
    """Adds the action to those of ``vmr data``."""
    parser = actions.add_parser(
        "simulate",
        help="make a feature pack out of annotations, to train on without real features",
        description="Simulates the features that videos with these annotations might have, so that "
        "models can be trained and tested at once. What such a corpus can show, and what it cannot, "
        "stands in docs/simulated-corpora.md. The same command goes on where it was stopped.",
    )
    parser.add_argument(
        "settings", nargs="*", metavar="KEY=VALUE",
        help="parameters, such as hit=0.8 seed=1 null=windows; simulation.yaml lists all",
    )  # fmt: skip
    parser.add_argument("--train", required=True, type=Path, metavar="FILE", help="annotations")
    parser.add_argument("--val", type=Path, metavar="FILE", help="those of the validation split")
    parser.add_argument(
        "--test", action="append", default=[], type=Path, metavar="FILE",
        help="those of the test split; given several times, each split is named after its file",
    )  # fmt: skip
    parser.add_argument("--out", required=True, type=Path, metavar="DIR", help="the folder to make")
    add_durations(parser)
    parser.add_argument(
        "--timelines", type=Path, metavar="FILE",
        help="actions of the videos, as charades.json has them (default: charades.json where a "
        "Charades-STA txt finds its durations); without any, scenes lie around the windows",
    )  # fmt: skip
    parser.add_argument(
        "--narrations", type=Path, metavar="FILE",
        help="other annotators' sentences about the same videos, such as val_2 for val_1",
    )  # fmt: skip
    parser.add_argument(
        "--queries", type=int, metavar="N",
        help="at least so many training queries, of whole videos (default: all)",
    )  # fmt: skip
    parser.add_argument(
        "--val-queries", type=int, metavar="N",
        help="the same for each other split (default: the share that --queries takes)",
    )  # fmt: skip
    parser.add_argument(
        "--report", action="store_true", help="print what it is like, and draw DIR/report.png"
    )
    parser.add_argument("--json", action="store_true", help="print report.json")
    parser.set_defaults(run=_simulate)


def _simulate(options: argparse.Namespace) -> int:
    import json
    import os
    import sys

    # A video's products are small: on a busy machine two threads wait longer than they work. NumPy
    # asks when it is first imported.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

    from vmr.cache import Cache
    from vmr.cli.common import say
    from vmr.cli.progress import shown
    from vmr.simulation import Inputs, parse, simulate
    from vmr.simulation.statistics import plain

    parameters = parse(options.settings)
    inputs = Inputs(
        train=options.train,
        val=options.val,
        tests=tuple(options.test),
        durations=options.durations,
        timelines=options.timelines,
        narrations=options.narrations,
        queries=options.queries,
        other_queries=options.val_queries,
    )
    with shown("simulate") as progress:
        report = simulate(inputs, options.out, parameters, cache=Cache(), progress=progress)
    if options.json:
        say(json.dumps(plain(report), indent=1))
    if options.report:
        from vmr.viz.simulation import save_report

        save_report(plain(report), options.out / "report.png")
        if not options.json:
            say(_text(plain(report)))
    print(f"vmr: {options.out}: {report.about}", file=sys.stderr)
    return 0


def _text(report: Mapping[str, Any]) -> str:
    """The statistics as a table, and a line on the noise and the narrations."""
    from vmr.tables import table

    shown = {
        "a video": "queries_a_video",
        "hit": "hit",
        "chance": "chance",
        "overlap": "overlap",
        "AUC": "auc",
        "within": "within",
        "across": "across",
        "offset, s": "boundary_offset",
    }
    rows = [
        (
            name,
            f"{split['queries']:,}",
            f"{split['videos']:,}",
            *("-" if split[key] is None else f"{split[key]:.3f}" for key in shown.values()),
        )
        for name, split in report["splits"].items()
    ]
    found = report["calibration"]
    sources = ", ".join(f"{name} {share:.1%}" for name, share in report["sources"].items())
    lines = table(("split", "queries", "videos", *shown), rows)
    return "\n".join(
        [
            *lines,
            f"frame noise {found['strength']:.3f}: hit {found['hit']:.3f} of {found['queries']} "
            "training queries",
            f"narrations {report['narrations']:,}: {sources}",
        ]
    )
