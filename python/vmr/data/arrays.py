"""Arrays in npy, npz and HDF5 files of unknown origin: nothing is unpickled, every read has a bound.

What a file is, its first bytes say, not its name. npy files and stored (uncompressed) npz members are
mapped into memory; compressed ones are read only after their declared size, the array's own header and
a bound agree.
"""

from __future__ import annotations

import functools
import io
import math
import mmap
import os
import stat
import zipfile
import zlib
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from vmr.errors import InputError

Array: TypeAlias = npt.NDArray[Any]

LARGEST_ARRAY = 2**30
"""Bytes of one array that is read into memory. A mapped one may be of any size."""

_HEADER = 12 + 10_000  # magic, version, length, and as much text as NumPy takes for a header
_HANDLES = 8  # open HDF5 files


class MissingKeyError(InputError):
    """A file has no array of the name that is asked for."""


@dataclass(frozen=True, slots=True, eq=False)
class StoredArray:
    """An array in a file, its header checked, its numbers not read yet.

    Attributes:
        where: File and key, for messages.
        shape: As the header says.
        dtype: A boolean, integer or float type, as in the file.
    """

    where: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    _load: Callable[[int | None], Array]

    def read(self, rows: int | None = None) -> Array:
        """The numbers, in the file's type; read-only and mapped where the format lets it.

        Args:
            rows: Only so many of the first axis; None is all.

        Raises:
            InputError: The file is damaged.
        """
        with _clear_errors(self.where):
            array = self._load(rows)
            return array[:rows] if array.ndim else array


def open_array(path: str | os.PathLike[str], key: str | None = None) -> StoredArray:
    """Opens one array of a file.

    Args:
        path: An npy, npz or HDF5 file.
        key: The array's name in npz and HDF5; None where the file holds one array. An npy file has no
            names, so that a key is not looked at.

    Raises:
        InputError: The file is missing or damaged, has no such key, or the array holds anything but
            numbers. Says the file, the key, what was expected and what came.
    """
    path = Path(path)
    where = f"{path}" if key is None else f"{path}, key {key!r}"
    with _clear_errors(where):
        try:
            with path.open("rb") as file:
                magic = file.read(8)
                if magic.startswith(b"\x93NUMPY"):
                    return _open_npy(file, path, str(path), 0, os.fstat(file.fileno()).st_size)
                if magic.startswith(b"PK"):
                    return _open_npz(file, path, key)
        except FileNotFoundError:
            raise InputError(f"{path}: there is no such file") from None
        except IsADirectoryError:
            raise InputError(f"{path}: is a folder; expected an npy, npz or HDF5 file") from None
        if magic == b"\x89HDF\r\n\x1a\n":
            return _open_hdf5(path, key)
        came = "an empty file" if not magic else f"a file that begins with {magic!r}"
        if magic[:1] == b"\x80":
            came = "what looks like a Python pickle, which vmr does not load"
        raise InputError(f"{path}: expected an npy, npz or HDF5 file, got {came}")


def has_array(path: Path, key: str | None) -> bool:
    """Whether the file is there and, where it is HDF5, holds the key.

    Raises:
        InputError: The file's name is too long, or an HDF5 file is damaged or has a link on the way to
            the key.
    """
    where = str(path) if len(str(path)) < 300 else f"{path!s:.300}..."
    with _clear_errors(where):
        try:
            mode = path.stat().st_mode
        except (FileNotFoundError, NotADirectoryError):
            return False
        if not stat.S_ISREG(mode):
            return False
        if key is None or not _is_hdf5(path):
            return True
        return _found(_hdf5(path), key, f"{path}, key {key!r}") is not None


def some_key(path: Path, fits: Callable[[str], str]) -> str | None:
    """A key that an HDF5 file holds, of those that its first names make; None where there is none.

    Args:
        path: An HDF5 file; any other has none.
        fits: Gives the key that belongs to a name at the top of the file.

    Raises:
        InputError: As :func:`has_array`.
    """
    if not _is_hdf5(path):
        return None
    with _clear_errors(str(path)):
        keys = (fits(name) for name in _hdf5(path))
        return next((key for key in keys if has_array(path, key)), None)


# ---- npy ----------------------------------------------------------------------------------------------


