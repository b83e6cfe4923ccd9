"""A run as one HTML page: its videos, queries and moments, to look at and to play."""

from __future__ import annotations

import base64
import hashlib
import importlib.resources
import json
import os
import shlex
from collections.abc import Iterable, Sequence
from pathlib import Path
from string import Template
from typing import Any
from urllib.parse import quote

import numpy as np
from numpy.typing import NDArray

from vmr.errors import VideoError
from vmr.files import write_text
from vmr.results import Result, all_of
from vmr.video.frames import jpeg
from vmr.viz.timeline import key_frames, pictures_at

_SHORT_SIDE = 144  # pixels of a key frame
_QUALITY = 78  # of its JPEG
_MAX_PICTURES = 24  # a query; further moments are listed without


def save_page(results: Result | Sequence[Result], path: str | os.PathLike[str]) -> None:
    """Writes one HTML page that shows a run: its queries, their moments and score curves.

    The page is opened as a file, without a server or a network: it holds everything but the videos,
    to which it points relative to its own folder. A video that can no longer be read here is shown
    without key frames. A page that is there is replaced without a question: it can be made again.

    Args:
        results: Of any system, one or several; their videos are looked for where they are named.
        path: Of the page, or of the one to replace.

    Raises:
        InputError: What is given are no results.
        CacheError: The page cannot be written.
    """
    results = all_of(results, "save_page")
    folder = Path(path).absolute().parent
    by_video: dict[str, list[Result]] = {}
    for result in results:
        by_video.setdefault(result.video, []).append(result)
    names = [Path(video).name for video in by_video]
    pictures = {video: _pictures(video, found) for video, found in by_video.items()}
    videos = {
        video: {
            # Two videos of one name are told apart by the way to them.
            "title": name if names.count(name) == 1 else video,
            "shape": _shape(pictures[video].values()),
            **_address(video, folder),
        }
        for video, name in zip(by_video, names, strict=True)
    }
    uris = {
        video: {time: _data_uri(picture) for time, picture in found.items()}
        for video, found in pictures.items()
    }
    keys = [
        [
            {"time": round(time, 3), "picture": uris[result.video].get(time)}
            for time in key_frames(result)
        ]
        for result in results
    ]
    style, script = _asset("page.css"), _asset("page.js")
    text = Template(_asset("page.html")).substitute(
        policy=_policy(style, script),
        style=style,
        script=script,
        results=_embedded(results.to_dict()),
        page=_embedded({"videos": videos, "keys": keys}),
    )
    write_text(path, text)


def _asset(name: str) -> str:
    file = importlib.resources.files("vmr.viz").joinpath(name)
    return file.read_text(encoding="utf-8")


def _policy(style: str, script: str) -> str:
    """A content security policy: this style, this script, pictures inside the page, local videos."""

    def digest(text: str) -> str:
        return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()

    return (
        f"default-src 'none'; style-src 'sha256-{digest(style)}'; "
        f"script-src 'sha256-{digest(script)}'; img-src data:; media-src 'self' file: blob:; "
        "base-uri 'none'; form-action 'none'"
    )


def _embedded(document: Any) -> str:
    """JSON that stands in a script element whatever its texts hold."""
    text = json.dumps(document, allow_nan=False, separators=(",", ":"))  # ASCII: no line separators
    return text.replace("<", r"\u003c")  # neither an end tag nor a comment can begin


def _address(video: str, folder: Path) -> dict[str, str]:
    """Where a video is, seen from the page's folder, and how to make a copy that plays."""
    relative = os.path.relpath(Path(video).absolute(), folder)
    if not relative.startswith(os.pardir + os.sep):
        relative = os.path.join(os.curdir, relative)  # neither an option nor a protocol to ffmpeg
    copy = f"{os.path.splitext(relative)[0]}.h264.mp4"
    even = "pad=ceil(iw/2)*2:ceil(ih/2)*2"  # H.264 needs even sides
    command = [
        "ffmpeg", "-i", relative, "-c:v", "libx264", "-pix_fmt", "yuv420p", "-vf", even,
        "-movflags", "+faststart", copy,
    ]  # fmt: skip
    url = quote(os.fsencode(relative))
    return {"url": url, "path": relative, "command": shlex.join(command)}


def _pictures(video: str, results: Sequence[Result]) -> dict[float, NDArray[np.uint8]]:
    """Key frames of all these results by time (s); none where the video is gone."""
    times = [time for result in results for time in key_frames(result)[:_MAX_PICTURES]]
    if not times:
        return {}
    try:
        return pictures_at(video, times, _SHORT_SIDE)
    except VideoError:
        return {}


def _shape(pictures: Iterable[NDArray[np.uint8]]) -> float:
    """Width over height of the pictures of a video; 16 / 9 where there is none."""
    for picture in pictures:
        height, width = picture.shape[:2]
        return round(float(width / height), 4)
    return 16 / 9


def _data_uri(picture: NDArray[np.uint8]) -> str:
    return "data:image/jpeg;base64," + base64.b64encode(jpeg(picture, _QUALITY)).decode()
