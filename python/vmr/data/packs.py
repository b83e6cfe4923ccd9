"""Feature packs: what users have on disk for a code base, as the arrays that its loader computes."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterable, Sequence
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import numpy as np

from vmr.data.arrays import StoredArray, open_array
from vmr.data.glove import GloveFile, tokenise
from vmr.data.lines import read_document
from vmr.data.pack_files import PackFiles
from vmr.data.pack_problems import Level, Notice, PackError
from vmr.data.pack_rows import Rows, as_float32, normalised, pool, tef
from vmr.data.pack_spec import TEF, Pack, list_packs, read_pack, ready_packs, unknown_pack
from vmr.data.records import Query
from vmr.errors import InputError, VmrWarning
from vmr.progress import Progress, silent

if TYPE_CHECKING:
    from vmr.data.pack_check import PackCheck

__all__ = ["FeaturePack", "Missing", "list_packs", "load_pack"]

_APART = 2  # rows by which sources of a video may differ: their samplers round differently
_SLACK_ROWS, _SLACK = 2, 0.1  # rows, or part of the duration, by which rows may miss a video's end
_FACTOR = 1.5  # from here on the seconds per row are wrong


_HALF = (
    "numbers are stored in half precision: three digits are kept, and what was above 65504 is not; they "
    "are read as float32. If that matters, extract in float32"
)


class Missing(msgspec.Struct, frozen=True):
    """What a pack lacks.

    Attributes:
        videos: Names of the videos without features.
        queries: qids of the queries without text features.
    """

    videos: tuple[str, ...]
    queries: tuple[int | str, ...]

    def __bool__(self) -> bool:
        """Whether anything is missing."""
        return bool(self.videos or self.queries)


def load_pack(
    pack: str | os.PathLike[str], root: str | os.PathLike[str] | None = None
) -> FeaturePack:
    """Opens a feature pack.

    Args:
        pack: Name of a ready pack (:func:`list_packs`), a YAML file, or a folder that holds pack.yaml.
        root: The folder that the features lie in; None is the YAML's own.

    Raises:
        InputError: There is no such pack or folder, or the YAML is not right.
    """
    if isinstance(pack, str) and pack in ready_packs():
        if root is None:
            raise InputError(f"feature pack {pack}: expected the folder of the features, got none")
        return FeaturePack(ready_packs()[pack], root, name=pack)
    path = Path(pack)
    if path.is_dir():
        path = path / "pack.yaml"
    if not path.is_file() and path.suffix not in (".yaml", ".yml"):
        raise unknown_pack(str(pack))
    return FeaturePack(read_pack(path), path.parent if root is None else root, name=str(path))


class FeaturePack:
    """Features of videos and queries, in the layout of a code base.

    What its loader would pass over in silence is an error or a :class:`vmr.VmrWarning` here; a warning
    of one kind comes at its first video, its tenth, its hundredth and so on. An object may be pickled.

    Args:
        spec: What the pack is.
        root: The folder that the features lie in, or what has them instead of a folder.
        name: For messages.

    Raises:
        InputError: ``root`` holds nothing in the pack's layout.
    """

    def __init__(
        self, spec: Pack, root: str | os.PathLike[str] | PackFiles, *, name: str = "pack"
    ) -> None:
        self.spec = spec
        self.name = name
        self.files = root if isinstance(root, PackFiles) else PackFiles(spec, root, name)
        self._dims = {source: about.dim for source, about in spec.sources.items()}
        self._text_dims = {2: spec.text.dim, 1: spec.text.pooled_width} if spec.text else {}
        self._glove: GloveFile | None = None
        self._told: dict[str, set[str]] = {}
        self._lengths: dict[str, dict[str, int] | str] = {}

    def __repr__(self) -> str:
        return f"FeaturePack({self.name!r}, {str(self.files.folder)!r})"

    # ---- what it holds --------------------------------------------------------------------------------

    @property
    def width(self) -> int:
        """Columns of :meth:`video`, the two of a TEF included.

        Raises:
            InputError: The pack leaves a width open, and no file of that source is there.
        """
        return sum(width for _, width in self.widths)

    @property
    def widths(self) -> tuple[tuple[str, int], ...]:
        """Sources and TEF as :meth:`video` joins them, each with its columns.

        Raises:
            InputError: As :attr:`width`.
        """
        return tuple((name, 2 if name == TEF else self._dim(name)) for name in self.spec.columns)

    @property
    def has_tokens(self) -> bool:
        """Whether :meth:`text` gives tokens of a sentence."""
        text = self.spec.text
        return self.spec.glove is not None or (text is not None and text.key is not None)

    def columns_like(self, wanted: int, source: str | None = None) -> tuple[int, int]:
        """First column and width of the source that lies in the sentence's space.

        Args:
            wanted: Columns of a sentence.
            source: Its name, where more than one may fit.

        Raises:
            InputError: No source, or more than one, fits.
        """
        starts = accumulate((width for _, width in self.widths), initial=0)
        fitting = [
            (name, start, width)
            for (name, width), start in zip(self.widths, starts, strict=False)
            if name != TEF and width == wanted and source in (None, name)
        ]
        if not fitting:
            which = "a source" if source is None else f"the source {source}"
            listed = ", ".join(f"{name} {width}" for name, width in self.widths)
            raise InputError(
                f"{self.name}: expected {which} with the sentence's {wanted} columns, as frames and "
                f"sentences of one CLIP have; the pack has {listed}"
            )
        if len(fitting) > 1:
            names = " and ".join(name for name, _, _ in fitting)
            raise InputError(
                f"{self.name}: {names} are all as wide as the sentence ({wanted}); name one (source)"
            )
        return fitting[0][1:]

    def row_seconds(self, rows: int, duration: float) -> float:
        """Seconds from one row of a video to the next.

        Args:
            rows: Of the video, as :meth:`video` gives them.
            duration: Of the video, s.
        """
        pooled = self.spec.longer == "pool" and rows == self.spec.max_rows
        if self.spec.seconds_per_row is None or pooled:
            return duration / rows
        return self.spec.seconds_per_row

    def missing(self, queries: Iterable[Query]) -> Missing:
        """The videos and queries that the pack has no file of.

        Raises:
            InputError: An HDF5 file is damaged, or h5py is not installed.
        """
        queries = list(queries)
        videos = dict.fromkeys(query.video for query in queries)
        return Missing(
            videos=tuple(vid for vid in videos if not self.files.has_video(vid)),
            queries=tuple(query.qid for query in queries if not self.files.has_text(query)),
        )

    def prepare(self, queries: Iterable[Query]) -> None:
        """Reads the word vectors of all these queries at once; nothing to do without a GloVe file.

        Raises:
            InputError: The GloVe file is missing or is none.
        """
        if self.spec.glove is not None:
            words = {word for query in queries for word in self._words(query)}
            self._glove_file().load(words)

    def check(self, queries: Sequence[Query], progress: Progress = silent) -> PackCheck:
        """Reads everything that the queries need, and says all that is odd about it."""
        from vmr.data.pack_check import check_pack

        return check_pack(self, queries, progress)

    # ---- videos ---------------------------------------------------------------------------------------

    def video(self, vid: str, duration: float | None = None) -> Rows:
        """The features of a video.

        Args:
            vid: The video's name.
            duration: Its length in seconds, to hold the rows against; None leaves that out.

        Returns:
            [rows, width], rows in time, columns as the pack orders them.

        Raises:
            InputError: Files are missing or damaged; an array has another width, none or not finite
                rows; or the rows do not fit the duration.
        """
        return self.read_video(vid, duration, self._warn)[0]

    def read_video(self, vid: str, duration: float | None, notice: Notice) -> tuple[Rows, int]:
        """:meth:`video` with the number of rows before any were cut, and with notices to a caller."""
        # All that headers tell comes first: what does not fit is never unpacked.
        stored = {name: self._opened(name, vid, notice) for name in self.spec.sources}
        totals = {name: min(part.shape[0] for part in parts) for name, parts in stored.items()}
        total = min(totals.values())
        if max(totals.values()) - total > _APART:
            counts = ", ".join(f"{name} {count}" for name, count in totals.items())
            notice(
                "warning",
                "sources apart",
                vid,
                f"its sources differ in rows ({counts}) and are cut to the shortest; were they sampled "
                "at the same rate?",
            )
        if duration is not None:
            self._check_duration(vid, total, duration, notice)
        for name, count in totals.items():
            self._check_length(name, vid, count, notice)
        found = {name: self._rows(name, parts, vid, notice) for name, parts in stored.items()}
        rows = min(map(len, found.values()))
        columns = [tef(rows) if name == TEF else found[name][:rows] for name in self.spec.columns]
        return (columns[0] if len(columns) == 1 else np.concatenate(columns, axis=1)), total

    def _opened(self, name: str, vid: str, notice: Notice) -> list[StoredArray]:
        """One source of a video, or its parts, not read yet."""
        stored = [_table(part, name) for part in self.files.open_video(name, vid)]
        if any(part.dtype == np.float16 for part in stored):
            notice("warning", f"{name} in half precision", vid, _HALF)
        self._check_columns(name, stored)
        counts = [part.shape[0] for part in stored]
        if min(counts) == 0:
            raise PackError.of("empty", f"{stored[0].where}: source {name}: has no rows")
        if max(counts) - min(counts) > _APART:
            notice(
                "warning",
                f"parts of {name} apart",
                vid,
                f"the parts of {name} have {' and '.join(map(str, counts))} rows and are cut to the "
                "shortest; were they sampled at the same rate?",
            )
        return stored

    def _rows(self, name: str, stored: list[StoredArray], vid: str, notice: Notice) -> Rows:
        """A source, cut or pooled and normalised."""
        total = min(part.shape[0] for part in stored)
        most = self.spec.max_rows
        kept = total if most is None or self.spec.longer == "pool" else min(most, total)
        parts = [part.read(kept) for part in stored]
        joined = parts[0] if len(parts) == 1 else np.concatenate(parts, axis=1)
        if most is not None and self.spec.longer == "pool":
            joined = pool(joined, most)
        rows = as_float32(joined, f"{stored[0].where}: source {name}")
        return normalised(rows, self.spec.sources[name].normalise, name, vid, notice)

    def _dim(self, name: str) -> int:
        dim = self._dims[name]
        if dim is None:
            found = self.files.any_video(name)
            if not found:
                fix = (
                    "add its files"
                    if self._is_ready
                    else f"set its `dim` in {self.name}, or add its files"
                )
                raise InputError(f"{self.name}: the width of {name} is not known: {fix}")
            dim = sum(_table(open_array(path, key), name).shape[1] for path, key in found)
            self._dims[name] = dim
        return dim

    @property
    def _is_ready(self) -> bool:
        """Whether the pack is one of vmr's own, which a user does not edit."""
        return ready_packs().get(self.name) == self.spec

    def _check_columns(self, name: str, stored: list[StoredArray]) -> None:
        columns = sum(part.shape[1] for part in stored)
        expected = self._dims[name]
        if expected is None:
            expected = self._dims[name] = columns
        if columns == expected:
            return
        sources = self.spec.sources
        other = next((other for other in sources if sources[other].dim == columns), None)
        if other is not None:
            fix = (
                f"that is the width of the source {other}: its files lie where {name}'s are looked for; "
                + (
                    f"move the files of {name} and {other} into each other's folder"
                    if self._is_ready
                    else f"swap `files` of {name} and {other} in the pack, or the folders"
                )
            )
        elif len(stored) == 1 and stored[0].shape[0] == expected:
            fix = "the array lies on its side; save its transpose"
        elif columns == expected + 2:
            fix = "if the last two are a TEF, save the array without them: vmr adds it"
        elif self._is_ready:
            fix = f"put the right files there, or describe these in a YAML of your own (dim: {columns})"
        else:
            fix = f"name the right files, or set `dim: {columns}` for {name} in the pack"
        shapes = " and ".join(str(list(part.shape)) for part in stored)
        raise PackError.of(
            "width",
            f"{stored[0].where}: source {name}: expected {expected} columns, got {shapes}; {fix}",
        )

    def _check_duration(self, vid: str, total: int, duration: float, notice: Notice) -> None:
        seconds = self.spec.seconds_per_row
        if seconds is None or not duration > 0:
            return
        span = total * seconds
        slack = max(_SLACK_ROWS * seconds, _SLACK * duration)
        # Some packs were cut to max_rows before they were stored.
        if abs(span - duration) <= slack or (total == self.spec.max_rows and span < duration):
            return
        said = (
            f"{total} rows at {seconds:g} s are {span:g} s, and the video has {duration:g} s, which "
            f"would be {duration / total:.3g} s a row; is `seconds_per_row` right?"
        )
        wrong = not duration / _FACTOR < span < duration * _FACTOR
        if wrong and abs(span - duration) > 2 * slack and not self.spec.assumed:
            raise PackError.of("duration", f"{self.name}: video {vid}: {said}")
        notice("warning", "duration", vid, said)

    def _check_length(self, name: str, vid: str, total: int, notice: Notice) -> None:
        """The rows against the file that lists them, where there is one."""
        path = self.files.lengths(name)
        if path is None:
            return
        if name not in self._lengths:
            self._lengths[name] = _read_lengths(path)
        lengths = self._lengths[name]
        if not isinstance(lengths, dict):
            notice("warning", "lengths", vid, f"{path}: is not {{video: rows}}: {lengths}")
        elif vid not in lengths:
            said = "is not in it; the code base that the pack is of leaves such a video out"
            notice("warning", "lengths", vid, f"{path}: video {vid} {said}")
        elif (listed := lengths[vid]) != total:
            said = f"{path}: video {vid} has {total} rows, and by this file {listed}"
            if not listed / _FACTOR <= total <= listed * _FACTOR:
                raise PackError.of("lengths", f"{said}; extract the video again, or mend the file")
            notice("warning", "lengths", vid, said)

    # ---- text -----------------------------------------------------------------------------------------

    def words(self, query: Query) -> tuple[str, ...]:
        """The words that :meth:`text` has a row for, in a pack of word vectors.

        Raises:
            InputError: The pack has no word vectors, or the query no words.
        """
        words = self._words(query)
        if not words:
            raise PackError.of("no words", f"query {query.qid}: expected words, got {query.text!r}")
        return words

    def text(self, query: Query) -> Rows:
        """The tokens of a query: [tokens, dim]; with word vectors, zeros for an unknown word.

        Raises:
            InputError: Files are missing or damaged, or an array has another shape or not finite rows;
                or the pack has pooled text only.
        """
        return self.read_text(query, self._warn)

    def read_text(self, query: Query, notice: Notice) -> Rows:
        """:meth:`text` with notices to a caller."""
        if self.spec.glove is not None:
            return self._glove_file().vectors(self.words(query))
        text = self.spec.text
        if text is None or text.key is None:
            raise InputError(f"{self.name}: has no text tokens")
        return self._text_rows(query, text.key, 2, notice)

    def pooled_text(self, query: Query) -> Rows:
        """A query as one vector: [dim].

        Raises:
            InputError: As :meth:`text`, or the pack has tokens only.
        """
        return self.read_pooled_text(query, self._warn)

    def read_pooled_text(self, query: Query, notice: Notice) -> Rows:
        """:meth:`pooled_text` with notices to a caller."""
        text = self.spec.text
        if text is None or text.pooled_key is None:
            raise InputError(f"{self.name}: has no pooled text")
        row: Rows = self._text_rows(query, text.pooled_key, 1, notice)[0]
        return row

    def _text_rows(self, query: Query, key: str, ndim: int, notice: Notice) -> Rows:
        text = self.spec.text
        assert text is not None
        stored = self.files.open_text(query, key)
        # Some extractors leave the batch axis in.
        shape = stored.shape
        while len(shape) > ndim and shape[0] == 1:
            shape = shape[1:]
        dim = self._text_dims[ndim] or (shape[-1] if shape else 0)
        if len(shape) != ndim or shape[-1] != dim or 0 in shape:
            wanted = f"[tokens, {dim or 'dim'}]" if ndim == 2 else f"[{dim or 'dim'}]"
            message = f"{stored.where}: expected {wanted}, got {list(stored.shape)}"
            raise PackError.of("text shape", message)
        self._text_dims[ndim] = dim
        if stored.dtype == np.float16:
            notice("warning", "text in half precision", str(query.qid), _HALF)
        most = text.max_rows if len(stored.shape) == ndim == 2 else None
        rows = as_float32(stored.read(most).reshape(-1, dim)[: text.max_rows], stored.where)
        name = "text" if ndim == 2 else "pooled text"
        return normalised(rows, text.normalise, name, str(query.qid), notice)

    def _words(self, query: Query) -> tuple[str, ...]:
        glove = self.spec.glove
        if glove is None:
            raise InputError(f"{self.name}: has no word vectors")
        at_blanks = glove.split == "blanks"
        words = tuple(query.text.lower().split()) if at_blanks else tokenise(query.text)
        return words[: glove.max_rows]

    def _glove_file(self) -> GloveFile:
        if self._glove is None:
            assert self.spec.glove is not None
            self._glove = GloveFile(self.files.glove(), self.spec.glove.dim)
        return self._glove

    # ---- what is told ---------------------------------------------------------------------------------

    def _warn(self, level: Level, kind: str, subject: str, message: str) -> None:
        told = self._told.setdefault(kind, set())
        if level != "warning" or subject in told:
            return
        told.add(subject)
        count = len(told)
        if count == 10 ** (len(str(count)) - 1):
            so_far = f" (the {count}th such)" if count > 1 else ""
            warnings.warn(f"{self.name}: {subject}{so_far}: {message}", VmrWarning, stacklevel=5)


def _table(stored: StoredArray, name: str) -> StoredArray:
    """An array of a source, which has rows and columns."""
    if len(stored.shape) != 2:
        message = (
            f"{stored.where}: source {name}: expected [rows, columns], got {list(stored.shape)}"
        )
        raise PackError.of("shape", message)
    return stored


def _read_lengths(path: Path) -> dict[str, int] | str:
    """Rows by video; or what is wrong with the file."""
    try:
        return msgspec.json.decode(read_document(path), type=dict[str, int])
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        return str(error)
