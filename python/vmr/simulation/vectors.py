"""Vectors: their length, k-means, a ridge map, and the views that modalities have of a latent."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from vmr.simulation.randomness import generator

Array = NDArray[np.float32]

_ROUNDS = 50  # of k-means; it settles long before
_RIDGE = 0.1  # of the mean variance that B's columns have


def unit(rows: NDArray[np.floating]) -> Array:
    """Rows [..., d] with length 1; zeros stay zeros."""
    length = np.linalg.norm(rows, axis=-1, keepdims=True)
    return np.asarray(rows / np.where(length > 0, length, 1), dtype=np.float32)


def noise(rng: np.random.Generator, count: int, width: int) -> Array:
    """Gaussian rows [count, width] whose expected squared length is 1."""
    drawn = rng.standard_normal((count, width), dtype=np.float32)
    return np.asarray(drawn / np.float32(width**0.5), dtype=np.float32)


def k_means(rows: Array, clusters: int, seed: int) -> tuple[Array, NDArray[np.int64]]:
    """Clusters of unit vectors by their cosine (spherical k-means, k-means++ at the start).

    Args:
        rows: [n, d], n >= clusters.
        clusters: How many.
        seed: Of the start.

    Returns:
        Unit centres [clusters, d], and the number of each row's centre [n]. A cluster that lost all
        its rows takes the row that is furthest from its own centre.
    """
    rng = generator(seed, "k-means")
    chosen = [int(rng.integers(len(rows)))]
    distance = np.maximum(1 - rows @ rows[chosen[0]], 0).astype(np.float64)
    while len(chosen) < clusters:
        total = distance.sum()
        # Fewer distinct rows than clusters: then any will do.
        weights = distance / total if total > 0 else None
        chosen.append(int(rng.choice(len(rows), p=weights)))
        distance = np.minimum(distance, np.maximum(1 - rows @ rows[chosen[-1]], 0))
    centres = rows[chosen]
    labels = np.full(len(rows), -1, dtype=np.int64)
    for _ in range(_ROUNDS):
        cosine = rows @ centres.T
        new = cosine.argmax(axis=1)
        nearest = cosine[np.arange(len(rows)), new].copy()
        counts = np.bincount(new, minlength=clusters)
        for empty in np.flatnonzero(counts == 0):
            # Not the last row of another cluster, which would then be the empty one.
            furthest = int(np.where(counts[new] > 1, nearest, np.inf).argmin())
            counts[new[furthest]] -= 1
            counts[empty] = 1
            new[furthest] = empty
            nearest[furthest] = 1
        if np.array_equal(new, labels):
            break
        labels = new
        sums = np.zeros((clusters, rows.shape[1]))
        np.add.at(sums, labels, rows)
        centres = unit(sums)
    return centres, labels


def ridge(source: Array, target: Array) -> Array:
    """The linear map [d, e] that takes rows [n, d] nearest to rows [n, e], kept small."""
    x, y = source.astype(np.float64), target.astype(np.float64)
    gram = x.T @ x
    weight = _RIDGE * np.trace(gram) / len(gram)
    solved = np.linalg.solve(gram + weight * np.eye(len(gram)), x.T @ y)
    return np.asarray(solved, dtype=np.float32)


class View:
    """A fixed random non-linear map from latents to the features of one modality.

    A latent x becomes unit(R x + bend g(x)) + gap m: R keeps angles, g is a random layer of tanh, and m
    is a constant of length 1. Modalities with the same ``space`` share R, so that a cosine between them
    means something; g and m are each modality's own.

    Args:
        seed: Of the maps.
        name: Of the modality.
        space: Of R.
        width: Columns of the latents.
        dim: Columns of the features.
        bend: Strength of g, which has length 1 on the average.
        gap: Length of the constant.
    """

    def __init__(
        self, seed: int, name: str, space: str, width: int, dim: int, bend: float, gap: float
    ) -> None:
        larger = max(width, dim)
        drawn = generator(seed, "space", space).standard_normal((larger, min(width, dim)))
        orthogonal = np.linalg.qr(drawn)[0]
        self._linear = (orthogonal.T if dim >= width else orthogonal).astype(np.float32)
        rng = generator(seed, "view", name)
        self._inner = rng.standard_normal((width, dim), dtype=np.float32)
        outer = rng.standard_normal((dim, dim), dtype=np.float32)
        # tanh of a standard normal number has a variance of 0.394.
        self._outer = outer * np.float32(bend / (0.394**0.5 * dim))
        self._constant = unit(rng.standard_normal(dim)) * np.float32(gap)

    def __call__(self, latents: Array) -> Array:
        """Features [n, dim] of unit latents [n, width]."""
        bent = np.tanh(latents @ self._inner) @ self._outer
        return np.asarray(unit(latents @ self._linear + bent) + self._constant, dtype=np.float32)
