"""Features that were made just now, read as a pack's files are."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from vmr.data.arrays import Array, StoredArray
from vmr.data.pack_files import PackFiles
from vmr.data.pack_problems import PackError
from vmr.data.pack_spec import Pack
from vmr.data.records import Query


class MadeFiles(PackFiles):
    """In the place of a pack's folder: one video and its queries, whose arrays are in memory.

    Args:
        spec: What the pack is; its rows are made of these as of files.
        name: For messages.
        video: [rows, columns] of the one source; None where ``root`` has the video.
        texts: Arrays by key, by qid.
        root: The folder that holds what is not given.

    Raises:
        InputError: ``root`` holds nothing in the pack's layout.
    """

    def __init__(
        self,
        spec: Pack,
        name: str,
        *,
        video: Array | None = None,
        texts: Mapping[int | str, Mapping[str, Array]],
        root: str | os.PathLike[str] | None = None,
    ) -> None:
        if root is not None:
            super().__init__(spec, root, name)
        else:
            self._spec, self._name, self.folder = spec, name, Path()
        self._video = video
        self._made_texts = texts

    def open_video(self, source: str, vid: str) -> list[StoredArray]:
        """The array of the video."""
        if self._video is None:
            return super().open_video(source, vid)
        return [_stored(f"{self._name}: video {vid}", self._video)]

    def open_text(self, query: Query, key: str) -> StoredArray:
        """The array of a query."""
        arrays = self._made_texts.get(query.qid, {})
        if key not in arrays:
            raise PackError.of(
                "missing text", f"{self._name}: query {query.text!r}: has no {key} here"
            )
        return _stored(f"{self._name}: query {query.text!r}, {key}", arrays[key])

    def has_video(self, vid: str) -> bool:
        """Whether there is such a video."""
        return self._video is not None or super().has_video(vid)

    def has_text(self, query: Query) -> bool:
        """Whether the query was read; with word vectors all were."""
        return self._spec.text is None or query.qid in self._made_texts

    def lengths(self, source: str) -> Path | None:
        """No file lists what was made just now."""
        return None if self._video is not None else super().lengths(source)


def _stored(where: str, array: Array) -> StoredArray:
    return StoredArray(where, array.shape, array.dtype, lambda rows: array)
