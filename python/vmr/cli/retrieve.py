"""``vmr retrieve``: where in these videos do these sentences happen?"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from vmr.cli import exporting, systems

if TYPE_CHECKING:
    from vmr.backends.recorded import Recorder
    from vmr.cli.common import Commands
    from vmr.results import Result, Results

_OF_GRANALIGN = ("parameters", "preset", "rewriter", "captioner")
_OF_A_CHECKPOINT = ("features", "anchor_encoder", "anchor_features", "device")


def add_parser(commands: Commands) -> None:
    """Adds the command to the parser."""
    parser = commands.add_parser(
        "retrieve",
        help="find the moments of videos that sentences describe",
        description="Finds the moments of one or more videos that one or more sentences describe: with "
        "GranAlign (training-free), or with a trained model (--checkpoint). Results go to stdout, "
        "progress to stderr.",
    )
    parser.add_argument("videos", nargs="+", metavar="VIDEO", help="a video file")
    parser.add_argument(
        "-q", "--query", action="append", required=True, metavar="SENTENCE", dest="queries",
        help="what to look for; may be given several times",
    )  # fmt: skip
    parser.add_argument(
        "-k", "--top-k", type=int, default=5, metavar="N", help="moments a query (default: 5)"
    )
    parser.add_argument(
        "--system", metavar="NAME",
        help="granalign (default without --checkpoint), or the system that the checkpoint has to be of, "
        "e.g. bm-detr or afa-fsgd (default: whichever it is of)",
    )  # fmt: skip
    trained = parser.add_argument_group(
        "a trained model",
        "Frames and sentences are encoded as those were that it was trained on; --encoder, "
        "--sentence-encoder and --every replace what it names. --preset, --rewriter, --captioner and "
        "--param are GranAlign's alone.",
    )
    trained.add_argument(
        "--checkpoint", metavar="C",
        help="the result folder of vmr train, a checkpoint's folder, or owner/name on the hub (default: "
        "GranAlign)",
    )  # fmt: skip
    trained.add_argument(
        "--features", type=Path, metavar="DIR",
        help="folder of features as it was trained on, instead of an encoder: for those that vmr has no "
        "encoder of (I3D, SlowFast). A video's are found by its file name",
    )  # fmt: skip
    trained.add_argument(
        "--anchor-encoder", metavar="MODEL",
        help="--encoder for a model that looks for its anchor in another model's features",
    )  # fmt: skip
    trained.add_argument("--anchor-features", type=Path, metavar="DIR", help="--features, likewise")
    trained.add_argument(
        "--device", metavar="D", help="cpu or cuda (default: a GPU if there is one)"
    )
    systems.add_options(parser, every="1; with --checkpoint, what it was trained on")
    outputs = parser.add_argument_group("output")
    outputs.add_argument("--json", action="store_true", help="print JSON on stdout, nothing else")
    outputs.add_argument(
        "--out", type=Path, metavar="DIR",
        help="write index.html (a page to look at), results.json, a picture a query and, of GranAlign, "
        "recording.jsonl (captions and rewrites, for the recorded backend) there",
    )  # fmt: skip
    outputs.add_argument(
        "--overwrite", action="store_true",
        help="replace these files, exports and clips where they are there already",
    )  # fmt: skip
    exporting.add_options(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Retrieves, then prints or writes; the exit code is that of the last video that failed."""
    from vmr.errors import InputError, VmrError

    trained = options.checkpoint is not None
    _check_sides(options, trained=trained)
    if options.out is not None and not trained:
        _check_names(options.videos)
    exporting.check(options)
    if options.out is not None:
        _claim(options.out, overwrite=options.overwrite)
    videos, code = _readable(options.videos)
    if not videos:
        return code
    retriever = systems.load_trained(options) if trained else systems.load(options)
    from vmr.cli import progress
    from vmr.cli.common import say
    from vmr.results import Results

    results = Results(backends=retriever.backends)
    try:
        for video in videos:
            try:
                with progress.shown(Path(video).name) as show:
                    found = retriever.retrieve(
                        video, options.queries, top_k=options.top_k, progress=show
                    )
            except InputError:
                raise  # the queries are the same for every video
            except VmrError as error:
                print(f"vmr: error: {error}", file=sys.stderr)
                code = error.exit_code
                continue
            results.extend(found)
            for stage, seconds in found.timings.items():
                results.timings[stage] = results.timings.get(stage, 0.0) + seconds
            if not options.json:
                for result in found:
                    say(_table(result))
    finally:
        # What was found is written whatever stops the run.
        if options.out is not None and results:
            _write(options.out, results, getattr(retriever, "recording", None))
    if options.json:
        say(results.to_json())
    if results:
        exporting.write(options, results)
    return code


