"""``vmr features``: what models see of videos and queries, on disk."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from vmr.cli.common import Commands


def add_parser(commands: Commands) -> None:
    """Adds the command to the parser."""
    parser = commands.add_parser(
        "features",
        help="list, check or extract feature packs",
        description="A feature pack is a folder of features and a YAML that says what they are; "
        "docs/own-data.md has the format.",
    )
    actions = parser.add_subparsers(title="actions", metavar="ACTION", required=True)
    listing = actions.add_parser("list", help="the ready packs, for features of other code bases")
    listing.add_argument("word", nargs="?", metavar="WORD", help="only those with it in their name")
    listing.add_argument("--json", action="store_true", help="print JSON")
    listing.set_defaults(run=_list)
    _add_check(actions)
    _add_extract(actions)


def _add_check(actions: Commands) -> None:
    parser = actions.add_parser(
        "check",
        help="read all features that some queries need, and say what is odd",
        description="Exit code 3 where something cannot be read.",
    )
    parser.add_argument("pack", metavar="PACK", help="a ready pack, a YAML file or its folder")
    parser.add_argument(
        "root", nargs="?", metavar="ROOT", help="folder of the features (default: the YAML's own)"
    )
    parser.add_argument("--queries", required=True, metavar="FILE", help="an annotation file")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(run=_check)


def _add_extract(actions: Commands) -> None:
    parser = actions.add_parser(
        "extract",
        help="features of videos, and of queries, as a pack",
        description="Writes DIR/video/NAME.npz, DIR/text/qidQID.npz and DIR/pack.yaml. What is there "
        "already is kept: the same command goes on where it was stopped.",
    )
    parser.add_argument("videos", nargs="+", metavar="VIDEO", help="a video file")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="the pack's folder")
    parser.add_argument(
        "--every", type=float, default=2.0, metavar="S", help="seconds a row (default: 2)"
    )
    parser.add_argument(
        "--queries",
        metavar="FILE",
        help="an annotation file, for text features of the queries about the pack's videos",
    )
    parser.add_argument(
        "--encoder", default="embedded", metavar="MODEL",
        help="what sees the frames: 'embedded' (small models from packages; default), or a CLIP or "
        "SigLIP as 'transformers:MODEL', a folder or an id on the hub, with options after commas: "
        "transformers:openai/clip-vit-base-patch32,revision=COMMIT,device=cuda (docs/models.md)",
    )  # fmt: skip
    parser.add_argument(
        "--sentence-encoder", metavar="MODEL",
        help="what reads the queries: 'embedded' or a SentenceTransformer (default: the encoder's own "
        "text tower, whose vectors can be compared with those of the frames)",
    )  # fmt: skip
    parser.add_argument("--json", action="store_true", help="print JSON on stdout, nothing else")
    parser.set_defaults(run=_extract)


def _list(options: argparse.Namespace) -> int:
    import json

    import msgspec

    from vmr.data.pack_spec import ready_packs
    from vmr.errors import InputError

    word = options.word or ""
    packs = {name: pack for name, pack in ready_packs().items() if word.lower() in name}
    if not packs:
        raise InputError(f"no ready pack has {word!r} in its name; vmr features list shows all")
    if options.json:
        rows = {name: msgspec.to_builtins(pack) for name, pack in packs.items()}
        print(json.dumps({"version": 1, "packs": rows}, indent=2))
        return 0
    for name, pack in packs.items():
        print(f"{name}: {pack.about}")
        for column in dict.fromkeys(pack.columns):
            if source := pack.sources.get(column):
                files = " + ".join(source.parts) or " or ".join(source.files)
                print(f"    {column} {source.dim or 'of any width'}: {files}")
        if text := pack.text or pack.glove:
            print(f"    text {text.dim}: {' or '.join(text.files)}")
    return 0


def _check(options: argparse.Namespace) -> int:
    import json

    import msgspec

    from vmr.cli import progress
    from vmr.data.annotations import read_queries
    from vmr.data.packs import load_pack
    from vmr.errors import InputError

    pack = load_pack(options.pack, options.root)
    queries = read_queries(options.queries)
    with progress.shown(pack.name) as show:
        found = pack.check(queries, show)
    if options.json:
        print(json.dumps({"version": 1, **msgspec.to_builtins(found)}, indent=2))
    else:
        print(found.summary())
    return 0 if found.ok else InputError.exit_code


def _extract(options: argparse.Namespace) -> int:
    import json
    import sys
    from contextlib import ExitStack

    import msgspec

    from vmr.backends import load_encoder, load_sentence_encoder
    from vmr.cli import progress
    from vmr.data.annotations import read_queries
    from vmr.data.extract import extract
    from vmr.progress import Progress

    queries = read_queries(options.queries) if options.queries else ()
    reads = options.sentence_encoder
    with ExitStack() as stack:

        def shown(what: str) -> Progress:
            stack.pop_all().close()
            return stack.enter_context(progress.shown(what))

        done = extract(
            options.videos,
            options.out,
            encoder=load_encoder(options.encoder),
            every=options.every,
            queries=queries,
            sentence_encoder=load_sentence_encoder(reads) if queries and reads else None,
            progress=shown,
        )
    for message in done.failed.values():
        print(f"vmr: error: {message}", file=sys.stderr)
    if options.json:
        print(json.dumps({"version": 1, **msgspec.to_builtins(done)}, indent=2))
    elif done.written or done.skipped:
        print(f"{done.pack}: {len(done.written)} files written, {len(done.skipped)} were there")
    return done.exit_code
