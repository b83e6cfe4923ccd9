"""The folder of a simulated corpus: whose it is, and files that are made once."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

import vmr
from vmr.data.lines import read_document
from vmr.data.pack_spec import Glove, Pack, Source, Text
from vmr.errors import InputError
from vmr.files import atomic_path, make_folder, write_text
from vmr.settings import dump_yaml, load_yaml
from vmr.simulation.parameters import Simulation

VERSION = 2
"""Of the generator: another one makes other files of the same parameters."""

VIDEO = "video_features/{vid}.npz"
TEXT = "text_features/qid{qid}.npz"
GLOVE = "glove.txt"
_CLAIM = "simulation.yaml"
_TOKENS = 32


class Folder:
    """A folder that belongs to one simulation.

    Args:
        path: It may hold a part of the same simulation.
        claim: What tells this simulation from others, in plain values.

    Raises:
        InputError: It holds something else, or another simulation.
    """

    def __init__(self, path: str | os.PathLike[str], claim: Mapping[str, Any]) -> None:
        self.path = Path(path)
        self._claim = {"version": VERSION, "vmr": vmr.__version__, **claim}
        there = self.path / _CLAIM
        if there.is_file():
            self._compare(load_yaml(read_document(there), str(there)), self._claim)
            return
        if self.path.exists() and not self.path.is_dir():
            raise InputError(f"{self.path}: expected a folder, got a file")
        # What begins with a full stop is left by a run that was killed while it wrote.
        if self.path.is_dir() and any(file.name[0] != "." for file in self.path.iterdir()):
            raise InputError(
                f"{self.path}: is not empty and holds no {_CLAIM}; name another folder"
            )

    @property
    def identity(self) -> str:
        """SHA-1 of what tells this simulation from others; a run on its pack goes by it."""
        claim = {key: value for key, value in self._claim.items() if key != "vmr"}
        return hashlib.sha1(
            msgspec.json.encode(claim, order="sorted"), usedforsecurity=False
        ).hexdigest()

    def claim(self) -> None:
        """Makes the folder this simulation's own; until then nothing is written."""
        make_folder(self.path)
        write_text(self.path / _CLAIM, dump_yaml(self._claim))

    def _compare(self, there: Any, mine: dict[str, Any]) -> None:
        if not isinstance(there, dict):
            raise InputError(f"{self.path / _CLAIM}: expected keys and values; name another folder")
        old, new = _flat(there), _flat(mine)
        for key in (*new, *old):
            # A release alone changes no file; VERSION says when one does.
            if key != "vmr" and old.get(key) != new.get(key):
                raise InputError(
                    f"{self.path}: holds another simulation: {key} is {old.get(key)!r} there, and "
                    f"{new.get(key)!r} is asked for; name another folder"
                )

    def save(self, name: str, **arrays: Any) -> None:
        """Writes an npz, stored and not deflated: features hardly shrink."""
        target = self.path / name
        make_folder(target.parent)
        with atomic_path(target) as temporary, temporary.open("wb") as file:
            np.savez(file, **arrays)

    def write(self, name: str, text: str) -> None:
        """Writes a text file."""
        write_text(self.path / name, text)

    def has(self, name: str) -> bool:
        """Whether a file is there already, which then is whole."""
        return (self.path / name).is_file()


def _flat(value: Mapping[str, Any], above: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, inner in value.items():
        name = f"{above}{key}"
        found.update(_flat(inner, f"{name}.") if isinstance(inner, dict) else {name: inner})
    return found


def packs(simulation: Simulation, about: str, identity: str) -> dict[str, str]:
    """The packs of a corpus as YAML, by file name: with tokens, and with word vectors instead."""
    common: dict[str, Any] = {
        "about": f"Simulated: {about}",
        "columns": ("frames", "tef"),
        "sources": {"frames": Source(files=(VIDEO,), dim=simulation.dim)},
        "seconds_per_row": simulation.row_seconds,
        "made": {"by": "vmr data simulate", "simulation": identity},
    }
    text = Text(files=(TEXT,), dim=simulation.dim, max_rows=_TOKENS)
    glove = Glove(files=(GLOVE,), split="words", dim=simulation.word_dim, max_rows=_TOKENS)
    found = {
        "pack.yaml": Pack(**common, text=text),
        "pack-glove.yaml": Pack(**common, glove=glove),
    }
    return {
        name: dump_yaml({"version": pack.version, **msgspec.to_builtins(pack)})
        for name, pack in found.items()
    }


def fingerprint(path: str | os.PathLike[str]) -> dict[str, str]:
    """A file's name and the SHA-1 of its content.

    Raises:
        InputError: It cannot be read.
    """
    return {
        "file": Path(path).name,
        "sha1": hashlib.sha1(read_document(path), usedforsecurity=False).hexdigest(),
    }
