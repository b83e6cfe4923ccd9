"""Which videos a run is about, and where they are."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from vmr.data.records import Query
from vmr.errors import InputError, VmrWarning

_SUFFIXES = frozenset(
    {".3gp", ".avi", ".flv", ".m4v", ".mkv", ".mov", ".mp4"}
    | {".mpeg", ".mpg", ".ogv", ".ts", ".webm", ".wmv"}
)


class Shard(NamedTuple):
    """One of the parts that a benchmark is cut into: the ``number``-th (from 1) of ``of``."""

    number: int = 1
    of: int = 1

    @classmethod
    def parse(cls, text: str) -> Shard:
        """From ``1/8``.

        Raises:
            InputError: It is not of that form.
        """
        number, _, of = text.partition("/")
        if not (number.isdecimal() and of.isdecimal() and 1 <= int(number) <= int(of)):
            raise InputError(f"shard: expected I/N with I from 1 to N, such as 1/8, got {text!r}")
        return cls(int(number), int(of))

    def name(self, path: Path) -> Path:
        """The shard's own file: ``val.1-of-8.jsonl`` for ``val.jsonl``."""
        if self.of == 1:
            return path
        return path.with_name(f"{path.stem}.{self.number}-of-{self.of}{path.suffix}")

    def part(self, queries: Sequence[Query]) -> list[Query]:
        """Its queries: those of every ``of``-th video, so that a video is looked at in one shard."""
        videos = list(dict.fromkeys(query.video for query in queries))
        own = set(videos[self.number - 1 :: self.of])
        return [query for query in queries if query.video in own]

    def __str__(self) -> str:
        return f"{self.number}/{self.of}"


def find_videos(
    folder: str | os.PathLike[str], queries: Sequence[Query], *, skip_missing: bool = False
) -> dict[str, Path]:
    """The files of the videos that queries are about, by the videos' names.

    Args:
        folder: Looked through with all that is below; a file is named as its video, whatever its suffix.
        queries: Of an annotation file.
        skip_missing: Leave out what is not there, with a warning.

    Raises:
        InputError: There is no such folder, a video is missing, or two files have its name.
    """
    root = Path(folder)
    if not root.is_dir():
        raise InputError(f"videos: expected a folder, got {os.fspath(folder)!r}")
    wanted = dict.fromkeys(query.video for query in queries)
    found: dict[str, Path] = {}
    for path in _files(root):
        if path.suffix.lower() not in _SUFFIXES:
            continue
        if path.stem in wanted and path.is_file():
            other = found.setdefault(path.stem, path)
            if other != path:
                raise InputError(
                    f"videos: two files are named as {path.stem!r}: {other} and {path}"
                )
    missing = [video for video in wanted if video not in found]
    if missing:
        some = ", ".join(missing[:3]) + (", ..." if len(missing) > 3 else "")
        said = f"{root}: {len(missing)} of {len(wanted)} videos are not there: {some}"
        if not skip_missing:
            raise InputError(f"{said}; skip_missing (--skip-missing) leaves them out")
        warnings.warn(f"{said}; their queries are left out", VmrWarning, stacklevel=2)
    return found


def _files(root: Path) -> Iterator[Path]:
    """All files below a folder, through links to folders too, each folder once."""
    entered: set[Path] = set()
    for folder, inner, names in os.walk(root, followlinks=True):
        real = Path(folder).resolve()
        if real in entered:
            inner.clear()
            continue
        entered.add(real)
        inner.sort()
        yield from (Path(folder, name) for name in sorted(names))
