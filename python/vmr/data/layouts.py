"""What the readers of annotation layouts share."""

from __future__ import annotations

import math
from typing import Literal

import msgspec

from vmr.errors import InputError

Kind = Literal[
    "qvhighlights",
    "tvsum",
    "youtube-highlights",
    "charades-sta",
    "activitynet",
    "charades-cd",
    "tacos",
]
# Layouts of one object, where a query has no line of its own: its place among the queries stands for it.
BY_VIDEO: frozenset[Kind] = frozenset({"activitynet", "charades-cd", "tacos"})
Windows = tuple[tuple[float, float], ...]

# Seconds, nearly four months: what is above is milliseconds, frames or worse.
LONGEST_VIDEO = 10_000_000

# What msgspec's quick decoding may end in; a slow second look then says what is wrong, and where.
NOT_DECODED = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)


class RecordError(Exception):
    """What is wrong with a record; the caller says where it stands."""


class UnknownLayoutError(InputError):
    """A file holds no annotations, as far as its beginning says."""


def check_video(name: str, duration: float) -> None:
    """What every layout asks of a video."""
    if not name:
        raise RecordError("expected the video's name, got an empty text")
    if not 0 < duration <= LONGEST_VIDEO:
        raise RecordError(
            f"duration: expected seconds above 0 and up to {LONGEST_VIDEO:,}, got {duration:g}"
        )


def refuse_nonfinite(record: msgspec.Struct) -> None:
    """NaN and Infinity, which only the slow way lets through."""

    def holds(value: object) -> bool:
        if isinstance(value, tuple):
            return any(map(holds, value))
        return isinstance(value, float) and not math.isfinite(value)

    for key in record.__struct_fields__:
        if holds(getattr(record, key)):
            raise RecordError(f"{key}: expected finite numbers, got NaN or Infinity")
