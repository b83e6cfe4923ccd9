"""Annotations by video: ActivityNet Captions, Charades-CD and TACoS json, Charades-STA txt."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from typing import Any

import msgspec
from msgspec import UNSET, UnsetType

from vmr.data.layouts import (
    NOT_DECODED,
    Kind,
    RecordError,
    UnknownLayoutError,
    Windows,
    check_video,
    refuse_nonfinite,
)
from vmr.data.lines import (
    decode_json,
    decode_text,
    lowered,
    read_document,
    read_lines,
    refuse_repeated_keys,
)
from vmr.data.records import Query
from vmr.errors import InputError


class _Video(msgspec.Struct):
    timestamps: Windows | UnsetType = UNSET
    sentences: tuple[str, ...] | UnsetType = UNSET
    duration: float | UnsetType = UNSET
    video_duration: float | UnsetType = UNSET
    num_frames: float | UnsetType = UNSET
    fps: float | UnsetType = UNSET


class _Length(msgspec.Struct):
    duration: float


class _NoAnnotationsError(RecordError):
    """The first video says that the file is another."""


_OBJECT = msgspec.json.Decoder(dict[str, Any])
_VIDEOS = msgspec.json.Decoder(dict[str, _Video])
_LENGTHS = msgspec.json.Decoder(dict[str, float | _Length])


def read_videos(path: str | os.PathLike[str]) -> tuple[Kind, list[Query]]:
    """A file in the ActivityNet Captions, Charades-CD or TACoS layout, told by its first video."""
    raw = read_document(path)
    try:
        videos = _VIDEOS.decode(raw)
    except NOT_DECODED:
        videos = _decode_videos_slowly(raw, path)
    if raw.count(b'"timestamps"') != len(videos):
        refuse_repeated_keys(raw, str(path))
    kind: Kind | None = None
    queries: list[Query] = []
    name = ""
    try:
        for name, video in videos.items():
            found = _kind_of_video(video) if kind else _first_kind(video)
            kind = kind or found
            if found != kind:
                raise RecordError(f"is in the layout of {found}, the first video in that of {kind}")
            _add_queries(queries, name, video, found)
    except _NoAnnotationsError as error:
        raise UnknownLayoutError(f"{path}, video {name!r}: {error}") from None
    except RecordError as error:
        raise InputError(f"{path}, video {name!r}: {error}") from None
    if kind is None or not queries:
        raise InputError(f"{path}: holds no queries")
    return kind, queries


def _kind_of_video(video: _Video) -> Kind:
    if video.timestamps is not UNSET and video.sentences is not UNSET:
        if video.video_duration is not UNSET:
            return "charades-cd"
        # Times are seconds where the duration is, whatever else the file tells of the video.
        if video.duration is not UNSET:
            return "activitynet"
        if video.num_frames is not UNSET and video.fps is not UNSET:
            return "tacos"
    has = [key for key in video.__struct_fields__ if getattr(video, key) is not UNSET]
    raise RecordError(
        "expected timestamps and sentences, and duration, video_duration, or num_frames and fps; "
        f"of these there are {', '.join(has) or 'none'}"
    )


def _first_kind(video: _Video) -> Kind:
    """What the first video says about the file."""
    if video.timestamps is UNSET and video.sentences is UNSET and video.duration is not UNSET:
        raise _NoAnnotationsError(
            "has a duration but no sentences: the file gives durations (as charades.json does), for "
            "durations= or --durations when a Charades-STA txt is read"
        )
    try:
        return _kind_of_video(video)
    except RecordError as error:
        raise _NoAnnotationsError(str(error)) from None


def _add_queries(queries: list[Query], name: str, video: _Video, kind: Kind) -> None:
    windows, sentences = video.timestamps, video.sentences
    assert windows is not UNSET
    assert sentences is not UNSET
    if len(windows) != len(sentences):
        raise RecordError(f"has {len(windows)} timestamps and {len(sentences)} sentences")
    seconds = video.video_duration if kind == "charades-cd" else video.duration
    if kind == "tacos":
        name = name.removesuffix(".avi")
        seconds, windows = _seconds_of_frames(video, windows)
    assert seconds is not UNSET
    check_video(name, seconds)
    line = len(queries)
    for place, (window, text) in enumerate(zip(windows, sentences, strict=True)):
        line += 1
        queries.append(
            Query(
                qid=f"{name}_{place}",
                video=name,
                text=text.strip(),
                duration=seconds,
                windows=(window,),
                line=line,
            )
        )


def _seconds_of_frames(video: _Video, windows: Windows) -> tuple[float, Windows]:
    frames, rate = video.num_frames, video.fps
    assert frames is not UNSET
    assert rate is not UNSET
    if not rate > 0:
        raise RecordError(f"fps: expected above 0, got {rate:g}")
    numbers = [number / rate for window in windows for number in window]
    if not all(map(math.isfinite, numbers)):
        raise RecordError(f"fps: {rate:g} frames a second make times without end")
    return frames / rate, tuple(zip(numbers[::2], numbers[1::2], strict=True))


def _decode_videos_slowly(raw: bytes, path: str | os.PathLike[str]) -> dict[str, _Video]:
    """Video by video, so that an error can name the one it is in."""
    videos = {}
    try:
        found = decode_json(raw, _OBJECT, str(path))
    except InputError as error:
        if b'"timestamps"' in raw:
            raise
        raise UnknownLayoutError(str(error)) from None
    first = next(iter(found.values()), None)
    if not (isinstance(first, dict) and {"timestamps", "sentences"} & set(first)):
        raise UnknownLayoutError(
            f"{path}: is one JSON object; expected videos with timestamps and sentences in it, and "
            f"the first key is {next(iter(found), '')!r:.40}"
        )
    for name, value in found.items():
        try:
            videos[name] = msgspec.convert(value, _Video)
            refuse_nonfinite(videos[name])
        except msgspec.ValidationError as error:
            raise InputError(f"{path}, video {name!r}: {lowered(str(error))}") from None
        except RecordError as error:
            raise InputError(f"{path}, video {name!r}: {error}") from None
    return videos


def read_txt(
    path: str | os.PathLike[str], durations: Mapping[str, float], source: str
) -> list[Query]:
    """Lines of ``VIDEO START END##SENTENCE``; ``source`` names where the durations are from."""
    queries: list[Query] = []
    counts: dict[str, int] = {}
    number = 0
    try:
        for number, raw in read_lines(path):
            line = decode_text(raw, f"{path}, line {number}")
            video, window, text = _parse_txt(line)
            if video not in durations:
                raise RecordError(f"no duration of the video {video!r} in {source}")
            seconds = durations[video]
            check_video(video, seconds)
            place = counts.get(video, 0)
            counts[video] = place + 1
            queries.append(
                Query(
                    qid=f"{video}_{place}",
                    video=video,
                    text=text.strip(),
                    duration=seconds,
                    windows=(window,),
                    line=number,
                )
            )
    except RecordError as error:
        raise InputError(f"{path}, line {number}: {error}") from None
    return queries


def _parse_txt(line: str) -> tuple[str, tuple[float, float], str]:
    head, mark, text = line.partition("##")
    try:
        video, start, end = head.split()
        window = float(start), float(end)
    except ValueError:
        window = math.nan, math.nan
    if not (mark and math.isfinite(window[0]) and math.isfinite(window[1])):
        raise RecordError(
            f"expected VIDEO START END##SENTENCE with times in seconds, got {line[:80]!r}"
        )
    return video, window, text


def read_lengths(path: str | os.PathLike[str]) -> dict[str, float]:
    """Seconds by video, of an object of numbers or of objects with a ``duration``."""
    raw = read_document(path)
    lengths = {}
    values = decode_json(raw, _LENGTHS, str(path))
    if len(values) not in (raw.count(b":"), raw.count(b'"duration"')):
        refuse_repeated_keys(raw, str(path))
    for name, value in values.items():
        seconds = value.duration if isinstance(value, _Length) else value
        try:
            check_video(name, seconds)
        except RecordError as error:
            raise InputError(f"{path}, video {name!r}: {error}") from None
        lengths[name] = seconds
    if not lengths:
        raise InputError(f"{path}: holds no durations")
    return lengths
