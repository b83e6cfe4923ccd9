"""What a feature pack is: the YAML that describes one, as types, and the ready ones of vmr."""

from __future__ import annotations

import functools
import importlib.resources
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal, TypeVar

import msgspec

from vmr.data.lines import read_document
from vmr.errors import InputError
from vmr.settings import convert, load_yaml, nearest

T = TypeVar("T")

Normalise = Literal["l2", "none", "already"]
"""What happens to a row x: x / (||x|| + 1e-5); nothing; nothing, as it was done before."""

TEF = "tef"
"""The column name of the two temporal end point features, [i / T, (i + 1) / T] for row i of T."""

_VIDEO_NAMES = ("vid",)
_TEXT_NAMES = ("qid", "vid", "sub")


class Source(
    msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True
):
    """One array a video.

    Attributes:
        files: Path templates from the pack's folder, "{vid}" for the video; ".." in a template may lead
            out of it, a video's name never does. Of several, those in the first folder that is there
            count, and of these the first that a video has.
        parts: Templates of arrays that are joined column by column before anything else; either these
            or ``files``.
        key: The array's name in npz and HDF5, a template too; None where a file holds one array.
        dim: Columns; None takes what the first file has.
        normalise: Of each row.
        lengths: A JSON file {video: rows} that the check compares with the arrays.
    """

    files: tuple[str, ...] = ()
    parts: tuple[str, ...] = ()
    key: str | None = "features"
    dim: int | None = None
    normalise: Normalise = "l2"
    lengths: str | None = None

    def __post_init__(self) -> None:
        if bool(self.files) == bool(self.parts):
            raise ValueError("a source has either `files` or `parts`")
        _check_templates([*self.files, *self.parts, self.key or ""], _VIDEO_NAMES)


class Text(
    msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True
):
    """One file a query.

    Attributes:
        files: Path templates as in :class:`Source`: "{qid}", "{vid}", and "{sub}", the part of the qid
            after its last underscore.
        key: Name of the [tokens, dim] array; None where there are no tokens.
        pooled_key: Name of the [dim] array of the whole sentence; None where there is none.
        dim: Columns; None takes what the first file has.
        pooled_dim: Those of the pooled array, where they are others.
        max_rows: Tokens that are kept; None keeps all.
        normalise: Of each row, and of the pooled one.
    """

    files: tuple[str, ...]
    key: str | None = "last_hidden_state"
    pooled_key: str | None = "pooler_output"
    dim: int | None = None
    pooled_dim: int | None = None
    max_rows: int | None = None
    normalise: Normalise = "l2"

    def __post_init__(self) -> None:
        if not self.files:
            raise ValueError("`files` is empty")
        if self.key is None and self.pooled_key is None:
            raise ValueError("a text has `key`, `pooled_key` or both")
        _check_rows(self.max_rows)
        _check_templates([*self.files, self.key or "", self.pooled_key or ""], _TEXT_NAMES)

    @property
    def pooled_width(self) -> int | None:
        """Columns of the pooled array."""
        return self.dim if self.pooled_dim is None else self.pooled_dim


class Glove(
    msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True
):
    """Word vectors from a text file; a word that it lacks is a row of zeros.

    Attributes:
        files: Paths from the pack's folder, of which the first that is there counts.
        split: "blanks": at blanks alone; "words": as :func:`vmr.data.glove.tokenise` does.
        dim: Numbers a word.
        max_rows: Words that are kept; None keeps all.
    """

    files: tuple[str, ...]
    split: Literal["blanks", "words"]
    dim: int = 300
    max_rows: int | None = None

    def __post_init__(self) -> None:
        if not self.files:
            raise ValueError("`files` is empty")
        _check_rows(self.max_rows)
        _check_templates(self.files, ())


