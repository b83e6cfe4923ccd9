"""Made-up annotations, and encoders that answer at once."""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

DEEDS = {
    "cooking": ("a cook chops onions", "someone stirs a pot of soup", "a woman fries an egg"),
    "sport": ("two boys kick a football", "a girl jumps over a hurdle", "a team scores a goal"),
    "travel": ("a train leaves the station", "tourists board a ferry", "a plane takes off"),
    "animals": ("a dog digs in the sand", "a cat sleeps on a sofa", "horses gallop over a field"),
    "music": ("a man plays the violin", "a choir sings on a stage", "a drummer hits the cymbals"),
}
PLACES = ("at home", "in the morning", "by the river", "in town", "before the rain", "")


class Words:
    """Adds up a vector for each word, and a little of the whole sentence. Knows no meaning."""

    def __init__(self, name: str, width: int = 48) -> None:
        self.name = name
        self.width = width
        self.encoded: list[str] = []

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        self.encoded += texts
        rows = [
            sum((self._vector(word) for word in text.split()), 0.3 * self._vector(f"all {text}"))
            for text in texts
        ]
        table = np.array(rows, dtype=np.float32).reshape(-1, self.width)
        return np.asarray(table / np.linalg.norm(table, axis=1, keepdims=True), dtype=np.float32)

    def _vector(self, word: str) -> NDArray[np.float64]:
        digest = hashlib.blake2b(f"{self.name} {word}".encode(), digest_size=8).digest()
        seed = int.from_bytes(digest, "big")
        return np.random.default_rng(seed).standard_normal(self.width)


def encoders() -> tuple[Words, Words]:
    """Two of different minds."""
    return Words("A"), Words("B")


def rows(split: str, videos: int, *, queries: int = 1, first_qid: int = 0) -> list[dict[str, Any]]:
    """Annotations of made-up videos of a minute."""
    rng = random.Random(f"{split} {videos}")
    found: list[dict[str, Any]] = []
    for number in range(videos):
        for _ in range(queries):
            start = rng.randrange(0, 20) * 2
            deed = rng.choice(DEEDS[rng.choice(sorted(DEEDS))])
            found.append(
                {
                    "qid": first_qid + len(found),
                    "query": f"{deed} {rng.choice(PLACES)}".strip(),
                    "duration": 60,
                    "vid": f"{split}{number}",
                    "relevant_windows": [[start, min(60, start + 2 * rng.randrange(4, 9))]],
                }
            )
    return found


def write(path: Path, records: Sequence[dict[str, Any]]) -> Path:
    """The records as jsonl."""
    path.write_text("\n".join(map(json.dumps, records)), encoding="utf-8")
    return path


def files(folder: Path) -> dict[str, bytes]:
    """Everything in a folder, by path."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }
