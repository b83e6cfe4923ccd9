"""``vmr compare``: train rivals alike and compare them."""

from __future__ import annotations

import argparse
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from vmr.cli.common import Commands

# A file may have such a name too: ./a=b.yaml.
_SETTING = re.compile(r"[A-Za-z_][\w.]*=")


def add_parser(commands: Commands) -> None:
    """Adds the command to the parser."""
    parser = commands.add_parser(
        "compare",
        help="train models alike and compare them",
        usage="%(prog)s CONFIG [CONFIG ...] [KEY=VALUE ...] --out DIR [options]",
        description="Trains the model of the first config (the reference) and those of the others "
        "with several seeds each, on the same queries, with as many trials, and with steps and "
        "parameters within 10%; prints the test metrics of what validation chose, and how far the "
        "reference is from each other side, with 95% intervals. Models without parameters are "
        "yardsticks; a prior over windows that sees no video is always one. A comparison that was "
        "interrupted goes on when the same command is given again.",
        epilog="example: vmr compare full.yaml rival.yaml data.root=features "
        "--try training.optimiser.lr=1e-3,3e-4 --out comparisons/first",
    )
    parser.add_argument(
        "settings", nargs="+", metavar="CONFIG",
        help="a .yaml or a ready config, and settings for all of them (KEY=VALUE)",
    )  # fmt: skip
    parser.add_argument(
        "--out", type=Path, metavar="DIR", required=True,
        help="the result folder; it is never emptied",
    )  # fmt: skip
    parser.add_argument(
        "--seeds", type=_seeds, default=(0, 1, 2), metavar="N,...",
        help="of the runs, at least three (default: 0,1,2)",
    )  # fmt: skip
    parser.add_argument(
        "--try", dest="tries", action="append", default=[], metavar="KEY=V1,V2,...",
        help="try each value with the first seed and take the best on validation; again for a grid",
    )  # fmt: skip
    parser.add_argument(
        "--ablation", action="store_true", help="let parameters differ, and report them"
    )
    parser.add_argument(
        "--device", metavar="D", help="cpu or cuda (default: a GPU if there is one)"
    )
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(run=run)


def _seeds(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"expected whole numbers such as 0,1,2, got {text!r}"
        ) from None


def run(options: argparse.Namespace) -> int:
    """Trains, and prints the comparison."""
    import msgspec

    from vmr.cli.common import say, typed_command
    from vmr.cli.training_progress import TrainingProgress
    from vmr.errors import InputError
    from vmr.training.comparison import compare
    from vmr.training.comparison_report import comparison_table

    configs = [text for text in options.settings if not _SETTING.match(text)]
    if not configs:
        raise InputError("vmr compare: expected a config: a .yaml file, or one of vmr train --list")
    found = compare(
        configs,
        options.out,
        settings=[text for text in options.settings if _SETTING.match(text)],
        seeds=options.seeds,
        tries=options.tries,
        ablation=options.ablation,
        device=options.device,
        command=typed_command(),
        shown=TrainingProgress,
    )
    if os.environ.get("RANK", "0") == "0":
        if options.json:
            say(msgspec.json.format(msgspec.json.encode(found)).decode())
        else:
            say(comparison_table(found))
    return 0