def _open_npy(
    file: IO[bytes], path: Path, where: str, begin: int, end: int, crc: int | None = None
) -> StoredArray:
    """An npy at [begin, end) of a file that can be mapped."""
    file.seek(begin)
    shape, order, dtype, size = _header(file.read(min(_HEADER, end - begin)), where)
    count = _count(where, shape, dtype)
    there = end - begin - size
    if there < count:
        raise InputError(
            f"{where}: is cut off: its header says {count} bytes of numbers, there are {there}"
        )

    def load(rows: int | None) -> Array:
        if count == 0:
            return np.zeros(shape, dtype)
        with path.open("rb") as file:
            mapped = mmap.mmap(file.fileno(), end, access=mmap.ACCESS_READ)
        if crc is not None and zlib.crc32(memoryview(mapped)[begin:]) != crc:
            raise InputError(f"{where}: is damaged: its checksum is not the one that the zip says")
        array: Array = np.ndarray(shape, dtype, mapped, offset=begin + size, order=order)
        return array

    return StoredArray(where, shape, dtype, load)


def _header(
    raw: bytes, where: str
) -> tuple[tuple[int, ...], Literal["C", "F"], np.dtype[Any], int]:
    """Shape, "C" or "F", type, and the length of the header."""
    version = np.lib.format.read_magic(io.BytesIO(raw))
    if version not in ((1, 0), (2, 0)):
        raise InputError(f"{where}: expected npy version 1 or 2, got {version[0]}.{version[1]}")
    # The length stands in two bytes, or in four.
    begin = 10 if version == (1, 0) else 12
    size = begin + int.from_bytes(raw[8:begin], "little")
    shape, fortran, dtype = _parsed_header(raw[:size])
    _check_type(where, dtype)
    return shape, "F" if fortran else "C", dtype, size


@functools.lru_cache(maxsize=256)
def _parsed_header(raw: bytes) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """An npy header; the files of a pack have few different ones."""
    stream = io.BytesIO(raw)
    if np.lib.format.read_magic(stream) == (1, 0):
        return np.lib.format.read_array_header_1_0(stream)
    return np.lib.format.read_array_header_2_0(stream)


def _check_type(where: str, dtype: np.dtype[Any]) -> None:
    if dtype.hasobject:
        raise InputError(
            f"{where}: expected numbers, got Python objects (a pickle), which vmr does not load; "
            "save the array as float32"
        )
    if dtype.kind not in "fiub" or dtype.subdtype is not None:
        raise InputError(f"{where}: expected numbers, got the type {dtype}")


def _count(where: str, shape: tuple[int, ...], dtype: np.dtype[Any]) -> int:
    """Bytes of the numbers, in whole numbers that cannot overflow."""
    if any(size < 0 for size in shape):
        raise InputError(f"{where}: expected sizes from 0, got the shape {list(shape)}")
    return math.prod(shape) * dtype.itemsize


def _check_bound(where: str, count: int) -> None:
    if count > LARGEST_ARRAY:
        raise InputError(
            f"{where}: expected at most {LARGEST_ARRAY // 2**20} MiB in one compressed array, got "
            f"{count // 2**20} MiB; if it is no mistake, save it as npy, which is mapped"
        )


# ---- npz ----------------------------------------------------------------------------------------------


def _open_npz(file: IO[bytes], path: Path, key: str | None) -> StoredArray:
    with zipfile.ZipFile(file) as archive:
        name = _member(path, archive.namelist(), key)
        member = archive.getinfo(name)
        where = f"{path}, key {name.removesuffix('.npy')!r}"
        if member.flag_bits & 1:
            raise InputError(f"{where}: is encrypted")
        if member.compress_type == zipfile.ZIP_STORED:
            # The local header repeats the name, and may have another extra field than the directory.
            file.seek(member.header_offset)
            local = file.read(30)
            begin = member.header_offset + 30
            begin += int.from_bytes(local[26:28], "little") + int.from_bytes(local[28:30], "little")
            end = begin + member.file_size
            size = os.fstat(file.fileno()).st_size
            if not local.startswith(b"PK\x03\x04") or end > size:
                raise InputError(f"{where}: is cut off: it ends at byte {end}, the file at {size}")
            return _open_npy(file, path, where, begin, end, member.CRC)
        if member.compress_type != zipfile.ZIP_DEFLATED:
            # NumPy writes no other, and Python unpacks the others without a bound.
            raise InputError(f"{where}: expected a stored or deflated zip member")
        # Before anything is unpacked: what it says it is.
        _check_bound(where, member.file_size)
        with archive.open(member) as stream:
            shape, order, dtype, size = _header(stream.read(_HEADER), where)
        count = _count(where, shape, dtype)
        if member.file_size != size + count:
            raise InputError(
                f"{where}: its header says {count} bytes of numbers, the zip {member.file_size - size}"
            )

    def load(rows: int | None) -> Array:
        wanted = size + count
        if rows is not None and shape and order == "C" and rows < shape[0]:
            wanted = size + count // shape[0] * rows
        # At its end the stream compares the checksum by itself.
        with zipfile.ZipFile(path) as archive, archive.open(name) as stream:
            buffer = bytearray()
            while len(buffer) < wanted and (more := stream.read(min(2**20, wanted - len(buffer)))):
                buffer += more
        if len(buffer) < wanted:
            raise InputError(f"{where}: is cut off: expected {wanted} bytes, got {len(buffer)}")
        kept = shape if wanted == size + count else (rows or 0, *shape[1:])
        array: Array = np.ndarray(kept, dtype, buffer, offset=size, order=order)
        return array

    return StoredArray(where, shape, dtype, load)


