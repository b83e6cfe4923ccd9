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

from vmr.backends import Encoder, SentenceEncoder, TokenEncoder
from vmr.data.arrays import open_array
from vmr.data.pack_spec import Pack, Source, Text, fill, read_pack
from vmr.data.records import Query
from vmr.errors import CacheError, InputError, VideoError, VmrWarning
from vmr.files import atomic_path, write_text
from vmr.progress import Progress, silent
from vmr.video import probe, sample_times, stream

_BATCH = 64
_VIDEO = "video/{vid}.npz"
_TEXT = "text/qid{qid}.npz"
_MOST_ROWS = 1_000_000  # of a video: 11 days at a row a second
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
    there. A video's name is its file name up to the last dot.

    Args:
        videos: Files, of different names.
        out: The pack's folder; it is made.
        encoder: What sees the frames.
        every: Seconds a row; a row is the frame in the middle of them.
        queries: Whose text features are wanted too; those about other videos than the given ones and
            those that the pack has already are left out, with a :class:`vmr.VmrWarning`.
        sentence_encoder: What reads the queries.
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
    reads = sentence_encoder if queries else None
    work = _Folder(folder, made, reads)
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
        for done, query in enumerate(queries, 1):
            work.query(query, reads)
            show("embed", done, len(queries))
    return Extraction(str(work.yaml), tuple(work.written), tuple(work.skipped), failed, code)


class _Folder:
    """A pack that is being written."""

    def __init__(
        self, folder: Path, made: dict[str, str | float], reads: SentenceEncoder | None
    ) -> None:
        self.folder = folder
        self.yaml = folder / "pack.yaml"
        self.written: list[str] = []
        self.skipped: list[str] = []
        self._spec = self._claimed(made, reads)

    def _claimed(self, made: dict[str, str | float], reads: SentenceEncoder | None) -> Pack | None:
        """Checks what is there, before any work is done; the pack that was begun, if one was."""
        if reads is not None:
            made["sentence_encoder"] = reads.name
        self._made = made
        self._tokens = isinstance(reads, TokenEncoder)
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
        info = probe(path)
        every = float(self._made["every"])
        if every > 0 and info.duration / every > _MOST_ROWS:
            raise InputError(
                f"every: expected seconds that make up to {_MOST_ROWS:,} rows of {path.name} "
                f"({info.duration:g} s), got {every:g}"
            )
        times = sample_times(info.duration, every)
        parts = []
        done = 0
        for frames in stream(path, times, batch=_BATCH, short_side=encoder.short_side):
            parts.append(encoder.encode_frames(frames))
            done += len(frames)
            progress("frames", done, len(times))
        if not parts:
            raise VideoError(f"{path}: expected a frame at one of {len(times)} times, got none")
        features = np.concatenate(parts).astype(np.float32)
        self._describe(dim=features.shape[1])
        self._save(target, features=features, source_bytes=np.int64(size))

    def query(self, query: Query, encoder: SentenceEncoder) -> None:
        target = self.folder / fill(_TEXT, qid=query.qid)
        text = np.frombuffer(query.text.encode(), dtype=np.uint8)
        if target.exists():
            if not np.array_equal(open_array(target, "query_utf8").read(), text):
                self._refuse(target, f"another query than {query.text!r}")
            self.skipped.append(str(target))
            return
        arrays: dict[str, Any] = {"pooler_output": encoder.encode([query.text])[0]}
        if isinstance(encoder, TokenEncoder):
            arrays["last_hidden_state"] = encoder.encode_tokens([query.text])[0]
        self._describe(text_dim=len(arrays["pooler_output"]))
        self._save(target, **arrays, query_utf8=text)

    def _describe(self, dim: int | None = None, text_dim: int | None = None) -> None:
        """Writes pack.yaml before the first file that it describes."""
        spec = self._spec or Pack(
            about="Made by vmr features extract",
            columns=("video", "tef"),
            sources={"video": Source(files=(_VIDEO,), normalise="already")},
            seconds_per_row=float(self._made["every"]),
        )
        source, text = spec.sources["video"], spec.text
        if dim is not None:
            source = msgspec.structs.replace(source, dim=dim)
        if text_dim is not None:
            # A sentence's vector has length 1 already, its tokens' states have any.
            text = Text(files=(_TEXT,), key=None, dim=text_dim, normalise="already")
            if self._tokens:
                text = Text(files=(_TEXT,), dim=text_dim)
        new = msgspec.structs.replace(
            spec, sources={"video": source}, text=text, made={**spec.made, **self._made}
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
