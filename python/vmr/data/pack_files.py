"""Where the files of a feature pack lie."""

from __future__ import annotations

import functools
import os
import re
from collections.abc import Sequence
from pathlib import Path

from vmr.data.arrays import StoredArray, has_array, open_array, some_key
from vmr.data.pack_problems import PackError
from vmr.data.pack_spec import Pack, fill
from vmr.data.records import Query
from vmr.errors import InputError


class PackFiles:
    """Paths of a pack's videos and queries.

    Args:
        spec: What the pack is.
        root: The folder that the features lie in.
        name: For messages.

    Attributes:
        folder: The folder below ``root`` that the pack's paths are relative to.

    Raises:
        InputError: ``root`` holds nothing in the pack's layout.
    """

    def __init__(self, spec: Pack, root: str | os.PathLike[str], name: str) -> None:
        self._spec = spec
        self._name = name
        self.folder = self._find_folder(Path(root))
        self._sources = {
            source: self._chosen(about.files) for source, about in spec.sources.items()
        }
        self._texts = self._chosen(spec.text.files) if spec.text else ()

    def video(self, source: str, vid: str) -> tuple[list[Path], str | None]:
        """The file of a video, or its parts, and the key in them.

        Raises:
            InputError: They are not there; says what was looked for.
        """
        about = self._spec.sources[source]
        key = None if about.key is None else fill(about.key, vid=vid)
        templates = about.parts or self._sources[source]
        looked = [self.folder / fill(template, vid=vid) for template in templates]
        here = [path for path in looked if has_array(path, key)]
        if about.parts:
            looked = [path for path in looked if path not in here]
            if not looked:
                return here, key
        elif here:
            return here[:1], key
        raise PackError.of(
            "missing video", f"video {vid}: no {source} features; looked for {_places(looked, key)}"
        )

    def text(self, query: Query, key: str) -> tuple[Path, str]:
        """The file of a query, and the key in it.

        Args:
            query: The query.
            key: Its template.

        Raises:
            InputError: It is not there; says what was looked for.
        """
        # The subtitles of pre-training are named VIDEO_NUMBER and lie in a folder a video.
        head, line, tail = str(query.qid).rpartition("_")
        vid = head if line else query.video
        looked = [
            self.folder / fill(file, qid=query.qid, vid=vid, sub=tail) for file in self._texts
        ]
        key = fill(key, qid=query.qid, vid=vid, sub=tail)
        for path in looked:
            if has_array(path, key):
                return path, key
        raise PackError.of(
            "missing text",
            f"query {query.qid}: no text features; looked for {_places(looked, key)}",
        )

    def open_video(self, source: str, vid: str) -> list[StoredArray]:
        """The array of a video, or those of its parts, not read yet.

        Raises:
            InputError: As :meth:`video`, or a file is damaged.
        """
        paths, key = self.video(source, vid)
        return [open_array(path, key) for path in paths]

    def open_text(self, query: Query, key: str) -> StoredArray:
        """The array of a query, not read yet.

        Raises:
            InputError: As :meth:`text`, or the file is damaged.
        """
        return open_array(*self.text(query, key))

    def glove(self) -> Path:
        """The file of the word vectors.

        Raises:
            InputError: It is not there; says what was looked for.
        """
        files = self._spec.glove.files if self._spec.glove else ()
        looked = [self.folder / file for file in files]
        for path in looked:
            if path.is_file():
                return path
        raise PackError.of(
            "missing text", f"{self._name}: no GloVe file; looked for {_places(looked, None)}"
        )

    def has_video(self, vid: str) -> bool:
        """Whether every source has the video."""
        try:
            for source in self._spec.sources:
                self.video(source, vid)
        except PackError:
            return False
        return True

    def has_text(self, query: Query) -> bool:
        """Whether the query has a file, where queries have files."""
        text = self._spec.text
        if text is None:
            return True
        try:
            self.text(query, text.key or text.pooled_key or "")
        except PackError:
            return False
        return True

    def lengths(self, source: str) -> Path | None:
        """The file that lists the rows of a source, where there is one."""
        lengths = self._spec.sources[source].lengths
        if lengths is None:
            return None
        path = self.folder / _fixed(self._sources[source][0]) / lengths
        return path if path.is_file() else None

    def any_video(self, source: str) -> list[tuple[Path, str | None]]:
        """Some file of a source and a key in it, or one of each of its parts; empty without any."""
        about = self._spec.sources[source]
        template = about.key
        found: list[tuple[Path, str | None]] = []
        for files in about.parts or self._sources[source]:
            pattern = re.sub(r"\{.*?\}", "*", files)
            # Hidden files are parts that a killed run left behind.
            there = (path for path in self.folder.glob(pattern) if not path.name.startswith("."))
            path = min(there, default=None)
            if path is None:
                continue
            if template is None or "{vid}" not in template:
                found.append((path, template))
            elif key := some_key(path, functools.partial(_key_of, template)):
                found.append((path, key))
        return found if about.parts else found[:1]

    def _find_folder(self, root: Path) -> Path:
        """The first of the pack's folders that holds files of a source."""
        templates = [
            template
            for source in self._spec.sources.values()
            for template in (*source.files, *source.parts)
        ]
        for folder in (root / name for name in self._spec.folders):
            for template in templates:
                place = folder / (_fixed(template) if "{" in template else template)
                if place.is_dir() if "{" in template else place.is_file():
                    return folder
        if not root.is_dir():
            raise InputError(f"{self._name}: {root}: there is no such folder")
        looked = [root / folder / templates[0] for folder in self._spec.folders]
        raise InputError(
            f"{self._name}: {root} holds no features in this layout; looked for {_places(looked, None)}"
        )

    def _chosen(self, templates: Sequence[str]) -> tuple[str, ...]:
        """The templates of the first folder that is there: features of two folders are never mixed."""
        folders = dict.fromkeys(map(_fixed, templates))
        here = next((folder for folder in folders if (self.folder / folder).is_dir()), None)
        return tuple(template for template in templates if here in (None, _fixed(template)))


def _key_of(template: str, vid: str) -> str:
    return fill(template, vid=vid)


def _fixed(template: str) -> str:
    """The folder of a template, up to the first name in it."""
    return template.partition("{")[0].rpartition("/")[0]


def _places(paths: Sequence[Path], key: str | None) -> str:
    """Paths as a message lists them, with the key where a file holds many videos."""
    return " and ".join(
        f"{path}, key {key!r}" if key is not None and path.is_file() else str(path)
        for path in paths
    )
