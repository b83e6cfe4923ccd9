"""Moments cut from their videos by ffmpeg: exactly, or fast at key frames."""

from __future__ import annotations

import itertools
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal, get_args

import numpy as np

from vmr.errors import InputError
from vmr.exports.ffmpeg import Stream, need_ffmpeg, passthrough_option, read_stream, run_ffmpeg
from vmr.exports.names import Template, Value, told_apart
from vmr.exports.timecode import SLACK
from vmr.exports.writing import refuse_existing
from vmr.files import atomic_path, make_folder
from vmr.moments import Moment
from vmr.progress import Progress, silent
from vmr.results import Result, all_of

Mode = Literal["exact", "keyframe"]

CLIP_NAME = "{video}-{query}-{rank:02d}"
"""Default name of the clips."""

CLIP_FIELDS: Mapping[str, Value] = {
    "video": "a",
    "query": "a",
    "rank": 1,
    "start": 1.5,
    "end": 2.5,
    "score": 0.5,
}
"""The fields that the name of a clip may have, with a sample of each."""

_AHEAD = 1.0  # s before the key frame to which ffmpeg seeks: its seeking is not exact
_AHEAD_KEYS = 5.0  # where the sound that was packed before its picture is wanted too
_KEPT = {
    "mov,mp4,m4a,3gp,3g2,mj2": (".mp4", ".mov", ".m4v"),
    "matroska,webm": (".mkv", ".webm"),
    "mpegts": (".ts", ".mts", ".m2ts"),
    "avi": (".avi",),
}
"""Suffixes that fit their container and that ffmpeg writes it for."""


def cut_clips(
    results: Result | Sequence[Result],
    folder: str | os.PathLike[str],
    *,
    mode: Mode = "exact",
    name: str = CLIP_NAME,
    top: int | None = None,
    overwrite: bool = False,
    progress: Progress = silent,
) -> list[Path]:
    """Cuts each moment out of its video, one after another.

    ``exact`` encodes anew (H.264 and AAC in MP4): the clip holds just the frames shown from the start of
    the moment to before its end, at least one, upright and with their own times; a pixel row or column
    is cropped where a size is odd. ``keyframe`` copies, which is fast and loses nothing, but a clip then
    starts at the last key frame at or before the start of the moment and may end a few frames late; the
    container stays (else Matroska).

    Args:
        results: What a retrieval gave, all or some of it, or one. The videos are where they were then.
        folder: Where the clips go; made where it is missing.
        mode: ``exact`` or ``keyframe``.
        name: Template of the file names, without suffix, of text and the fields ``{video}`` (the name of
            its file without suffix), ``{query}``, ``{rank}``, ``{start}``, ``{end}`` (s) and
            ``{score}``, which may have formats, as in ``{rank:02d}`` or ``{start:06.2f}``. Clips that
            would get the same name are numbered: ``-2``.
        top: Only the best so many of each query; None takes all.
        overwrite: If files that are there are replaced.
        progress: Called as each clip is done, of stage ``clips``.

    Returns:
        The clips, as the moments came.

    Raises:
        InputError: An argument is not as above, or a file is there already. Nothing is written.
        BackendError: ffmpeg is not installed. Nothing is written.
        VideoError: A video cannot be read. Nothing is written.
        CacheError: A clip cannot be written. Those before it stay.
    """
    check_clips(mode=mode, name=name)
    results = all_of(results, "cut_clips")
    if top is not None and top < 1:
        raise InputError(f"top: expected a number of moments >= 1, got {top}")
    wanted = [
        (result, rank, moment)
        for result in results
        for rank, moment in enumerate(result.moments[:top], 1)
    ]
    streams = {video: read_stream(video) for video in dict.fromkeys(r.video for r, _, _ in wanted)}
    template = Template(name, CLIP_FIELDS)
    stems = [
        template.render(
            {
                "video": Path(result.video).stem,
                "query": result.query,
                "rank": rank,
                "start": float(moment.start),
                "end": float(moment.end),
                "score": float(moment.score),
            }
        )
        for result, rank, moment in wanted
    ]
    paths = [
        Path(folder) / f"{stem}{_suffix(streams[result.video], mode)}"
        for stem, (result, _, _) in zip(told_apart(stems), wanted, strict=True)
    ]
    refuse_existing(paths, list(streams), overwrite=overwrite)
    make_folder(Path(folder))
    cut = _cut_exact if mode == "exact" else _cut_at_keys
    for done, (path, (result, _, moment)) in enumerate(zip(paths, wanted, strict=True), 1):
        with atomic_path(path) as temporary:
            cut(streams[result.video], moment, temporary)
        progress("clips", done, len(paths))
    return paths


def check_clips(*, mode: str, name: str, where: str = "name") -> None:
    """Says early what :func:`cut_clips` could not do.

    Raises:
        InputError: The mode or a field of the name is not known.
        BackendError: ffmpeg is not installed.
    """
    modes = get_args(Mode)
    if mode not in modes:
        raise InputError(f"mode: expected one of {', '.join(modes)}; got {mode!r}")
    Template(name, CLIP_FIELDS, where=where)
    need_ffmpeg()


