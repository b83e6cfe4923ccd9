"""What is odd about annotations: counted, and where it stands."""

from __future__ import annotations

import os
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from vmr.data.annotations import Queries
from vmr.data.layouts import Kind
from vmr.data.records import Place, Query

if TYPE_CHECKING:
    from vmr.data.packs import FeaturePack

# Seconds that an end may lie behind the duration: durations are sums and products of rounded numbers.
TOLERANCE = 1e-6
# Places that are kept of each quirk.
PLACES = 3
_FILE_ENDS = (".mp4", ".avi", ".mkv", ".webm", ".mov")
_MEANINGS = {
    "reversed": "windows that end before they start",
    "zero_length": "windows of no length",
    "negative": "windows that start before the video (below 0 s)",
    "start_after_end": "windows that start after the end of the video",
    "end_after_end": "windows that end after the end of the video",
    "overlapping": "queries with windows that overlap one another",
    "unsorted": "queries with windows that are not in the order of their starts",
    "no_windows": "queries with an empty list of windows",
    "repeated": "queries that repeat an earlier one (same video, text and windows)",
    "empty_text": "queries without text",
    "repeated_clips": "queries that score a clip twice (relevant_clip_ids)",
    "file_names": "queries whose video's name ends like a file's (.mp4, .avi, .mkv, .webm, .mov)",
    "durations_differ": "queries that give another duration than an earlier one of the same video",
    "missing_video": "queries whose video has no features in the pack",
    "missing_text": "queries that have no text features in the pack",
}


class Quirk(msgspec.Struct, frozen=True):
    """One kind of oddity in a file.

    Attributes:
        name: A short name, the same in all versions.
        meaning: What it is, in words.
        count: How many windows or queries have it.
        places: The first few.
    """

    name: str
    meaning: str
    count: int
    places: tuple[Place, ...]


class Check(msgspec.Struct, frozen=True):
    """What a file of annotations holds.

    Attributes:
        path: The file.
        kind: Name of its layout.
        queries: Number of queries.
        videos: Number of videos that they are about.
        windows: Number of ground-truth windows.
        without_windows: Number of queries that come without ground truth (a test split).
        with_saliency: Number of queries with scores of clips.
        quirks: What is odd; empty for a clean file.
    """

    path: str
    kind: Kind
    queries: int
    videos: int
    windows: int
    without_windows: int
    with_saliency: int
    quirks: tuple[Quirk, ...]


def check_queries(queries: Queries, pack: FeaturePack | None = None) -> Check:
    """Counts what annotations hold and what is odd about them.

    Reversed windows count for nothing else but ``reversed``, so what they would mean is not guessed; a
    window that starts after the end of the video also ends after it, and counts for both. Ends up to a
    microsecond behind the duration are rounding, not a quirk.

    Args:
        queries: A file's queries.
        pack: Where their features should be; whether they are there is looked up, they are not read
            (:meth:`vmr.FeaturePack.check` does that).

    Raises:
        InputError: The pack's HDF5 file is damaged, or h5py is not installed.
    """
    counts = dict.fromkeys(_MEANINGS, 0)
    places: dict[str, list[Place]] = {name: [] for name in _MEANINGS}
    seen: set[object] = set()
    durations: dict[str, float] = {}
    missing = pack.missing(queries) if pack is not None else None
    videos = set(missing.videos if missing else ())
    texts = set(missing.queries if missing else ())
    for query in queries:
        found = list(_quirks_of(query))
        if query.video in videos:
            found.append("missing_video")
        if query.qid in texts:
            found.append("missing_text")
        key = (query.video, query.text, query.windows)
        if key in seen:
            found.append("repeated")
        seen.add(key)
        if durations.setdefault(query.video, query.duration) != query.duration:
            found.append("durations_differ")
        for name in found:
            counts[name] += 1
            kept = places[name]
            place = Place(query.line, query.qid)
            if len(kept) < PLACES and place not in kept:
                kept.append(place)
    return Check(
        path=os.fspath(queries.path),
        kind=queries.kind,
        queries=len(queries),
        videos=len(durations),
        windows=sum(len(query.windows or ()) for query in queries),
        without_windows=sum(query.windows is None for query in queries),
        with_saliency=sum(query.saliency is not None for query in queries),
        quirks=tuple(
            Quirk(name, meaning, counts[name], tuple(places[name]))
            for name, meaning in _MEANINGS.items()
            if counts[name]
        ),
    )


def _quirks_of(query: Query) -> Iterator[str]:
    """The names of what is odd about one query; for windows one a window."""
    if not query.text:
        yield "empty_text"
    if query.video.lower().endswith(_FILE_ENDS):
        yield "file_names"
    saliency = query.saliency
    if saliency is not None and len(set(saliency.clip_ids)) < len(saliency.clip_ids):
        yield "repeated_clips"
    if query.windows is None:
        return
    if not query.windows:
        yield "no_windows"
    latest = query.duration + TOLERANCE
    for start, end in query.windows:
        if start > end:
            yield "reversed"
            continue
        if start == end:
            yield "zero_length"
        if start < 0:
            yield "negative"
        if start > latest:
            yield "start_after_end"
        if end > latest:
            yield "end_after_end"
    if len(query.windows) > 1:
        ordered = sorted(window for window in query.windows if window[0] <= window[1])
        if any(after[0] < before[1] for before, after in pairwise(ordered)):
            yield "overlapping"
        starts = [window[0] for window in query.windows]
        if starts != sorted(starts):
            yield "unsorted"


def annotation_files(path: str | os.PathLike[str]) -> list[Path]:
    """The files of a folder, at any depth, that may hold annotations (.jsonl, .json, .txt), sorted."""
    return sorted(
        found
        for found in Path(path).rglob("*")
        if found.suffix in {".jsonl", ".json", ".txt"} and found.is_file()
    )
