"""SubRip (SRT) and WebVTT: a cue a moment."""

from __future__ import annotations

from collections.abc import Sequence

from vmr.exports.items import in_time, one_line
from vmr.moments import Moment
from vmr.results import Result

# SRT has no way to write "<" or "{" that players do not take for the start of a style.
_SRT = str.maketrans({"<": "‹", ">": "›", "{": "(", "}": ")"})
_VTT = str.maketrans({"&": "&amp;", "<": "&lt;", ">": "&gt;"})


def srt(results: Sequence[Result]) -> str:
    """The moments of one video as SubRip text; ``<>{}`` in queries are replaced by look-alikes."""
    cues = [
        f"{number}\n{_times(item.moment, ',')}\n"
        f"{item.query.translate(_SRT) or '-'}\n({item.label()})\n"
        for number, item in enumerate(in_time(results), 1)
    ]
    return "\n".join(cues)


def vtt(results: Sequence[Result]) -> str:
    """The moments of one video as WebVTT; a cue is named after its query's place and its rank."""
    video = one_line(results[0].video).replace("-->", "->")
    cues = [
        f"query-{item.number}-rank-{item.rank}\n{_times(item.moment, '.')}\n"
        f"{item.query.translate(_VTT) or '-'}\n({item.label()})\n"
        for item in in_time(results)
    ]
    return "\n".join([f"WEBVTT\n\nNOTE\nMoments of {video}, found by vmr\n", *cues])


def _times(moment: Moment, point: str) -> str:
    """Both ends to the millisecond; a cue lasts one at least, since players drop empty ones."""
    start = round(moment.start * 1000)
    end = max(round(moment.end * 1000), start + 1)
    return f"{_clock(start, point)} --> {_clock(end, point)}"


def _clock(milliseconds: int, point: str) -> str:
    seconds, rest = divmod(milliseconds, 1000)
    minutes, seconds = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours:02d}:{minutes:02d}:{seconds:02d}{point}{rest:03d}"
