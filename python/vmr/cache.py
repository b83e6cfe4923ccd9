"""What was computed for a video, kept between runs.

One SQLite file holds the entries: its transactions make a kill in mid-write and two processes at once
harmless. It is bounded: pictures of frames go first, then what was used longest ago. Only recomputable
things are in it, so that a cache that cannot be written costs time and never a result.
"""

from __future__ import annotations

import hashlib
import json
import os
import sqlite3
import threading
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from vmr.errors import CacheError, InputError, VideoError, VmrWarning

Arrays = Mapping[str, NDArray[np.generic]]
_T = TypeVar("_T")

PICTURES = "pictures"
"""The kind of entry that goes first where there is no room: a video only has to be decoded again."""

DEFAULT_LIMIT = 2 * 1024**3
_LAYOUT = 1  # of the tables; another layout is another file
_BUSY_SECONDS = 30.0
_READ_BYTES = 4 * 1024**2
_TABLES = """
CREATE TABLE IF NOT EXISTS entries (
  key TEXT PRIMARY KEY, video TEXT NOT NULL, kind TEXT NOT NULL, model TEXT NOT NULL,
  size INTEGER NOT NULL, used REAL NOT NULL, data BLOB NOT NULL);
CREATE INDEX IF NOT EXISTS entries_used ON entries (used, size);
CREATE TABLE IF NOT EXISTS files (identity TEXT PRIMARY KEY, digest TEXT NOT NULL, used REAL NOT NULL);
"""


@dataclass(frozen=True, slots=True)
class Key:
    """What an entry is the answer to.

    Attributes:
        video: Digest of the video's content (:meth:`Cache.digest`), or "" for what no video is part of.
        kind: What was computed: "captions", "rewrites", ...
        model: Name of the backend that computed it (version, settings and prompt are part of it).
        detail: Whatever else the answer depends on: sampling, query, place in the video.
    """

    video: str
    kind: str
    model: str
    detail: str

    def text(self) -> str:
        fields = json.dumps([self.video, self.kind, self.model, self.detail])
        return hashlib.blake2b(fields.encode(), digest_size=20).hexdigest()


@dataclass(frozen=True, slots=True)
class Summary:
    """What the cache holds of one kind for one video."""

    video: str
    kind: str
    model: str
    entries: int
    size: int
    used: float


def default_folder() -> Path:
    """``$VMR_CACHE_DIR``, else ``$XDG_CACHE_HOME/vmr``, else ``~/.cache/vmr``."""
    named = os.environ.get("VMR_CACHE_DIR")
    if named:
        return Path(named)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "vmr"


def default_limit() -> int:
    """``$VMR_CACHE_LIMIT`` in bytes, else 2 GiB.

    Raises:
        InputError: Where the variable is not a whole number above 0.
    """
    text = os.environ.get("VMR_CACHE_LIMIT", str(DEFAULT_LIMIT))
    if not text.isdecimal() or int(text) == 0:
        raise InputError(f"VMR_CACHE_LIMIT: expected a number of bytes above 0, got {text!r}")
    return int(text)


