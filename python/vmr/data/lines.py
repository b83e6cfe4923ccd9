"""Text and JSON files of unknown origin: read line by line, and one clear error for what is wrong."""

from __future__ import annotations

import gc
import json
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from io import BufferedReader
from pathlib import Path
from typing import TypeVar

import msgspec

from vmr.errors import InputError

T = TypeVar("T")

# No annotation or prediction line is near this; a file without line ends is not read into memory.
LONGEST_LINE = 64 * 2**20
LARGEST_DOCUMENT = 2**30
_BOM = b"\xef\xbb\xbf"
_FORMATS = {
    b"\x1f\x8b": "is gzip-compressed; unpack it first (gunzip)",
    b"PK\x03\x04": "is a zip archive; unpack it first (unzip)",
    b"BZh": "is bzip2-compressed; unpack it first (bunzip2)",
    b"\xfd7zXZ": "is xz-compressed; unpack it first (unxz)",
    b"\xff\xfe": "is UTF-16; save it as UTF-8",
    b"\xfe\xff": "is UTF-16; save it as UTF-8",
    b"\x80\x04": "looks like a Python pickle, which vmr does not load",
    b"\x80\x05": "looks like a Python pickle, which vmr does not load",
    b"\x89HDF": "is HDF5, not text",
    b"\x93NUM": "is a NumPy array, not text",
}


def read_lines(path: str | os.PathLike[str]) -> Iterator[tuple[int, bytes]]:
    """The lines of a UTF-8 text that are not blank, each with its number from 1.

    A byte order mark, CRLF and blanks around a line are left out.

    Raises:
        InputError: For a file that is missing, empty, compressed, of another encoding or binary, with
            its name and line.
    """
    with _open(path) as file:
        number = 0
        found = False
        while raw := file.readline(LONGEST_LINE + 1):
            number += 1
            if len(raw) > LONGEST_LINE:
                raise InputError(
                    f"{path}, line {number}: is longer than {LONGEST_LINE // 2**20} MiB; expected a "
                    "text with one record a line"
                )
            if number == 1:
                raw = raw.removeprefix(_BOM)
            raw = raw.strip()
            if raw:
                found = True
                yield number, raw
    if not found:
        raise InputError(f"{path}: is empty")


def read_start(path: str | os.PathLike[str], size: int = 2**16) -> bytes:
    """The first bytes of a UTF-8 file that are not blank, up to ``size``; to see what a file holds.

    Raises:
        InputError: As :func:`read_lines`, and for what is no regular file (it could be read only once).
    """
    with _open(path) as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise InputError(f"{path}: is a pipe or a device; expected a file")
        start = file.read(size).removeprefix(_BOM).lstrip()
        while not start:
            more = file.read(size)
            if not more:
                raise InputError(f"{path}: is empty")
            start = more.lstrip()
    return start


def read_document(path: str | os.PathLike[str]) -> bytes:
    """The whole of a UTF-8 file, without a byte order mark.

    Raises:
        InputError: As :func:`read_lines`, and for more than 1 GiB.
    """
    with _open(path) as file:
        size = os.fstat(file.fileno()).st_size
        if size > LARGEST_DOCUMENT:
            raise InputError(
                f"{path}: has {size / 2**30:.1f} GiB; a file that is one JSON object may have 1 GiB "
                "(JSON lines may be of any size)"
            )
        raw = file.read().removeprefix(_BOM)
    if not raw.strip():
        raise InputError(f"{path}: is empty")
    return raw


def decode_json(raw: bytes, decoder: msgspec.json.Decoder[T], where: str) -> T:
    """JSON as the decoder's type; NaN and Infinity are let through, for the caller to judge.

    Args:
        raw: UTF-8 bytes.
        decoder: Of the expected type.
        where: File and line, for the error.

    Raises:
        InputError: For what is not UTF-8, not JSON or not of the type.
    """
    try:
        return decoder.decode(raw)
    except UnicodeDecodeError:
        raise _encoding_error(raw, where) from None
    except RecursionError:
        raise InputError(f"{where}: is nested too deeply") from None
    except msgspec.MsgspecError:
        # Python's json module reads NaN and Infinity, and says where a line is broken.
        return _decode_slowly(raw, decoder, where)


def refuse_repeated_keys(raw: bytes, where: str) -> None:
    """JSON readers keep the last of two equal keys, which would lose what the first says in silence.

    Takes ten times as long as decoding; for what a count of its keys made suspicious.

    Raises:
        InputError: For a key that stands twice in one object, or for what is not JSON.
    """

    def check(pairs: list[tuple[str, object]]) -> dict[str, object]:
        found = dict(pairs)
        if len(found) < len(pairs):
            names = [name for name, _ in pairs]
            name = next(name for name in names if names.count(name) > 1)
            raise InputError(f"{where}: the key {name!r} stands there twice")
        return found

    try:
        json.loads(decode_text(raw, where), object_pairs_hook=check)
    except RecursionError:
        raise InputError(f"{where}: is nested too deeply") from None
    except ValueError as error:  # in what the quick decoding skipped
        raise InputError(f"{where}: {error}") from None


def decode_text(raw: bytes, where: str) -> str:
    """UTF-8 text.

    Raises:
        InputError: For another encoding.
    """
    try:
        return raw.decode()
    except UnicodeDecodeError:
        raise _encoding_error(raw, where) from None


@contextmanager
def collector_paused() -> Iterator[None]:
    """Pauses the garbage collector while many records are made, none of them in a cycle: it would look
    through all that are there again and again, which takes half of the time."""
    if not gc.isenabled():
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def _decode_slowly(raw: bytes, decoder: msgspec.json.Decoder[T], where: str) -> T:
    try:
        value = json.loads(decode_text(raw, where))
        if b"\\ud" in raw or b"\\uD" in raw:
            json.dumps(value, ensure_ascii=False).encode()
    except json.JSONDecodeError as error:
        place = f"line {error.lineno}, " if error.lineno > 1 else ""
        raise InputError(
            f"{where}: is not JSON: {error.msg} ({place}column {error.colno})"
        ) from None
    except RecursionError:
        raise InputError(f"{where}: is nested too deeply") from None
    except UnicodeEncodeError:
        raise InputError(f"{where}: holds half of a surrogate pair (\\ud800 to \\udfff)") from None
    except ValueError as error:  # a whole number of thousands of digits
        raise InputError(f"{where}: {error}") from None
    try:
        return msgspec.convert(value, decoder.type)
    except msgspec.ValidationError as error:
        raise InputError(f"{where}: {lowered(str(error))}") from None


def _open(path: str | os.PathLike[str]) -> BufferedReader:
    try:
        file = Path(path).open("rb")  # noqa: SIM115 -- handed to the caller
    except FileNotFoundError:
        raise InputError(f"{path}: there is no such file") from None
    except IsADirectoryError:
        raise InputError(f"{path}: is a folder; expected a file") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from None
    begin = file.peek(8)
    for magic, what in _FORMATS.items():
        if begin.startswith(magic):
            file.close()
            raise InputError(f"{path}: {what}")
    return file


def _encoding_error(raw: bytes, where: str) -> InputError:
    try:
        raw.decode()
    except UnicodeDecodeError as error:
        return InputError(
            f"{where}: is not UTF-8 (byte 0x{raw[error.start]:02x} at column {error.start + 1}); "
            "convert the file, for example with iconv -f latin1 -t utf-8"
        )
    return InputError(f"{where}: is not UTF-8")


def lowered(text: str) -> str:
    """The text with a small first letter, to go on in a message."""
    return text[:1].lower() + text[1:]
