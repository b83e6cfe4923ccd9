"""How queries and words are seen: through encoder B, by views of their own."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from vmr.data.glove import tokenise
from vmr.data.records import Query
from vmr.encoding import SentenceVectors
from vmr.simulation.parameters import Simulation
from vmr.simulation.randomness import generator
from vmr.simulation.vectors import Array, View, noise, ridge, unit

SHARED = "frames and queries"
"""The space in which a cosine of a frame and a pooled query means something."""


def view(simulation: Simulation, name: str, space: str, width: int, dim: int) -> View:
    """A modality's view of latents of a width."""
    return View(simulation.seed, name, space, width, dim, simulation.bend, simulation.gap)


class QueryViews:
    """Pooled queries, tokens and word vectors.

    Args:
        vectors: Of encoder B, of all sentences and words.
        train: The training sentences.
        latents: Theirs in encoder A's space [n, a]: where B's sentences are led to.
        simulation: The parameters.
    """

    def __init__(
        self, vectors: SentenceVectors, train: list[str], latents: Array, simulation: Simulation
    ) -> None:
        self._simulation = simulation
        self._vectors = vectors
        rows = vectors.rows(train)
        self._mean = rows.mean(axis=0)
        self._word_mean = vectors.rows(sorted(words_of(train))).mean(axis=0)
        self._to_latents = ridge(unit(rows - self._mean), latents)
        width, dim = rows.shape[1], simulation.dim
        self._pooled = view(simulation, "pooled", SHARED, latents.shape[1], dim)
        self._tokens = view(simulation, "tokens", "tokens", width, dim)
        self._words = view(simulation, "words", "words", width, simulation.word_dim)

    def pooled(self, query: Query) -> Array:
        """The whole sentence: [dim]."""
        latent = unit(self._sentence(query) @ self._to_latents)[None]
        noisy = self._noisy(latent, self._simulation.pooled_noise, "pooled", query)
        return self._pooled(noisy).reshape(-1)

    def tokens(self, query: Query) -> Array:
        """The words, each with something of the sentence: [words, dim]."""
        words = np.stack([self._word(word) for word in tokenise(query.text)])
        mix = np.float32(self._simulation.token_mix)
        mixed = unit(mix * words + (1 - mix) * self._sentence(query))
        return self._tokens(self._noisy(mixed, self._simulation.token_noise, "tokens", query))

    def word_vectors(self, words: list[str]) -> Array:
        """Vectors like GloVe's, which know no sentence: [words, word_dim]."""
        by = self._simulation.word_noise
        width = len(self._mean)
        rngs = (generator(self._simulation.seed, "word", word) for word in words)
        drawn = np.concatenate([noise(rng, 1, width) for rng in rngs])
        rows = np.stack([self._word(word) for word in words])
        return self._words(unit(rows + np.float32(by) * drawn))

    def _sentence(self, query: Query) -> Array:
        return unit(self._vectors[query.text] - self._mean)

    def _word(self, word: str) -> Array:
        return unit(self._vectors[word] - self._word_mean)

    def _noisy(self, rows: NDArray[np.float32], by: float, name: str, query: Query) -> Array:
        rng = generator(self._simulation.seed, name, query.qid)
        return unit(rows + np.float32(by) * noise(rng, *rows.shape))


def words_of(texts: Iterable[str]) -> set[str]:
    """The words of sentences, as :func:`vmr.data.glove.tokenise` tells them."""
    return {word for text in texts for word in tokenise(text)}
