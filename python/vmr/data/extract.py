"""Videos and queries -> a feature pack in the layout that the field's loaders read."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

import msgspec
import numpy as np
import yaml

from vmr.backends import Encoder, Reopenable, SentenceEncoder
from vmr.data.arrays import open_array
from vmr.data.pack_spec import Pack, Source, Text, fill, read_pack
from vmr.data.records import Query
from vmr.encoding import EncodedTexts, encode_texts, encode_video
from vmr.errors import CacheError, InputError, VideoError, VmrWarning
from vmr.files import atomic_path, write_text
from vmr.progress import Progress, silent

_BATCH = 64  # queries that are read at once
_VIDEO = "video/{vid}.npz"
_TEXT = "text/qid{qid}.npz"
_LONGEST_NAME = 255  # bytes of a file's name, on nearly all file systems


class Extraction(msgspec.Struct, frozen=True):
    """What :func:`extract` did.

    Attributes:
        pack: The pack's YAML, which is there once something was written.
        written, skipped: Files of videos and queries, made now or before.
        failed: Message by video, of those that could not be read.
        exit_code: Of the last failure; 0 where there was none.
    """

    pack: str
    written: tuple[str, ...]
    skipped: tuple[str, ...]
    failed: dict[str, str]
    exit_code: int


def extract(
    videos: Sequence[str | os.PathLike[str]],
    out: str | os.PathLike[str],
    *,
    encoder: Encoder,
    every: float = 2.0,
    queries: Sequence[Query] = (),
    sentence_encoder: SentenceEncoder | None = None,
    progress: Callable[[str], Progress] = lambda video: silent,
) -> Extraction:
    """Writes a feature pack: video/{vid}.npz, text/qid{qid}.npz, and pack.yaml that describes them.

    A file that is there already is kept, so that a run that was stopped goes on; each is whole or not
    there. A video's name is its file name up to the last dot. The pack says which encoders made it, so
    that a model that is trained on it can be asked about further videos (:class:`vmr.Retriever`).

    A query has its vector as "pooler_output" and, where the encoder gives them, its tokens' last hidden
    states as "last_hidden_state". The image-text encoder's own vectors lie in the space of the frames,
    so that a cosine compares both, as a model with :attr:`MomentModel.wants_pooled` needs it; its
    tokens do not, and may be of another width.

    Args:
        videos: Files, of different names.
        out: The pack's folder; it is made.
        encoder: What sees the frames.
        every: Seconds a row; a row is the frame in the middle of them.
        queries: Whose text features are wanted too; those about other videos than the given ones and
            those that the pack has already are left out, with a :class:`vmr.VmrWarning`.
        sentence_encoder: What reads the queries; None is the encoder itself.
        progress: Gives what is told how far a video is.

    Raises:
        InputError: The folder holds features of other settings, other videos or other queries of the
            same name, or something that is no pack; two videos have one name; no query is about a video
            of the pack; a name cannot be a file's; or ``every`` makes more than a million rows.
        CacheError: A file cannot be written.
    """
    folder = Path(out)
    paths = _by_name([Path(video) for video in videos])
    made: dict[str, str | float] = {"encoder": encoder.name, "every": every}
    opened: dict[str, object] = {"encoder_spec": encoder}
    reads: Encoder | SentenceEncoder | None = None
    if queries:
        reads = encoder if sentence_encoder is None else sentence_encoder
        made["sentence_encoder"] = reads.name
        opened["sentence_encoder_spec"] = reads
    work = _Folder(folder, made, opened)
    # Before hours of work: what could not be written in the end.
    for vid in paths:
        _check_file_name("video", _VIDEO, vid=vid)
    if reads is not None:
        queries = work.about_its_videos(queries, paths)
        for query in queries:
            _check_file_name("query", _TEXT, qid=query.qid)
    failed: dict[str, str] = {}
    code = 0
    for vid, path in paths.items():
        try:
            work.video(vid, path, encoder, progress(path.name))
        except VideoError as error:
            failed[str(path)], code = str(error), error.exit_code
    if reads is not None:
        show = progress("queries")
        for begin in range(0, len(queries), _BATCH):
            work.queries(queries[begin : begin + _BATCH], reads)
            show("embed", min(begin + _BATCH, len(queries)), len(queries))
    return Extraction(str(work.yaml), tuple(work.written), tuple(work.skipped), failed, code)


class _Folder:
    """A pack that is being written.

    Args:
        folder: Its place.
        made: What must be the same for all of it.
        opened: Models by the key under which the pack says what opens them again, where they know it.
    """

    def __init__(
        self, folder: Path, made: dict[str, str | float], opened: Mapping[str, object]
    ) -> None:
        self.folder = folder
        self.yaml = folder / "pack.yaml"
        self.written: list[str] = []
        self.skipped: list[str] = []
        self._made = made
        self._opened = {
            key: model.spec for key, model in opened.items() if isinstance(model, Reopenable)
        }
        self._spec = self._claimed(made)

    def _claimed(self, made: Mapping[str, str | float]) -> Pack | None:
        """Checks what is there, before any work is done; the pack that was begun, if one was."""
        if not self.yaml.is_file():
            if self.folder.is_dir() and any(self.folder.iterdir()):
                raise InputError(
                    f"{self.folder}: is not empty and holds no pack.yaml; name another folder"
                )
            return None
        spec = read_pack(self.yaml)
        # Text may be added later, and videos without the queries.
        for name, value in made.items():
            there = spec.made.get(name, value)
            if there != value:
                raise InputError(
                    f"{self.folder}: holds features with {name} {there!r}, and {value!r} is asked for; "
                    "name another folder"
                )
        if spec.made.get("encoder") is None:
            raise InputError(
                f"{self.yaml}: was not made by vmr features extract; name another folder"
            )
        return spec

    def about_its_videos(
        self, queries: Sequence[Query], given: Mapping[str, Path]
    ) -> Sequence[Query]:
        """The queries whose video is given now or was extracted before."""
        there = {path.stem for path in (self.folder / _VIDEO).parent.glob("[!.]*.npz")} | set(given)
        about = [query for query in queries if query.video in there]
        if not about:
            raise InputError(
                f"none of the {len(queries)} queries is about a video of this pack: they are about "
                f"{queries[0].video!r} and so on, and the pack has {min(there)!r} and so on"
            )
        if len(about) < len(queries):
            warnings.warn(
                f"{len(about)} of {len(queries)} queries are about videos of this pack; the others are "
                "left out",
                VmrWarning,
                stacklevel=3,
            )
        return about

    def video(self, vid: str, path: Path, encoder: Encoder, progress: Progress) -> None:
        target = self.folder / fill(_VIDEO, vid=vid)
        size = _size(path)
        if target.exists():
            if int(open_array(target, "source_bytes").read()[()]) != size:
                self._refuse(target, f"another video than {path}")
            self.skipped.append(str(target))
            return
        features = encode_video(
            path, encoder, float(self._made["every"]), progress=progress
        ).features
        self._describe(dim=features.shape[1])
        self._save(target, features=features, source_bytes=np.int64(size))

    def queries(self, queries: Sequence[Query], reads: Encoder | SentenceEncoder) -> None:
        new: list[tuple[Path, Query]] = []
        for query in queries:
            target = self.folder / fill(_TEXT, qid=query.qid)
            if target.exists():
                if not np.array_equal(open_array(target, "query_utf8").read(), _utf8(query)):
                    self._refuse(target, f"another query than {query.text!r}")
                self.skipped.append(str(target))
            else:
                new.append((target, query))
        if not new:
            return
        found = encode_texts(reads, [query.text for _, query in new])
        self._describe(text=text_of(found))
        for place, (target, query) in enumerate(new):
            self._save(target, **found.arrays(place), query_utf8=_utf8(query))

    def _describe(self, dim: int | None = None, text: Text | None = None) -> None:
        """Writes pack.yaml before the first file that it describes."""
        spec = self._spec or pack_of(float(self._made["every"]))
        source = spec.sources["video"]
        if dim is not None:
            source = msgspec.structs.replace(source, dim=dim)
        made = {**spec.made, **self._made, **self._opened}
        new = msgspec.structs.replace(
            spec, sources={"video": source}, text=text or spec.text, made=made
        )
        if new != self._spec:
            self._make(self.folder)
            raw = {"version": new.version, **msgspec.to_builtins(new)}
            write_text(self.yaml, yaml.safe_dump(raw, sort_keys=False, width=100))
            self._spec = new

    def _save(self, target: Path, **arrays: Any) -> None:
        self._make(target.parent)
        with atomic_path(target) as temporary, temporary.open("wb") as file:
            # Stored, not deflated: features hardly shrink, and stored ones are mapped.
            np.savez(file, **arrays)
        self.written.append(str(target))

    @staticmethod
    def _make(folder: Path) -> None:
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise CacheError(f"{folder}: cannot be made: {error.strerror}") from error

    @staticmethod
    def _refuse(target: Path, other: str) -> NoReturn:
        raise InputError(
            f"{target}: was made from {other}; name another folder, or remove the file"
        )


def pack_of(every: float) -> Pack:
    """What :func:`extract` writes, before its widths are known."""
    return Pack(
        about="Made by vmr features extract",
        columns=("video", "tef"),
        sources={"video": Source(files=(_VIDEO,), normalise="already")},
        seconds_per_row=every,
    )


def text_of(found: EncodedTexts) -> Text:
    """What it writes of queries."""
    dim = found.pooled.shape[1]
    if found.tokens is None:
        return Text(files=(_TEXT,), key=None, dim=dim, normalise="already")
    # A sentence's vector has length 1 already, its tokens' states have any.
    width = found.tokens[0].shape[1]
    return Text(files=(_TEXT,), dim=width, pooled_dim=dim if dim != width else None)


def _utf8(query: Query) -> Any:
    return np.frombuffer(query.text.encode(), dtype=np.uint8)


def _by_name(paths: list[Path]) -> dict[str, Path]:
    named: dict[str, Path] = {}
    for path in paths:
        other = named.setdefault(path.stem, path)
        if other != path:
            raise InputError(
                f"expected videos of different names, got {other} and {path}: a pack knows both as "
                f"{path.stem}"
            )
    return named


def _check_file_name(what: str, template: str, **names: str | int) -> None:
    """Raises an InputError for what would make a folder, or no file."""
    ((_, name),) = names.items()
    wrong = None
    if "/" in str(name):
        wrong = "has a slash"
    elif (size := len(os.fsencode(Path(fill(template, **names)).name))) > _LONGEST_NAME:
        wrong = f"makes a file name of {size} bytes, above {_LONGEST_NAME}"
    if wrong:
        raise InputError(f"{what} {name!r:.80}: cannot be the name of a file: {wrong}")


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError as error:
        raise VideoError(f"{path}: cannot be read: {error.strerror}") from None
