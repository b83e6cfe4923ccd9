"""The options of a command that exports its results: files for players and editors, and clips."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from vmr.results import Results


def add_options(parser: argparse.ArgumentParser) -> None:
    """Adds the group "exports". The command has ``--out`` and ``--overwrite`` of its own."""
    group = parser.add_argument_group("exports")
    group.add_argument(
        "--export", metavar="FORMATS",
        help="write the moments of each video to a file of each format, separated by commas: json, "
        "csv, srt, vtt (subtitles), edl (CMX3600), otio (OpenTimelineIO); they go to --out, else to "
        "the current folder",
    )  # fmt: skip
    group.add_argument(
        "--name", metavar="TEMPLATE",
        help="file name of the exports, without suffix, of text, {video} and {query} (default: "
        "{video}); with {query} each query gets its own file",
    )  # fmt: skip
    group.add_argument(
        "--clips", type=Path, metavar="DIR",
        help="cut each moment out of its video, into this folder (needs ffmpeg)",
    )  # fmt: skip
    group.add_argument(
        "--clip-mode", choices=("exact", "keyframe"), default="exact",
        help="exact: encoded anew, right to the frame (default); keyframe: copied, fast, starts at "
        "the key frame before",
    )  # fmt: skip
    group.add_argument(
        "--clip-name", metavar="TEMPLATE",
        help="file name of the clips, of text, {video}, {query}, {rank}, {start}, {end} and {score}, "
        "with formats as in {rank:02d} (default: {video}-{query}-{rank:02d}); equal names are numbered: "
        "-2",
    )  # fmt: skip


def check(options: argparse.Namespace) -> None:
    """Says before the work what would fail after it. Makes no folder.

    Raises:
        InputError: A format or template is not right, a file is there already, a folder is none.
        BackendError: ffmpeg or opentimelineio is missing.
        CacheError: A folder cannot be written to.
    """
    if options.export is not None:
        from vmr.errors import InputError
        from vmr.exports import NAME, check_formats, formats_of, planned

        formats = formats_of(options.export)
        check_formats(formats, where="--export")
        pairs = [(video, query) for video in options.videos for query in options.queries]
        files = planned(
            pairs, _folder(options), formats,
            name=options.name or NAME, overwrite=options.overwrite, where="--name",
        )  # fmt: skip
        for path, _, _ in files:
            if options.out is not None and path.name in ("results.json", "recording.jsonl"):
                raise InputError(f"--name: {path} is written by --out already; choose another name")
        _writable(_folder(options))
    elif options.name is not None:
        _lonely("--name", "--export")
    if options.clips is not None:
        from vmr.exports import CLIP_NAME
        from vmr.exports.clips import check_clips, refuse_existing_clips

        name = options.clip_name or CLIP_NAME
        check_clips(mode=options.clip_mode, name=name, where="--clip-name")
        _writable(options.clips)
        if not options.overwrite:
            pairs = [(video, query) for video in options.videos for query in options.queries]
            refuse_existing_clips(pairs, options.clips, mode=options.clip_mode, name=name)
    elif options.clip_name is not None:
        _lonely("--clip-name", "--clips")


def write(options: argparse.Namespace, results: Results) -> None:
    """Writes what was asked for, and says on stderr where it is.

    Raises:
        VmrError: As :func:`vmr.exports.export` and :func:`vmr.exports.cut_clips`.
    """
    if options.export is not None:
        from vmr.exports import NAME, export

        written = export(
            results, _folder(options), options.export,
            name=options.name or NAME, overwrite=options.overwrite,
        )  # fmt: skip
        _say(written)
    if options.clips is not None:
        from vmr.cli import progress
        from vmr.exports import CLIP_NAME, cut_clips

        with progress.shown("vmr") as show:
            clips = cut_clips(
                results, options.clips, mode=options.clip_mode,
                name=options.clip_name or CLIP_NAME, overwrite=options.overwrite, progress=show,
            )  # fmt: skip
        _say(clips)


def _folder(options: argparse.Namespace) -> Path:
    return Path() if options.out is None else Path(options.out)


def _writable(folder: Path) -> None:
    """A folder that is there must take files; one that is not must be possible to make."""
    from vmr.errors import CacheError, InputError

    here = folder.absolute()
    while not here.exists():
        here = here.parent
    if not here.is_dir():
        raise InputError(f"{here}: expected a folder, got a file")
    if not os.access(here, os.W_OK | os.X_OK):
        raise CacheError(f"{here}: no files can be written there")


def _lonely(option: str, other: str) -> None:
    from vmr.errors import InputError

    raise InputError(f"{option} is for {other}, which is not given")


def _say(paths: list[Path]) -> None:
    for path in paths:
        print(f"vmr: wrote {path}", file=sys.stderr)