def refuse_existing_clips(
    pairs: Sequence[tuple[str, str]], folder: str | os.PathLike[str], *, mode: str, name: str
) -> None:
    """Says before a retrieval that clips of it would replace files, as far as names tell.

    Of a clip's name the video and the query are known then; any number may stand for the others.
    What only the results can tell, such as a number added to equal names, :func:`cut_clips` refuses.

    Args:
        pairs: Videos and queries.
        folder: Where the clips go; it need not be there.
        mode: As of :func:`cut_clips`.
        name: As of :func:`cut_clips`.

    Raises:
        InputError: Names the file.
    """
    try:
        there = sorted(os.listdir(folder))
    except OSError:
        return  # there is none, or it is refused elsewhere
    template = Template(name, CLIP_FIELDS)
    for video, query in pairs:
        path = Path(video)
        stem = template.pattern({"video": path.stem, "query": query})
        own = path.suffix.lower()
        kept = mode == "keyframe" and own in itertools.chain(*_KEPT.values())
        suffix = own if kept else ".mkv" if mode == "keyframe" else ".mp4"
        for file in there:
            if file.endswith(suffix) and stem.fullmatch(file.removesuffix(suffix)):
                refuse_existing([Path(folder) / file], [], overwrite=False)


def _suffix(stream: Stream, mode: Mode) -> str:
    if mode == "exact":
        return ".mp4"
    own = Path(stream.video).suffix.lower()
    return own if own in _KEPT.get(stream.container, ()) else ".mkv"


def _frames(stream: Stream, moment: Moment) -> tuple[int, int]:
    """Places of the first frame shown in the moment and of the one after the last."""
    inside = stream.times - stream.times[0] + SLACK
    first = min(int(np.searchsorted(inside, moment.start)), len(inside) - 1)
    return first, max(int(np.searchsorted(inside, moment.end)), first + 1)


def _key(stream: Stream, time: float) -> int:
    """Place of the packet to decode from: the last key frame shown at or before a time."""
    before = [n for n, p in enumerate(stream.packets) if p.key and p.shown <= time + 1e-6]
    return before[-1] if before else 0


def _seek(stream: Stream, key: int, ahead: float) -> float | None:
    """Where to have ffmpeg start to read, on the file's clock; None is its start."""
    time = stream.packets[key].decoded - ahead
    return time if time > stream.start else None


def _gap(stream: Stream) -> float:
    """Seconds from a frame to the next, in the middle of all."""
    return float(np.median(np.diff(stream.times))) if len(stream.times) > 1 else 0.04


def _cut_exact(stream: Stream, moment: Moment, out: Path) -> None:
    first, end = _frames(stream, moment)
    times = stream.times
    begin = float(times[first])
    after = float(times[end]) if end < len(times) else float(times[-1]) + _gap(stream)
    # Between two frames there is room for the rounding of their times.
    low = (float(times[first - 1]) + begin) / 2 if first else begin - 0.5
    high = (float(times[end - 1]) + after) / 2
    picture = (
        f"trim=start={low:.6f}:end={high:.6f},setpts=PTS-STARTPTS,"
        "crop=trunc(iw/2)*2:trunc(ih/2)*2:0:0"
    )
    arguments = [
        "-copyts", "-map", "0:V:0", "-vf", picture, "-frames:v", str(end - first),
        "-c:v", "libx264", "-crf", "18", "-pix_fmt", "yuv420p",
        # A frame rate would move the frames of a variable one.
        passthrough_option(), "passthrough", "-enc_time_base", "-1",
    ]  # fmt: skip
    if stream.sound:
        sound = f"atrim=start={begin:.6f}:end={after:.6f},asetpts=PTS-{begin:.6f}/TB"
        arguments += ["-map", "0:a:0", "-af", sound, "-c:a", "aac", "-b:a", "160k"]
    # Chapters and start timecode are those of the whole video.
    arguments += ["-map_chapters", "-1", "-write_tmcd", "0", "-movflags", "+faststart"]
    run_ffmpeg(stream, _seek(stream, _key(stream, begin), _AHEAD), arguments, out)


def _cut_at_keys(stream: Stream, moment: Moment, out: Path) -> None:
    first, end = _frames(stream, moment)
    packets = stream.packets
    key = _key(stream, float(stream.times[first]))
    last = float(stream.times[end - 1])
    # All frames up to the last, and those that were coded between them but are shown later.
    count = max(n for n, p in enumerate(packets) if p.shown <= last + 1e-6) + 1 - key
    seek = _seek(stream, key, _AHEAD_KEYS) if key else None
    clock = stream.start if seek is None else seek  # what ffmpeg calls 0
    begin, arguments = clock, []
    if key:
        # ffmpeg compares times of decoding, and begins with the first key frame from there on. That
        # is decoded before it is shown: without the offset the clip would start with a hole.
        begin = (packets[key - 1].decoded + packets[key].decoded) / 2
        hole = packets[key].shown - begin
        arguments = ["-ss", f"{begin - clock:.6f}", "-output_ts_offset", f"{-hole:.6f}"]
    arguments += ["-t", f"{last + _gap(stream) - begin:.6f}"]
    arguments += ["-map", "0:V:0", *(["-map", "0:a:0"] if stream.sound else [])]
    arguments += ["-c", "copy", "-frames:v", str(count), "-map_chapters", "-1"]
    run_ffmpeg(stream, seek, arguments, out)
