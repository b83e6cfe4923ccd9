"""``vmr data``: check and convert annotations, and simulate features."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from vmr.cli import simulate
from vmr.cli.common import add_durations

if TYPE_CHECKING:
    from vmr.cli.common import Commands
    from vmr.data.check import Check
    from vmr.data.records import Query

_LAYOUTS = (
    "Annotations are QVHighlights jsonl (also BM-DETR's, lighthouse's and your own), Charades-STA txt, "
    "ActivityNet Captions, Charades-CD and TACoS json, TVSum and YouTube Highlights jsonl; the content "
    "tells which."
)


def add_parser(commands: Commands) -> None:
    """Adds the command to the parser."""
    parser = commands.add_parser(
        "data",
        help="check annotations, convert them to QVHighlights jsonl, or simulate features",
        description=f"Annotations as the field has them on disk. {_LAYOUTS}",
    )
    actions = parser.add_subparsers(title="actions", metavar="ACTION", required=True)
    checking = actions.add_parser(
        "check",
        help="count what files hold, and what is odd about them",
        description="Counts queries, videos and windows, and what is odd: windows that are reversed, "
        "empty or outside the video, repeated queries, missing features and the like. " + _LAYOUTS,
        epilog="exit code: 0 when all files can be read, odd or not (1 with --strict and something "
        "odd), 3 when one cannot",
    )
    checking.add_argument(
        "paths", nargs="+", type=Path, metavar="PATH",
        help="a file, or a folder: every .jsonl, .json and .txt in it, at any depth, that holds "
        "annotations; the others are named",
    )  # fmt: skip
    add_durations(checking)
    checking.add_argument(
        "--features", metavar="PACK",
        help="also look up which videos and queries have no features in a pack: a ready one of "
        "vmr features list, a YAML or its folder (vmr features check reads the features too)",
    )  # fmt: skip
    checking.add_argument(
        "--root", type=Path, metavar="DIR", help="folder of the features of a ready pack"
    )
    checking.add_argument("--strict", action="store_true", help="exit with 1 if something is odd")
    checking.add_argument("--json", action="store_true", help="print JSON")
    checking.set_defaults(run=_check)
    converting = actions.add_parser(
        "convert",
        help="write annotations as QVHighlights jsonl",
        description="Reads annotations of any layout and writes them as QVHighlights jsonl. "
        + _LAYOUTS,
    )
    converting.add_argument("input", type=Path, metavar="INPUT", help="the annotations")
    converting.add_argument("output", type=Path, metavar="OUTPUT", help="the jsonl to write")
    add_durations(converting)
    converting.add_argument(
        "--clip-windows", action="store_true",
        help="cut windows to the video (0 to its duration); all are kept, and the changed counted",
    )  # fmt: skip
    converting.add_argument("--force", action="store_true", help="replace OUTPUT if it is there")
    converting.set_defaults(run=_convert)
    simulate.add_parser(actions)


# ---- check --------------------------------------------------------------------------------------------


def _check(options: argparse.Namespace) -> int:
    import json

    import msgspec

    from vmr.cli.common import say
    from vmr.data.annotations import read_queries
    from vmr.data.check import annotation_files, check_queries
    from vmr.data.layouts import UnknownLayoutError
    from vmr.errors import InputError

    if options.root is not None and options.features is None:
        raise InputError("--root is the folder of the pack that --features names")
    pack = None
    if options.features is not None:
        from vmr.data.packs import load_pack

        pack = load_pack(options.features, options.root)
    checks: list[Check] = []
    errors: list[dict[str, str]] = []
    skipped: list[str] = []
    for path in options.paths:
        files = annotation_files(path) if path.is_dir() else [path]
        before = len(checks), len(errors)
        for file in files:
            try:
                queries = read_queries(file, durations=options.durations)
                checks.append(check_queries(queries, pack))
            except UnknownLayoutError as error:
                # In a folder there is much else; a file that was named is meant.
                if path.is_dir():
                    skipped.append(str(file))
                else:
                    errors.append({"path": str(file), "error": str(error)})
            except InputError as error:
                errors.append({"path": str(file), "error": str(error)})
        if (len(checks), len(errors)) == before:
            errors.append({"path": str(path), "error": f"{path}: holds no annotation files"})
    for failure in errors:
        print(f"vmr: error: {failure['error']}", file=sys.stderr)
    odd = any(check.quirks for check in checks)
    if options.json:
        document = {
            "version": 1,
            "files": msgspec.to_builtins(checks),
            "errors": errors,
            "skipped": skipped,
        }
        say(json.dumps(document, indent=2))
    else:
        if checks:
            say(_table(checks))
            say(_quirks(checks))
        if skipped:
            print(f"vmr: skipped, no annotations: {', '.join(skipped)}", file=sys.stderr)
    if errors:
        return InputError.exit_code
    return 1 if odd and options.strict else 0


def _table(checks: list[Check]) -> str:
    from vmr.tables import table

    header = ("file", "layout", "queries", "videos", "windows", "saliency", "odd")
    rows = [
        (
            check.path,
            check.kind,
            f"{check.queries:,}",
            f"{check.videos:,}",
            f"{check.windows:,}" if check.without_windows < check.queries else "none",
            f"{check.with_saliency:,}" if check.with_saliency else "none",
            f"{sum(quirk.count for quirk in check.quirks):,}",
        )
        for check in checks
    ]
    return "\n".join(table(header, rows, names=2))


def _quirks(checks: list[Check]) -> str:
    from vmr.data.layouts import BY_VIDEO

    lines = []
    for check in checks:
        if not check.quirks:
            continue
        lines.append(f"\n{check.path}")
        unit = "query" if check.kind in BY_VIDEO else "line"
        for quirk in check.quirks:
            places = "; ".join(f"{unit} {place.line}, qid {place.qid}" for place in quirk.places)
            more = "; ..." if quirk.count > len(quirk.places) else ""
            lines.append(f"  {quirk.meaning}: {quirk.count:,} ({places}{more})")
    return "\n".join(lines) if lines else "nothing odd was found"


# ---- convert ------------------------------------------------------------------------------------------


def _convert(options: argparse.Namespace) -> int:
    from vmr.data.annotations import read_queries, write_queries
    from vmr.errors import InputError

    if options.output.exists() and not options.force:
        raise InputError(f"{options.output}: is there already; name another file, or add --force")
    read = read_queries(options.input, durations=options.durations)
    queries: list[Query] = list(read)
    said = ""
    if options.clip_windows:
        queries, cut, outside = _cut_to_video(queries)
        said = (
            f"; windows cut to the video: {cut} ({outside} lay outside it and have no length now)"
        )
    write_queries(options.output, queries)
    print(
        f"vmr: wrote {options.output}: {len(queries)} queries ({read.kind}){said}", file=sys.stderr
    )
    return 0


def _cut_to_video(queries: list[Query]) -> tuple[list[Query], int, int]:
    """The queries with windows from 0 to the duration; how many windows changed, and are empty now."""
    from msgspec.structs import replace

    cut = outside = 0
    kept = []
    for query in queries:
        windows = query.windows
        if windows is not None:
            length = query.duration
            windows = tuple(
                (min(max(start, 0.0), length), min(max(end, 0.0), length)) for start, end in windows
            )
            for old, new in zip(query.windows or (), windows, strict=True):
                cut += old != new
                outside += new[0] == new[1] and old[0] != old[1]
        kept.append(query if windows == query.windows else replace(query, windows=windows))
    return kept, cut, outside
