"""``vmr predict``: the answers of a trained model."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from vmr.cli.common import add_durations

if TYPE_CHECKING:
    from vmr.cli.common import Commands
    from vmr.data.packs import FeaturePack
    from vmr.models.base import MomentModel


def add_parser(commands: Commands) -> None:
    """Adds the command to the parser."""
    parser = commands.add_parser(
        "predict",
        help="write the answers of a trained model as official jsonl",
        description="Answers the queries of an annotation file by a trained model, from features. The "
        "answers are official jsonl (qid, pred_relevant_windows, pred_saliency_scores), which vmr "
        "evaluate scores; ground truth is not looked at.",
    )
    parser.add_argument("data", type=Path, metavar="DATA", help="annotations of any layout")
    parser.add_argument(
        "--checkpoint", required=True, metavar="C",
        help="the result folder of vmr train, a checkpoint's folder, or owner/name on the hub",
    )  # fmt: skip
    parser.add_argument(
        "--features", type=Path, required=True, metavar="DIR", help="folder of the features"
    )
    parser.add_argument(
        "--pack", metavar="P",
        help="what lies there: a ready pack or a YAML (default: what the model was trained on)",
    )  # fmt: skip
    parser.add_argument(
        "--out", type=Path, metavar="FILE", help="the jsonl to write (default: stdout)"
    )
    parser.add_argument(
        "--skip-missing", action="store_true", help="leave queries without features out"
    )
    add_durations(parser)
    parser.add_argument(
        "--batch-size", type=int, default=100, metavar="N", help="queries at once (default: 100)"
    )
    parser.add_argument(
        "--device", metavar="D", help="cpu or cuda (default: a GPU if there is one)"
    )
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Writes the predictions."""
    from vmr.cli import progress
    from vmr.cli.common import say
    from vmr.data.annotations import read_queries
    from vmr.data.dataset import MomentDataset
    from vmr.devices import pick_device
    from vmr.errors import InputError
    from vmr.evaluation.predictions import prediction_lines, write_predictions
    from vmr.models.base import MomentModel
    from vmr.training.prediction import predict

    if options.batch_size < 1:
        raise InputError(f"--batch-size: expected at least 1, got {options.batch_size}")
    device = pick_device(options.device)
    model = MomentModel.from_pretrained(options.checkpoint, device=device)
    pack = _pack(model, options)
    queries = read_queries(options.data, durations=options.durations)
    dataset = MomentDataset(
        queries, pack, pooled=model.wants_pooled, skip_missing=options.skip_missing
    )
    with progress.shown(options.data.name) as show:
        found = predict(model, dataset, batch_size=options.batch_size, device=device, progress=show)
    if options.out is None:
        for line in prediction_lines(found):
            say(line.decode())
        return 0
    write_predictions(options.out, found)
    print(f"vmr: wrote {options.out}: {len(found)} predictions", file=sys.stderr)
    return 0


def _pack(model: MomentModel, options: argparse.Namespace) -> FeaturePack:
    from vmr.data.packs import FeaturePack, load_pack
    from vmr.errors import InputError

    if options.pack is not None:
        return load_pack(options.pack, options.features)
    if model.about is None:
        raise InputError(
            f"{options.checkpoint}: does not say what features it was trained on; add --pack (a ready "
            "one of vmr features list, or a YAML)"
        )
    return FeaturePack(model.about.pack, options.features, name=f"features of {model.about.name}")
