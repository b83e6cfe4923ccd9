"""Sentence vectors, each sentence encoded once and kept between runs."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping

import numpy as np

from vmr.backends import SentenceEncoder
from vmr.cache import Cache, Key
from vmr.progress import Progress
from vmr.simulation.vectors import Array

_CHUNK = 256  # sentences that are an entry of the cache: what a run loses at most when it is killed


class Vectors(Mapping[str, Array]):
    """What one encoder makes of sentences.

    Args:
        encoder: What reads them.
        cache: Where their vectors are kept; a second simulation of the same sentences encodes none.
        progress: Is told how many of a batch are done.
    """

    def __init__(self, encoder: SentenceEncoder, cache: Cache | None, progress: Progress) -> None:
        self._encoder = encoder
        self._cache = cache
        self._progress = progress
        self._known: dict[str, Array] = {}

    def add(self, texts: Iterable[str], what: str) -> None:
        """Encodes those that are not known yet, by themselves.

        An encoder may round a sentence differently beside longer ones, so texts that must not move
        others are added in a call of their own.
        """
        new = [text for text in dict.fromkeys(texts) if text not in self._known]
        for begin in range(0, len(new), _CHUNK):
            chunk = new[begin : begin + _CHUNK]
            self._known.update(zip(chunk, self._encoded(chunk), strict=True))
            self._progress(f"encode {what}", min(begin + _CHUNK, len(new)), len(new))

    def _encoded(self, texts: list[str]) -> Array:
        digest = hashlib.blake2b("\0".join(texts).encode(), digest_size=20).hexdigest()
        key = Key("", "sentence vectors", self._encoder.name, digest)
        found = self._cache.get(key) if self._cache is not None else None
        if found is not None and len(found["vectors"]) == len(texts):
            return found["vectors"].astype(np.float32)
        vectors = self._encoder.encode(texts)
        if self._cache is not None:
            self._cache.put(key, {"vectors": vectors})
        return vectors

    def rows(self, texts: Iterable[str]) -> Array:
        """The vectors [n, d] of added texts."""
        return np.stack([self._known[text] for text in texts])

    def __getitem__(self, text: str) -> Array:
        return self._known[text]

    def __iter__(self) -> Iterator[str]:
        return iter(self._known)

    def __len__(self) -> int:
        return len(self._known)
