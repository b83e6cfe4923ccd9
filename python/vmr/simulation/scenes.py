"""From the classes that a video shows to the latents of its rows."""

from __future__ import annotations

import math
import statistics

import msgspec
import numpy as np
from numpy.typing import NDArray

from vmr.simulation.classes import Classes, Scene
from vmr.simulation.parameters import Simulation
from vmr.simulation.randomness import generator
from vmr.simulation.vectors import Array, noise, unit

_FAINT = 0.2  # of a scene's strength that is left where it is faint
_STEEP = 4.0  # how quickly a scene fades


class Track(msgspec.Struct, frozen=True):
    """What a video shows, row by row, before noise.

    Attributes:
        clean: Latents [rows, d]: scenes and setting.
        varied: Noise [rows, d] of expected squared length 1, correlated within a scene.
        scenes: The scenes, annotated ones first.
        shares: [scenes, rows]: how much of a row shows the scene.
    """

    clean: Array
    varied: Array
    scenes: tuple[Scene, ...]
    shares: Array

    def latents(self, strength: float) -> Array:
        """Unit latents [rows, d] with noise of a strength."""
        return unit(self.clean + np.float32(strength) * self.varied)


def count_rows(duration: float, row_seconds: float) -> int:
    """Rows of a video, the last of which may be cut short."""
    return max(1, math.ceil(duration / row_seconds - 1e-6))


def row_shares(
    spans: NDArray[np.float64], rows: int, row_seconds: float, duration: float
) -> NDArray[np.float64]:
    """How much of each row lies in each span (start s, end s): [spans, rows], from 0 to 1."""
    begin = np.arange(rows) * row_seconds
    end = np.maximum(np.minimum(begin + row_seconds, duration), begin + 1e-6)
    shared = np.minimum(spans[:, 1:], end) - np.maximum(spans[:, :1], begin)
    return np.asarray(np.clip(shared, 0, None) / (end - begin), dtype=np.float64)


def make_track(
    video: str,
    duration: float,
    classes: Classes,
    lengths: NDArray[np.float64],
    simulation: Simulation,
) -> Track:
    """The track of a video, from its name, its scenes' classes and times, and the seed alone.

    Args:
        video: Its name.
        duration: s.
        classes: What there is to see.
        lengths: Lengths of training windows, s: scenes that nobody annotated are as long.
        simulation: The parameters.
    """
    rng = generator(simulation.seed, "scenes", video)
    scenes = [
        _moved(scene, duration, simulation.boundary_noise, rng) for scene in classes.scenes[video]
    ]
    if not classes.filled:
        scenes += _distractors(scenes, duration, classes, lengths, simulation, rng)
    rows = count_rows(duration, simulation.row_seconds)
    spans = np.array([(scene.start, scene.end) for scene in scenes]).reshape(-1, 2)
    shares = row_shares(spans, rows, simulation.row_seconds, duration).astype(np.float32)
    width = classes.latent(0, video).shape[0]
    drawn = noise(rng, len(scenes) + 1, width)
    setting = np.float32(simulation.setting) * drawn[-1]
    looks = np.zeros((len(scenes), width), dtype=np.float32)
    for place, scene in enumerate(scenes):
        looks[place] = classes.latent(scene.kind, video)
    looks = unit(looks + np.float32(simulation.instance) * drawn[:-1])
    # What overlaps is seen at once; what shares a row in turn counts by its part of it.
    mixed = shares.T @ looks / np.maximum(shares.sum(axis=0), 1)[:, None]
    mixing = _correlated(shares > 0.5, simulation.coherence)
    strength = _visible(mixing @ rng.standard_normal(rows), simulation.faint)
    return Track(
        clean=(strength[:, None] * mixed + setting).astype(np.float32),
        varied=(mixing @ noise(rng, rows, width)).astype(np.float32),
        scenes=tuple(scenes),
        shares=shares,
    )


def _moved(scene: Scene, duration: float, by: float, rng: np.random.Generator) -> Scene:
    """A scene with other ends than were annotated; those of the video stay."""
    begin, stop = rng.normal(0, by, 2) if by > 0 else (0.0, 0.0)
    start = scene.start if scene.start <= 0 else min(max(scene.start + begin, 0.0), duration)
    end = scene.end if scene.end >= duration else min(max(scene.end + stop, 0.0), duration)
    return Scene(scene.kind, start, end) if start < end else scene


def _distractors(
    scenes: list[Scene],
    duration: float,
    classes: Classes,
    lengths: NDArray[np.float64],
    simulation: Simulation,
    rng: np.random.Generator,
) -> list[Scene]:
    """Scenes for what the annotated ones leave.

    Few classes that come again, as those of a query with several windows do: a class that comes again
    must not tell what will be asked for.
    """
    weights = classes.frequency.copy()
    weights[[scene.kind for scene in scenes]] = 0
    if weights.sum() <= 0:
        return []
    few = min(simulation.distractors, int((weights > 0).sum()))
    kinds = rng.choice(len(weights), few, replace=False, p=weights / weights.sum())
    found = []
    for start, stop in _gaps(scenes, duration):
        begin = start
        while begin < stop:
            end = begin + float(rng.choice(lengths))
            if stop - end < simulation.row_seconds:
                end = stop
            found.append(Scene(int(rng.choice(kinds)), begin, end))
            begin = end
    return found


def _gaps(scenes: list[Scene], duration: float) -> list[tuple[float, float]]:
    found = []
    reached = 0.0
    for scene in sorted(scenes, key=lambda scene: scene.start):
        if scene.start > reached:
            found.append((reached, scene.start))
        reached = max(reached, scene.end)
    if reached < duration:
        found.append((reached, duration))
    return found


def _correlated(active: NDArray[np.bool_], coherence: float) -> Array:
    """The matrix [rows, rows] that makes white noise an AR(1) process, anew in every scene.

    Args:
        active: [scenes, rows]: which scenes a row shows.
        coherence: Correlation from one row to the next.
    """
    rows = active.shape[1]
    new = np.ones(rows, dtype=bool)
    new[1:] = (active[:, 1:] != active[:, :-1]).any(axis=0)
    first = np.maximum.accumulate(np.where(new, np.arange(rows), 0))
    here, there = np.arange(rows)[:, None], np.arange(rows)[None, :]
    within = (there <= here) & (there >= first[:, None])
    fresh = np.where(there == first[:, None], 1.0, math.sqrt(1 - coherence**2))
    steps = np.where(within, here - there, 0)
    return np.asarray(np.where(within, coherence**steps * fresh, 0.0), dtype=np.float32)


def _visible(drawn: NDArray[np.floating], faint: float) -> Array:
    """How strongly a scene is seen, [rows]: below the ``faint`` quantile of a normal number, hardly."""
    edge = statistics.NormalDist().inv_cdf(min(max(faint, 1e-9), 1 - 1e-9))
    shown = 1 / (1 + np.exp(-_STEEP * (drawn - edge)))
    return np.asarray(_FAINT + (1 - _FAINT) * shown, dtype=np.float32)
