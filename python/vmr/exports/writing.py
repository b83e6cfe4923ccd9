"""Results to files: which formats there are, what the files are called, and that none is lost."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from vmr.errors import BackendError, InputError
from vmr.exports import subtitles
from vmr.exports.edl import edl
from vmr.exports.names import Template, told_apart
from vmr.exports.otio import otio
from vmr.files import make_folder, write_text
from vmr.results import Result, Results, all_of
from vmr.settings import nearest

NAME = "{video}"
"""Default name of the exported files: that of the video, so that players find the subtitles."""

FIELDS: Mapping[str, str] = {"video": "a", "query": "a"}
"""The fields that a name may have, with a sample of each."""


_WRITERS: Mapping[str, Callable[[Results], str]] = {
    "json": lambda results: results.to_json(indent=1) + "\n",
    "csv": lambda results: results.to_csv(),
    "srt": subtitles.srt,
    "vtt": subtitles.vtt,
    "edl": edl,
    "otio": otio,
}
_TABLES = frozenset({"json", "csv"})  # they can hold several videos; the others belong to one

FORMATS = tuple(_WRITERS)
"""The formats; each is the suffix of its files as well."""


def formats_of(text: str) -> list[str]:
    """The names in a text that separates them by commas."""
    return [name for word in text.split(",") if (name := word.strip().lower())]


def check_formats(formats: Sequence[str], *, where: str = "formats") -> None:
    """Says early what :func:`export` could not write.

    Raises:
        InputError: There is none, or one that is not known.
        BackendError: The library of a format is not installed.
    """
    known = ", ".join(FORMATS)
    if not formats:
        raise InputError(f"{where}: expected one or more of {known}; got none")
    for name in formats:
        if name not in _WRITERS:
            raise InputError(
                f"{where}: expected some of {known}; got {name!r}{nearest(name, FORMATS)}"
            )
    if "otio" in formats and importlib.util.find_spec("opentimelineio") is None:
        raise BackendError("opentimelineio is not installed: pip install 'vmr[otio]'")


def planned(
    pairs: Sequence[tuple[str, str]],
    folder: str | os.PathLike[str],
    formats: Sequence[str],
    *,
    name: str = NAME,
    overwrite: bool = False,
    where: str = "name",
) -> list[tuple[Path, str, list[int]]]:
    """The files that :func:`export` will write for these pairs of video and query.

    Returns:
        Of each file its path, its format, and the places of the pairs that go into it.

    Raises:
        InputError: As :func:`export`.
    """
    template = Template(name, FIELDS, where=where)
    files = []
    for kind in dict.fromkeys(formats):
        groups: dict[tuple[str, ...], list[int]] = {}
        apart = template.used if kind in _TABLES else template.used | {"video"}
        for place, (video, query) in enumerate(pairs):
            values = {"video": video, "query": query}
            groups.setdefault(tuple(values[field] for field in sorted(apart)), []).append(place)
        names = [
            template.render({"video": Path(pairs[group[0]][0]).stem, "query": pairs[group[0]][1]})
            for group in groups.values()
        ]
        for stem, group in zip(told_apart(names), groups.values(), strict=True):
            files.append((Path(folder) / f"{stem}.{kind}", kind, group))
    refuse_existing([path for path, _, _ in files], [v for v, _ in pairs], overwrite=overwrite)
    return files


def refuse_existing(paths: Sequence[Path], videos: Sequence[str], *, overwrite: bool) -> None:
    """Refuses to write where a file is already; over one of the videos in any case.

    Raises:
        InputError: Names the file.
    """
    sources = {os.path.realpath(video) for video in videos}
    for path in paths:
        if os.path.realpath(path) in sources:
            raise InputError(f"{path}: would be written over the video itself; choose another name")
        if path.is_dir() or (path.exists() and not overwrite):
            raise InputError(
                f"{path} exists already; choose another folder or name, or replace it with "
                "--overwrite (in Python: overwrite=True)"
            )


def export(
    results: Result | Sequence[Result],
    folder: str | os.PathLike[str],
    formats: str | Sequence[str],
    *,
    name: str = NAME,
    overwrite: bool = False,
) -> list[Path]:
    """Writes results for players, editors and tables: a file a video and format.

    Subtitles (srt, vtt), edit lists (edl) and timelines (otio) belong to one video and hold all of its
    moments in the order of time. A name with ``{query}`` gives a file a query. A table (json, csv) whose
    name has no ``{video}`` holds all videos. Files that would get the same name are numbered: ``-2``.

    Args:
        results: What a retrieval gave, all or some of it, or one.
        folder: Where the files go; made where it is missing.
        formats: Some of :data:`FORMATS`, as a list or separated by commas.
        name: Template of the file names, without suffix, of text and the fields ``{video}`` (the name of
            its file without suffix) and ``{query}``; both can have formats, as in ``{query:.30}``.
        overwrite: If files that are there are replaced.

    Returns:
        The files, by format and then as the results came.

    Raises:
        InputError: A format or a field is not known, or a file is there already. Nothing is written.
        BackendError: The library of a format is not installed. Nothing is written.
        VideoError: A video cannot be read that is asked for its frame rate (edl, otio). Nothing is
            written.
        CacheError: A file cannot be written.
    """
    formats = formats_of(formats) if isinstance(formats, str) else list(formats)
    check_formats(formats)
    results = all_of(results, "export")
    pairs = [(result.video, result.query) for result in results]
    files = planned(pairs, folder, formats, name=name, overwrite=overwrite)
    texts = []
    for _, kind, group in files:
        part = [results[place] for place in group]
        texts.append(
            _WRITERS[kind](Results(part, backends=results.backends, timings=results.timings))
        )
    make_folder(Path(folder))
    for (path, _, _), text in zip(files, texts, strict=True):
        # A file name that is no UTF-8 comes as lone surrogates, which no text file can hold.
        write_text(path, text.encode(errors="replace").decode())
    return [path for path, _, _ in files]
