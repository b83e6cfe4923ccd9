"""``vmr train``: train a model."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from vmr.cli.common import Commands
    from vmr.training.config import Config


def add_parser(commands: Commands) -> None:
    """Adds the command to the parser."""
    parser = commands.add_parser(
        "train",
        help="train a model on the features and annotations of a data set",
        description="Trains the model that a config describes: a YAML file, or a ready one of --list. "
        "A run that was interrupted goes on when the same command is given again, and ends with the "
        "weights of one that was left alone. Several processes or hosts share each batch: torchrun "
        "--nproc-per-node 2 -m vmr train ...",
        epilog="example: vmr train moment-detr-qvhighlights data.root=features "
        "data.annotations=data training.seed=1",
    )
    parser.add_argument("config", nargs="?", metavar="CONFIG", help="a .yaml, or a ready config")
    parser.add_argument(
        "settings", nargs="*", metavar="KEY=VALUE", help="settings instead of the config's"
    )
    parser.add_argument(
        "--out", type=Path, metavar="DIR",
        help="the result folder (default: runs/ and the config's name); it is never emptied",
    )  # fmt: skip
    parser.add_argument(
        "--device", metavar="D", help="cpu or cuda (default: a GPU if there is one)"
    )
    parser.add_argument(
        "--skip-missing", action="store_true",
        help="leave queries without features out (data.skip_missing=true)",
    )  # fmt: skip
    parser.add_argument("--list", action="store_true", help="list the ready configs")
    parser.add_argument(
        "--profile", type=_steps, nargs="?", const=30, metavar="STEPS",
        help="run some steps (30), write nothing, and say where the time goes",
    )  # fmt: skip
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(run=run)


def _steps(text: str) -> int:
    if not text.isascii() or not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected a whole number from 1, got {text!r}")
    return int(text)


def run(options: argparse.Namespace) -> int:
    """Trains, and prints the best weights' numbers."""
    import msgspec

    from vmr.cli.common import say, typed_command
    from vmr.errors import InputError

    if options.list:
        _list(options.json)
        return 0
    if options.config is None:
        raise InputError("vmr train: expected a config: a .yaml file, or a ready one of --list")
    from vmr.training.config import load_config

    settings = list(options.settings)
    if options.skip_missing:
        settings.append("data.skip_missing=true")
    config = load_config(options.config, settings)
    if options.profile is not None:
        return _profile(config, options)
    out = options.out if options.out is not None else Path("runs") / config.name
    from vmr.cli.training_progress import TrainingProgress
    from vmr.training.loop import train
    from vmr.training.results import results_table
    from vmr.training.run_folder import RESULTS

    complete = (out / RESULTS).is_file()
    main = int(os.environ.get("RANK", "0")) == 0
    with TrainingProgress(config.name) as shown:
        results = train(
            config,
            out,
            device=options.device,
            command=typed_command(),
            watch=shown.watch,
            progress=shown.progress,
            tell=shown.tell,
        )
    if not main:
        return 0
    best = results.best
    already = "was complete already: " if complete else ""
    print(
        f"vmr: {out}: {already}{results.steps:,} steps in {results.seconds:,.0f} s; best after epoch "
        f"{best.epoch} ({results.metric} {best.value:.2f} on val); the weights are in {out / 'best'}",
        file=sys.stderr,
    )
    if options.json:
        say(msgspec.json.format(msgspec.json.encode(results)).decode())
    else:
        say(results_table(results, config.paper))
    return 0


def _list(as_json: bool) -> None:
    import json

    from vmr.cli.common import say
    from vmr.tables import table
    from vmr.training.config import list_configs

    configs = list_configs()
    if as_json:
        say(json.dumps(configs, indent=2))
    else:
        say("\n".join(table(["config", "what it is"], list(configs.items()), names=2)))


def _profile(config: Config, options: argparse.Namespace) -> int:
    import json

    from vmr.cli.common import say
    from vmr.training.profile import profile, profile_table

    found = profile(config, options.profile, device=options.device)
    say(json.dumps(found, indent=2) if options.json else profile_table(found))
    return 0
