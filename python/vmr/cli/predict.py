"""``vmr predict``: a model's answers to a benchmark."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from vmr.cli import systems
from vmr.cli.common import add_durations

if TYPE_CHECKING:
    from vmr.cli.common import Commands
    from vmr.data.packs import FeaturePack
    from vmr.models.base import MomentModel


_WITH_CHECKPOINT = (
    "features", "pack", "anchor_features", "anchor_pack", "batch_size", "device"
)  # fmt: skip
_WITH_SYSTEM = ("videos", "shard", "top_k", *systems.OPTIONS)


def add_parser(commands: Commands) -> None:
    """Adds the command to the parser."""
    parser = commands.add_parser(
        "predict",
        help="write a model's answers to a benchmark as official jsonl",
        description="Answers the queries of an annotation file: by a trained model from features "
        "(--checkpoint C --features DIR), or by a training-free system from videos (--system granalign "
        "--videos DIR). The answers are official jsonl (qid, pred_relevant_windows, "
        "pred_saliency_scores), which vmr evaluate scores; ground truth is not looked at.",
    )
    parser.add_argument("data", type=Path, metavar="DATA", help="annotations of any layout")
    who = parser.add_mutually_exclusive_group(required=True)
    who.add_argument(
        "--checkpoint", metavar="C",
        help="the result folder of vmr train, a checkpoint's folder, or owner/name on the hub",
    )  # fmt: skip
    who.add_argument("--system", choices=["granalign"], help="a training-free system")
    parser.add_argument(
        "--out", type=Path, metavar="FILE", help="the jsonl to write (default: stdout)"
    )
    parser.add_argument(
        "--skip-missing", action="store_true",
        help="leave queries without features or video out",
    )  # fmt: skip
    add_durations(parser)
    trained = parser.add_argument_group("with --checkpoint")
    trained.add_argument("--features", type=Path, metavar="DIR", help="folder of the features")
    trained.add_argument(
        "--pack", metavar="P",
        help="what lies there: a ready pack or a YAML (default: what the model was trained on)",
    )  # fmt: skip
    trained.add_argument(
        "--anchor-features", type=Path, metavar="DIR",
        help="folder of another model's features, in which A2FA looks for its anchor",
    )  # fmt: skip
    trained.add_argument(
        "--anchor-pack", metavar="P",
        help="what lies there (default: what the model was trained with, or DIR's pack.yaml)",
    )  # fmt: skip
    trained.add_argument(
        "--batch-size", type=int, metavar="N", help="queries at once (default: 100)"
    )
    trained.add_argument(
        "--device", metavar="D", help="cpu or cuda (default: a GPU if there is one)"
    )
    ready = parser.add_argument_group(
        "with --system",
        "With --out FILE, FILE.partial grows by a video at a time, and the same command goes on where "
        "it was stopped; FILE.run.json says what made it.",
    )
    ready.add_argument(
        "--videos", type=Path, metavar="DIR", help="folder of the videos, named as in DATA"
    )
    ready.add_argument(
        "--shard", metavar="I/N",
        help="only the I-th of N parts, into FILE with .I-of-N before its suffix; `cat` joins them",
    )  # fmt: skip
    ready.add_argument("-k", "--top-k", type=int, metavar="N", help="moments a query (default: 10)")
    systems.add_options(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Writes the predictions."""
    from vmr.errors import InputError

    trained = options.checkpoint is not None
    named = "--checkpoint" if trained else "--system"
    for name in _WITH_SYSTEM if trained else _WITH_CHECKPOINT:
        if getattr(options, name) not in (None, [], False):
            raise InputError(f"{systems.option_of(name)}: does not go with {named}")
    needed = "features" if trained else "videos"
    if getattr(options, needed) is None:
        raise InputError(f"{named}: expected --{needed} DIR with it")
    return _trained(options) if trained else _training_free(options)


