"""``vmr cache``: what was computed for videos and is kept."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from vmr.cli.common import Commands


def add_parser(commands: Commands) -> None:
    """Adds the command to the parser."""
    parser = commands.add_parser(
        "cache",
        help="list or clear what was computed for videos and is kept",
        description="Captions and embeddings are kept, so that a second query on a video is quick. "
        "VMR_CACHE_DIR names the folder, VMR_CACHE_LIMIT the bytes it may hold; "
        "pictures of frames go first, then what was used longest ago.",
    )
    actions = parser.add_subparsers(title="actions", metavar="ACTION", required=True)
    listing = actions.add_parser("list", help="what it holds, by video and kind")
    listing.add_argument("--json", action="store_true", help="print JSON")
    listing.set_defaults(run=_list)
    clearing = actions.add_parser("clear", help="drop everything, or what belongs to some videos")
    clearing.add_argument("videos", nargs="*", metavar="VIDEO", help="only these (default: all)")
    clearing.set_defaults(run=_clear)


def _list(options: argparse.Namespace) -> int:
    import dataclasses
    import json
    import time

    from vmr.cache import Cache
    from vmr.cli.common import size_text

    cache = Cache()
    held = cache.summaries()
    size = sum(summary.size for summary in held)
    if options.json:
        rows = [dataclasses.asdict(summary) for summary in held]
        document = {
            "version": 1,
            "path": str(cache.path),
            "size": size,
            "limit": cache.limit,
            "held": rows,
        }
        print(json.dumps(document, indent=2))
        return 0
    print(f"{cache.path}: {size_text(size)} of at most {size_text(cache.limit)}")
    for summary in held:
        used = time.strftime("%Y-%m-%d %H:%M", time.localtime(summary.used))
        print(
            f"  {summary.video[:12] or '-':12}  {summary.kind}: {summary.entries} entries, "
            f"{size_text(summary.size)}, last used {used}\n      {summary.model}"
        )
    return 0


def _clear(options: argparse.Namespace) -> int:
    from vmr.cache import Cache

    cache = Cache()
    if options.videos:
        count = sum(cache.clear(cache.digest(video)) for video in options.videos)
    else:
        count = cache.clear()
    print(f"{cache.path}: {count} entries dropped")
    return 0
