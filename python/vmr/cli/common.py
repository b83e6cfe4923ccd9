"""What the commands share."""

from __future__ import annotations

import argparse
import os
import shlex
import sys
from pathlib import Path
from typing import TypeAlias

Commands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"


def add_durations(parser: argparse.ArgumentParser) -> None:
    """The option of every command that reads annotations which may lack durations."""
    parser.add_argument(
        "--durations", type=Path, metavar="FILE",
        help="lengths of the videos for Charades-STA txt (default: charades.json beside it)",
    )  # fmt: skip


def size_text(size: float) -> str:
    """Bytes as people read them."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if size < 1024 or unit == "GiB":
            break
        size /= 1024
    return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"


def say(text: str) -> None:
    """Prints to stdout; where its reader has gone, the work goes on in silence."""
    try:
        print(text, flush=True)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def typed_command() -> str:
    """What the user typed, as a shell takes it again."""
    start = "vmr"
    if os.environ.get("WORLD_SIZE", "1") != "1":
        hosts, each = os.environ.get("GROUP_WORLD_SIZE", "1"), os.environ["LOCAL_WORLD_SIZE"]
        nodes = "" if hosts == "1" else f"--nnodes {hosts} "
        start = f"torchrun {nodes}--nproc-per-node {each} -m vmr"
    return f"{start} {shlex.join(sys.argv[1:])}"