def _training_free(options: argparse.Namespace) -> int:
    """By a system that looks at videos."""
    from vmr.answering import Shard, Unanswered, answer_file, answers, find_videos
    from vmr.cli import progress
    from vmr.cli.common import say
    from vmr.data.annotations import read_queries
    from vmr.errors import InputError, VideoError
    from vmr.evaluation.predictions import prediction_lines

    top_k = 10 if options.top_k is None else options.top_k
    if top_k < 1:
        raise InputError(f"--top-k: expected at least 1, got {top_k}")
    shard = Shard.parse(options.shard) if options.shard else Shard()
    queries = read_queries(options.data, durations=options.durations)
    own = shard.part(queries)
    videos = find_videos(options.videos, own, skip_missing=options.skip_missing)
    system = systems.load(options)
    with progress.shown(options.data.name) as show:
        if options.out is None:
            unanswered = 0
            for found in answers(system, own, videos, top_k=top_k, progress=show):
                if isinstance(found, Unanswered):
                    print(f"vmr: error: {found.reason}", file=sys.stderr)
                    unanswered += 1
                else:
                    for line in prediction_lines(found):
                        say(line.decode())
            return VideoError.exit_code if unanswered else 0
        try:
            done = answer_file(
                system, queries, videos, options.out,
                data=options.data.name, shard=shard, top_k=top_k, progress=show,
            )  # fmt: skip
        except KeyboardInterrupt:
            raise KeyboardInterrupt(
                "what was answered is kept, and the same command goes on there"
            ) from None
    print(
        f"vmr: wrote {done.path}: {done.answered:,} predictions ({done.new:,} of them new)",
        file=sys.stderr,
    )
    for found in done.unanswered:
        print(f"vmr: error: {found.reason}; {found.queries} queries are left out", file=sys.stderr)
    return VideoError.exit_code if done.unanswered else 0


def _trained(options: argparse.Namespace) -> int:
    """By a model that reads features."""
    from vmr.cli import progress
    from vmr.cli.common import say
    from vmr.data.annotations import read_queries
    from vmr.data.dataset import MomentDataset
    from vmr.devices import pick_device
    from vmr.errors import InputError
    from vmr.evaluation.predictions import prediction_lines, write_predictions
    from vmr.models.base import MomentModel
    from vmr.training.prediction import predict

    batch_size = 100 if options.batch_size is None else options.batch_size
    if batch_size < 1:
        raise InputError(f"--batch-size: expected at least 1, got {batch_size}")
    device = pick_device(options.device)
    model = MomentModel.from_pretrained(options.checkpoint, device=device)
    pack = _pack(model, options)
    queries = read_queries(options.data, durations=options.durations)
    dataset = MomentDataset(
        queries,
        pack,
        pooled=model.wants_pooled,
        anchor_pack=_anchor_pack(model, options),
        skip_missing=options.skip_missing,
    )
    with progress.shown(options.data.name) as show:
        found = predict(model, dataset, batch_size=batch_size, device=device, progress=show)
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
    if model.about is None or model.about.pack is None:
        raise InputError(
            f"{options.checkpoint}: does not say what features it was trained on; add --pack (a ready "
            "one of vmr features list, or a YAML)"
        )
    return FeaturePack(model.about.pack, options.features, name=f"features of {model.about.name}")


def _anchor_pack(model: MomentModel, options: argparse.Namespace) -> FeaturePack | None:
    from vmr.data.packs import FeaturePack, load_pack
    from vmr.errors import InputError

    trained_on = model.about.anchor_pack if model.about is not None else None
    if options.anchor_features is None:
        if options.anchor_pack is not None:
            raise InputError("--anchor-pack: expected --anchor-features DIR with it")
        if trained_on is not None:
            raise InputError(
                f"{options.checkpoint}: was trained with another model's features for the anchor; add "
                "--anchor-features DIR"
            )
        return None
    if options.anchor_pack is not None or trained_on is None:
        named = options.anchor_pack or options.anchor_features
        return load_pack(named, options.anchor_features)
    return FeaturePack(trained_on, options.anchor_features, name="anchor features")
