"""``vmr convert``: a released checkpoint as a folder of vmr's."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from vmr.cli.common import Commands


def add_parser(commands: Commands) -> None:
    """Adds the command to the parser."""
    parser = commands.add_parser(
        "convert",
        help="turn a released checkpoint of an official code into a model of vmr",
        description="Reads a checkpoint that the authors of Moment-DETR, QD-DETR or BM-DETR released "
        "(which of them shows in its tensors) and writes it as safetensors, config.json and a model "
        "card, which every command takes as --checkpoint. The file is a pickle; nothing in it is run.",
    )
    parser.add_argument(
        "checkpoint", type=Path, metavar="CHECKPOINT", help="the file, e.g. model_best.ckpt"
    )
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder to write")
    parser.add_argument(
        "--opt", type=Path, metavar="FILE",
        help="options of its run as JSON (default: those in the file, or opt.json beside it)",
    )  # fmt: skip
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Writes the folder."""
    import json

    import msgspec

    from vmr.errors import InputError
    from vmr.models import from_official

    if options.out.is_dir() and any(options.out.iterdir()):
        raise InputError(f"--out: expected a new or an empty folder, {options.out} holds files")
    model = from_official(options.checkpoint, options.opt)
    model.save_pretrained(options.out)
    assert model.about is not None
    assert model.about.origin is not None
    origin, pack = model.about.origin, model.about.pack
    count = sum(parameter.numel() for parameter in model.parameters())
    if options.json:
        document = {
            "version": 1,
            "out": str(options.out),
            "parameters": count,
            "config": msgspec.to_builtins(model.config),
            "origin": msgspec.to_builtins(origin),
            "pack": msgspec.to_builtins(pack),
        }
        print(json.dumps(document, indent=2))
        return 0
    video, text = model.widths
    print(f"{origin.code}, {origin.file}: {model.kind}, {count:,} parameters")
    features = "its options do not say which" if pack is None else pack.about
    print(f"    reads rows of {video} and tokens of {text} columns ({features})")
    print(f"    sha256 {origin.sha256}")
    print(f"vmr: wrote {options.out}", file=sys.stderr)
    return 0