class Pack(
    msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True
):
    """A folder of features.

    Attributes:
        version: Of this format: 1.
        about: One line that says what it is.
        folders: Places below the root where the files may lie; the first that has one counts.
        columns: What a row is made of, in this order: names of ``sources``, and "tef".
        sources: By name.
        seconds_per_row: Time from one row to the next; None where the rows are spread evenly over the
            video, whatever its length.
        assumed: The code that the pack belongs to only assumes ``seconds_per_row``: where the rows do
            not fit a video's duration, that is a warning and never an error.
        max_rows: Rows that are kept; None keeps all.
        longer: What happens to a longer video: "cut" drops its end, "pool" averages neighbours.
        text: Files of the queries.
        glove: Word vectors instead of ``text``.
        made: By whom and how; for the reader, for a second run of ``vmr features extract``, and for a
            model that was trained on them and is to see further videos.
    """

    version: Literal[1] = 1
    about: str = ""
    folders: tuple[str, ...] = (".",)
    columns: tuple[str, ...]
    sources: dict[str, Source]
    seconds_per_row: float | None
    assumed: bool = False
    max_rows: int | None = None
    longer: Literal["cut", "pool"] = "cut"
    text: Text | None = None
    glove: Glove | None = None
    made: dict[str, str | float] = {}

    def __post_init__(self) -> None:
        for name in self.columns:
            if name != TEF and name not in self.sources:
                known = (*self.sources, TEF)
                raise ValueError(f"`columns` names {name!r}{nearest(name, known)}")
        if unused := set(self.sources) - set(self.columns):
            raise ValueError(f"`columns` leaves out the source {sorted(unused)[0]!r}")
        if not self.sources:
            raise ValueError("`sources` is empty")
        if self.text is not None and self.glove is not None:
            raise ValueError("a pack has either `text` or `glove`")
        if self.seconds_per_row is not None and not 0 < self.seconds_per_row < float("inf"):
            raise ValueError("`seconds_per_row` must be > 0, or null")
        _check_rows(self.max_rows)


def read_pack(path: Path) -> Pack:
    """The pack that a YAML file describes.

    Raises:
        InputError: The file is missing, is not YAML, or has a wrong key or type.
    """
    return decode_yaml(read_document(path), Pack, str(path))


@functools.cache
def ready_packs() -> dict[str, Pack]:
    """The packs that ship with vmr, by name."""
    found: dict[str, Pack] = {}
    folder = importlib.resources.files("vmr.data").joinpath("presets")
    for file in sorted(folder.iterdir(), key=lambda file: file.name):
        if file.name.endswith(".yaml"):
            packs = decode_yaml(file.read_bytes(), dict[str, Any], file.name)
            for name, raw in packs.items():
                if not name.startswith("_"):  # what the others share
                    found[name] = _convert(raw, Pack, f"{file.name}, {name}")
    return found


def list_packs() -> list[str]:
    """Names of the ready packs that :func:`vmr.data.packs.load_pack` knows."""
    return list(ready_packs())


def unknown_pack(name: str) -> InputError:
    """The error for a name that is no ready pack and no YAML file."""
    hint = nearest(name, list_packs())
    return InputError(
        f"feature pack: expected a YAML file, a folder that holds pack.yaml, or a ready pack "
        f"(`vmr features list`), got {name!r}{hint}"
    )


def decode_yaml(raw: bytes, kind: type[T], where: str) -> T:
    """YAML as a type.

    Raises:
        InputError: For what is not YAML, a key that the type does not know (with the nearest one that
            it does) or a value of another type.
    """
    return _convert(load_yaml(raw, where), kind, where)


def _convert(value: Any, kind: type[T], where: str) -> T:
    # A single template need not be a list.
    if isinstance(value, dict):
        for part in _parts(value):
            for name in ("files", "parts"):
                if isinstance(part.get(name), str):
                    part[name] = [part[name]]
    return convert(value, kind, where)


def _parts(pack: dict[str, Any]) -> list[dict[str, Any]]:
    sources = pack.get("sources")
    parts = list(sources.values()) if isinstance(sources, dict) else []
    return [
        part for part in (*parts, pack.get("text"), pack.get("glove")) if isinstance(part, dict)
    ]


def _check_rows(rows: int | None) -> None:
    if rows is not None and rows < 1:
        raise ValueError("`max_rows` must be >= 1, or null")


def _check_templates(templates: Iterable[str], names: tuple[str, ...]) -> None:
    for template in templates:
        for name in re.findall(r"\{(.*?)\}", template):
            if name not in names:
                known = ", ".join(f"{{{known}}}" for known in names) or "none"
                raise ValueError(f"the template {template!r} has {{{name}}}; known here: {known}")
        if template.startswith("/"):
            raise ValueError(f"the template {template!r} must be a path from the pack's folder")


def fill(template: str, **values: str | int) -> str:
    """A template with its names filled in.

    Raises:
        InputError: A value would lead out of the pack's folder.
    """
    for name, value in values.items():
        text = str(value)
        if f"{{{name}}}" in template:
            if text.startswith("/") or "\0" in text or ".." in text.split("/"):
                raise InputError(f"{name} {text!r}: cannot be part of a file name")
            template = template.replace(f"{{{name}}}", text)
    return template
