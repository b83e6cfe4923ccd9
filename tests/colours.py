"""Backends for videos of plain colours: small, but each does for real what its protocol asks."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from vmr.backends.base import Focus, Rewrite
from vmr.video import Frames

COLOURS = ("red", "green", "blue")
WORDS = (*COLOURS, "picture", "shows", "bright", "nothing", "a", "the")


def _normalised(rows: NDArray[np.float32]) -> NDArray[np.float32]:
    return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)


def _means(frames: Frames) -> NDArray[np.float32]:
    return frames.derive("colour-means", lambda pixels: pixels.mean(axis=(1, 2), dtype=np.float32))


class WordCounts:
    """A sentence encoder over a handful of words; counts its calls' sentences."""

    name = "word-counts"

    def __init__(self) -> None:
        self.encoded: list[str] = []

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        self.encoded += texts
        rows = np.full((len(texts), len(WORDS)), 0.01, dtype=np.float32)
        for row, text in zip(rows, texts, strict=True):
            for place, word in enumerate(WORDS):
                row[place] += text.lower().split().count(word) * (5 if word in COLOURS else 1)
        return _normalised(rows) if len(texts) else rows


class ColourEncoder:
    """Frames by mean colour, texts by colour words."""

    name = "colour-encoder"
    short_side = 32

    def encode_frames(self, frames: Frames) -> NDArray[np.float32]:
        return _normalised(_means(frames) - 30)

    def encode_texts(self, texts: Sequence[str]) -> NDArray[np.float32]:
        rows = [[float(colour in text.split()) for colour in COLOURS] for text in texts]
        return _normalised(np.array(rows, dtype=np.float32))


class ColourCaptioner:
    """Names the colour of a frame; keeps the times it was shown."""

    name = "colour-captioner"
    short_side = 24

    def __init__(self) -> None:
        self.captioned: list[float] = []
        self.captioned_for: list[tuple[str, float]] = []

    def caption(self, frames: Frames) -> list[str]:
        self.captioned += frames.times.tolist()
        return [f"a {self._colour(mean)} picture" for mean in _means(frames)]

    def caption_for(self, frames: Frames, focus: Focus) -> list[str]:
        self.captioned_for += [(focus.query, time) for time in frames.times.tolist()]
        return [f"the picture shows bright {self._colour(mean)}" for mean in _means(frames)]

    @staticmethod
    def _colour(mean: NDArray[np.float32]) -> str:
        return COLOURS[int(mean.argmax())]


class Repeater:
    """A rewriter that gives what it was told to, and counts how often it was asked."""

    def __init__(self, rewrites: Sequence[Rewrite]) -> None:
        self.name = f"repeater {rewrites}"
        self.rewrites = list(rewrites)
        self.asked: list[str] = []

    def rewrite(self, query: str, pairs: int) -> list[Rewrite]:
        self.asked.append(query)
        return self.rewrites