def _member(path: Path, names: list[str], key: str | None) -> str:
    """The name in the zip of the array that is asked for."""
    keys = [name.removesuffix(".npy") for name in names]
    if key is None:
        if len(names) != 1:
            raise InputError(
                f"{path}: expected one array, got {_listed(keys)}; name one by its key"
            )
        return names[0]
    if key not in keys:
        raise MissingKeyError(f"{path}: expected the key {key!r}, got {_listed(keys)}")
    return names[keys.index(key)]


def _listed(keys: list[str]) -> str:
    if not keys:
        return "none"
    more = f" and {len(keys) - 5} more" if len(keys) > 5 else ""
    return ", ".join(repr(key) for key in keys[:5]) + more


# ---- HDF5 ---------------------------------------------------------------------------------------------

# Opening takes longer than reading. A process that was forked opens its own: handles do not survive it.
_open_files: OrderedDict[tuple[int, str, int, int], Any] = OrderedDict()


def _hdf5(path: Path) -> Any:
    """The open file."""
    try:
        import h5py
    except ImportError:
        raise InputError(
            f"{path}: is HDF5, and h5py is not installed: pip install 'vmr[hdf5]'"
        ) from None
    state = path.stat()
    place = (os.getpid(), str(path.absolute()), state.st_ino, state.st_mtime_ns)
    if place not in _open_files:
        while len(_open_files) >= _HANDLES:
            _open_files.popitem(last=False)
        _open_files[place] = h5py.File(path, "r")
    _open_files.move_to_end(place)
    return _open_files[place]


def _is_hdf5(path: Path) -> bool:
    return path.suffix in (".hdf5", ".h5")


def _found(file: Any, key: str, where: str) -> Any:
    """What the file holds under the key; None where it has no such key."""
    import h5py

    found = file
    for name in filter(None, key.split("/")):
        link = found.get(name, getlink=True) if isinstance(found, h5py.Group) else None
        if link is None:
            return None
        # A file from elsewhere has no business to point at others, on no part of the way.
        if not isinstance(link, h5py.HardLink):
            raise InputError(f"{where}: expected a data set, got a link, which vmr does not follow")
        found = found[name]
    return found


def _open_hdf5(path: Path, key: str | None) -> StoredArray:
    file = _hdf5(path)
    import h5py

    if key is None:
        keys = list(file)
        if len(keys) != 1:
            raise InputError(
                f"{path}: expected one array, got {_listed(keys)}; name one by its key"
            )
        key = keys[0]
    where = f"{path}, key {key!r}"
    found = _found(file, key, where)
    if found is None:
        some = [name for name, _ in zip(file, range(6), strict=False)]
        raise MissingKeyError(
            f"{path}: expected the key {key!r}, got {len(file)} keys: {_listed(some)}"
        )
    if not isinstance(found, h5py.Dataset) or found.shape is None:
        raise InputError(f"{where}: expected a data set, got a {type(found).__name__.lower()}")
    if found.external or found.is_virtual:
        raise InputError(f"{where}: keeps its numbers in other files, which vmr does not open")
    _check_type(where, found.dtype)
    for shape in (found.shape, found.chunks or ()):
        _check_bound(where, _count(where, shape, found.dtype))

    def load(rows: int | None) -> Array:
        return np.asarray(found[:rows] if rows is not None and found.shape else found[()])

    return StoredArray(where, found.shape, found.dtype, load)


@contextmanager
def _clear_errors(where: str) -> Iterator[None]:
    """Broken bytes make zipfile, zlib, NumPy and h5py raise nearly anything."""
    try:
        yield
    except InputError:
        raise
    except OSError as error:
        said = error.strerror or str(error).partition("\n")[0]
        raise InputError(f"{where}: cannot be read: {said}") from error
    except Exception as error:
        said = str(error).partition("\n")[0] or type(error).__name__
        raise InputError(f"{where}: is damaged: {said:.200}") from error
