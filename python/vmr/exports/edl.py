"""CMX3600 edit decision lists: the moments of a video as selects, one after another."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from vmr.exports.items import in_time, one_line
from vmr.exports.timecode import Timebase
from vmr.results import Result
from vmr.video import probe


def edl(results: Sequence[Result]) -> str:
    """A cut a moment, in the order of time, on a record side that starts at 01:00:00:00.

    Source timecodes count from 00:00:00:00 at the first frame of the video, as they do in editors for
    files that carry no timecode of their own. The picture only (V). Event numbers go on after 999 with
    four digits.

    Raises:
        VideoError: The video, which is asked for its frame rate, cannot be read.
        InputError: A timecode reaches 24 hours.
    """
    video = Path(results[0].video)
    base = Timebase.of(probe(video))
    # A reel has eight capitals or digits at most; AX is what editors write for a file.
    reel = re.sub(r"[^A-Z0-9_]", "", video.stem.upper())[:8] or "AX"
    lines = [
        f"TITLE: {one_line(video.stem)[:70]}",
        f"FCM: {'DROP FRAME' if base.drops else 'NON-DROP FRAME'}",
        "",
    ]
    record = _frame_of_first_hour(base)
    for number, item in enumerate(in_time(results), 1):
        first, end = base.span(item.moment)
        times = (first, end, record, record + end - first)
        record = times[-1]
        lines += [
            f"{number:03d}  {reel:<8} V     C        {' '.join(map(base.timecode, times))}",
            f"* FROM CLIP NAME: {one_line(video.name)}",
            f"* COMMENT: {item.query} ({item.label()})",
            "",
        ]
    return "\n".join(lines)


def _frame_of_first_hour(base: Timebase) -> int:
    """The frame that is numbered 01:00:00:00."""
    skipped = 54 * (base.nominal // 15) if base.drops else 0
    return 3600 * base.nominal - skipped