def _check_sides(options: argparse.Namespace, *, trained: bool) -> None:
    """Refuses what does not go with the one or the other."""
    from vmr.errors import InputError

    if options.system is not None:
        systems.check_name(options.system, trained=trained)
    for name in _OF_GRANALIGN if trained else _OF_A_CHECKPOINT:
        if getattr(options, name) not in (None, []):
            which = "does not go with --checkpoint" if trained else "goes with --checkpoint alone"
            advice = "; a part of GranAlign has it in its name: ...,device=cuda"
            more = advice if not trained and name == "device" else ""
            raise InputError(f"{systems.option_of(name)}: {which}{more}")


def _readable(videos: list[str]) -> tuple[list[str], int]:
    """The videos that open, told before models are loaded, and the exit code for the others."""
    from vmr.errors import VideoError
    from vmr.video import probe

    readable, code = [], 0
    for video in videos:
        try:
            probe(video)
        except VideoError as error:
            print(f"vmr: error: {error}", file=sys.stderr)
            code = error.exit_code
        else:
            readable.append(video)
    return readable, code


def _table(result: Result) -> str:
    """A result as a person reads it on the terminal."""
    import io

    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    from vmr.moments import clock

    terminal = sys.stdout.isatty()
    text = io.StringIO()
    console = Console(
        file=text, force_terminal=terminal, width=None if terminal else 120, highlight=False
    )
    console.print(f"[bold]{escape(result.query)}[/bold]", soft_wrap=True)
    console.print(escape(f"{result.video} ({clock(result.duration)})"), soft_wrap=True)
    if not result.moments:
        console.print("no moment found")
    else:
        table = Table("rank", "start", "end", "score")
        for column in table.columns:
            column.justify = "right"
        for rank, moment in enumerate(result.moments, 1):
            table.add_row(str(rank), clock(moment.start), clock(moment.end), f"{moment.score:.3f}")
        console.print(table)
    return text.getvalue()


# ---- --out --------------------------------------------------------------------------------------------


def _claim(folder: Path, *, overwrite: bool) -> None:
    """Makes the folder, or refuses one that holds results, before any work is done."""
    from vmr.errors import CacheError, InputError

    if (folder / "results.json").exists() and not overwrite:
        raise InputError(
            f"--out: {folder} already holds results.json; name another folder, or add --overwrite"
        )
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise CacheError(f"--out: {folder}: cannot be made: {error.strerror}") from error


def _check_names(videos: list[str]) -> None:
    """A recording knows videos by their file names, so two of one name would be mixed up."""
    from vmr.errors import InputError

    paths: dict[str, Path] = {}
    for path in map(Path, videos):
        other = paths.setdefault(path.name, path)
        if other.absolute() != path.absolute():
            raise InputError(
                f"--out: expected videos of different file names, got {other} and {path}; "
                "recording.jsonl could not tell them apart"
            )


def _write(folder: Path, results: Results, recording: Recorder | None) -> None:
    from vmr.files import write_text
    from vmr.viz import save_page, save_timeline

    write_text(folder / "results.json", results.to_json(indent=1) + "\n")
    written = [folder / "results.json"]
    if recording is not None:
        recording.save(folder / "recording.jsonl")
        written.append(folder / "recording.jsonl")
    for number, result in enumerate(results, 1):
        picture = folder / f"{number:02d}-{_slug(Path(result.video).stem, result.query)}.png"
        save_timeline(result, picture)
        written.append(picture)
    save_page(results, folder / "index.html")
    written.append(folder / "index.html")
    for path in written:
        print(f"vmr: wrote {path}", file=sys.stderr)


def _slug(*texts: str) -> str:
    words = "".join(c if c.isalnum() else " " for c in " ".join(texts).lower()).split()
    return "-".join(words)[:60].strip("-")