class Cache:
    """A bounded store of arrays by :class:`Key`, safe to share between processes and threads.

    Args:
        folder: Where its file lies; made when first written. See :func:`default_folder`.
        limit: Bytes of data it may hold. See :func:`default_limit`.
    """

    def __init__(
        self, folder: str | os.PathLike[str] | None = None, *, limit: int | None = None
    ) -> None:
        self.path = (Path(folder) if folder is not None else default_folder()) / (
            f"cache-{_LAYOUT}.sqlite"
        )
        self.limit = default_limit() if limit is None else limit
        self._lock = threading.Lock()
        self._connection: sqlite3.Connection | None = None
        self._writable = True

    # ---- entries ------------------------------------------------------------------------------------

    def get(self, key: Key) -> dict[str, NDArray[np.generic]] | None:
        """The arrays under a key, or None."""

        def read(connection: sqlite3.Connection) -> bytes | None:
            row = connection.execute(
                "SELECT data FROM entries WHERE key = ?", (key.text(),)
            ).fetchone()
            if row is None:
                return None
            if self._writable:
                # Whoever is writing now will not hold us up: it is only the order of eviction.
                with suppress(sqlite3.Error):
                    connection.execute("PRAGMA busy_timeout = 0")
                    connection.execute(
                        "UPDATE entries SET used = ? WHERE key = ?", (time.time(), key.text())
                    )
                connection.execute(f"PRAGMA busy_timeout = {_BUSY_SECONDS * 1000:.0f}")
            return bytes(row[0])

        data = self._attempt(read)
        if data is None:
            return None
        from safetensors.numpy import load

        return load(data)

    def put(self, key: Key, arrays: Arrays) -> None:
        """Keeps arrays under a key, and drops others where there is no room (see above)."""
        from safetensors.numpy import save

        data = save({name: np.ascontiguousarray(array) for name, array in arrays.items()})
        if len(data) > self.limit or not self._writable:
            return

        def write(connection: sqlite3.Connection) -> None:
            with connection:
                connection.execute("BEGIN IMMEDIATE")
                connection.execute(
                    "INSERT OR REPLACE INTO entries VALUES (?, ?, ?, ?, ?, ?, ?)",
                    (key.text(), key.video, key.kind, key.model, len(data), time.time(), data),
                )
                self._evict(connection)

        self._attempt(write)

    def _evict(self, connection: sqlite3.Connection) -> None:
        held = connection.execute("SELECT COALESCE(SUM(size), 0) FROM entries").fetchone()[0]
        if held <= self.limit:
            return
        # A tenth is freed at once, so that a full cache does not evict at every write.
        oldest = connection.execute(
            "SELECT key, size FROM entries ORDER BY kind != ?, used", (PICTURES,)
        ).fetchall()
        for key, size in oldest:
            if held <= 0.9 * self.limit:
                break
            connection.execute("DELETE FROM entries WHERE key = ?", (key,))
            held -= size

    # ---- content ------------------------------------------------------------------------------------

    def digest(self, path: str | os.PathLike[str]) -> str:
        """A digest of a file's content.

        A file is read once: the digest is remembered with its place, size and times.

        Raises:
            VideoError: Where the file cannot be read.
        """
        try:
            status = os.stat(path)
            identity = json.dumps(
                [
                    status.st_dev,
                    status.st_ino,
                    status.st_size,
                    status.st_mtime_ns,
                    status.st_ctime_ns,
                ]
            )
            known = self._attempt(
                lambda connection: connection.execute(
                    "SELECT digest FROM files WHERE identity = ?", (identity,)
                ).fetchone()
            )
            if known is not None:
                return str(known[0])
            hasher = hashlib.blake2b(digest_size=16)
            with open(path, "rb") as file:
                while block := file.read(_READ_BYTES):
                    hasher.update(block)
        except OSError as error:
            raise VideoError(f"{os.fspath(path)}: cannot be read: {error.strerror}") from error
        digest = hasher.hexdigest()

        def remember(connection: sqlite3.Connection) -> None:
            row = (identity, digest, time.time())
            connection.execute("INSERT OR REPLACE INTO files VALUES (?, ?, ?)", row)

        if self._writable:
            self._attempt(remember)
        return digest

    # ---- looking after it ---------------------------------------------------------------------------

    def summaries(self) -> list[Summary]:
        """What it holds, by video, kind and model; the most recently used first."""
        if not self.path.exists():
            return []
        rows = self._attempt(
            lambda connection: connection.execute(
                "SELECT video, kind, model, COUNT(*), SUM(size), MAX(used) FROM entries "
                "GROUP BY video, kind, model ORDER BY MAX(used) DESC"
            ).fetchall()
        )
        return [Summary(*row) for row in rows or ()]

    def clear(self, video: str | None = None) -> int:
        """Drops everything, or what belongs to one video's digest; returns the number of entries.

        Raises:
            CacheError: Where the file cannot be written.
        """
        if not self.path.exists():
            return 0
        try:
            with self._lock:
                connection = self._open()
                with connection:
                    if video is None:
                        count = connection.execute("DELETE FROM entries").rowcount
                        connection.execute("DELETE FROM files")
                    else:
                        count = connection.execute(
                            "DELETE FROM entries WHERE video = ?", (video,)
                        ).rowcount
                connection.execute("VACUUM")
        except (sqlite3.Error, OSError) as error:
            raise CacheError(f"{self.path}: could not be cleared: {error}") from error
        return count

    def close(self) -> None:
        """Closes the file; the next call opens it again."""
        with self._lock:
            if self._connection is not None:
                self._connection.close()
                self._connection = None

    # ---- the file -----------------------------------------------------------------------------------

    def _attempt(self, action: Callable[[sqlite3.Connection], _T]) -> _T | None:
        """Runs an action; a cache that fails is a warning, and then it is no longer written."""
        with self._lock:
            try:
                return action(self._open())
            except (sqlite3.Error, OSError) as error:
                if _is_broken(error):
                    self._set_aside(error)
                elif self._writable and not _is_busy(error):
                    self._writable = False
                    warnings.warn(
                        f"{self.path}: the cache cannot be written ({error}), so this run keeps "
                        "nothing for the next. Free some room, or name another folder in "
                        "VMR_CACHE_DIR",
                        VmrWarning,
                        stacklevel=4,
                    )
                return None

    def _open(self) -> sqlite3.Connection:
        if self._connection is None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            connection = sqlite3.connect(
                self.path, timeout=_BUSY_SECONDS, check_same_thread=False, isolation_level=None
            )
            try:
                # A power cut may lose the last entries, never the file.
                connection.execute("PRAGMA synchronous = NORMAL")
                if connection.execute("PRAGMA user_version").fetchone()[0] != _LAYOUT:
                    connection.execute("PRAGMA auto_vacuum = FULL")
                    connection.execute("PRAGMA journal_mode = WAL")
                    connection.executescript(_TABLES)
                    connection.execute(f"PRAGMA user_version = {_LAYOUT}")
            except BaseException:
                connection.close()
                raise
            self._connection = connection
        return self._connection

    def _set_aside(self, error: Exception) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None
        aside = self.path.with_name(f"{self.path.name}.broken-{time.time_ns()}")
        for suffix in ("", "-wal", "-shm"):
            part = Path(f"{self.path}{suffix}")
            if part.exists():
                part.rename(f"{aside}{suffix}")
        warnings.warn(
            f"{self.path} is damaged ({error}); it was renamed to {aside.name} and a new cache begun",
            VmrWarning,
            stacklevel=5,
        )


def _is_busy(error: Exception) -> bool:
    """Whether another process held the file too long; the next call may go well."""
    return isinstance(error, sqlite3.OperationalError) and "locked" in str(error)


def _is_broken(error: Exception) -> bool:
    text = str(error)
    return isinstance(error, sqlite3.DatabaseError) and (
        "malformed" in text or "not a database" in text
    )


def pack_texts(texts: Sequence[str]) -> NDArray[np.uint8]:
    """Texts as an array that an entry can hold."""
    return np.frombuffer(json.dumps(list(texts)).encode(), dtype=np.uint8)


def unpack_texts(packed: NDArray[np.generic]) -> list[str]:
    """The texts of :func:`pack_texts`."""
    return [str(text) for text in json.loads(packed.tobytes())]
