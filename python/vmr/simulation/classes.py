"""What can be seen in a corpus: classes, their latents, and where a video shows which."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence

import msgspec
import numpy as np
from numpy.typing import NDArray

from vmr.data.lines import decode_json, read_document
from vmr.data.records import clipped
from vmr.errors import InputError
from vmr.simulation.corpus import TRAIN, Corpus
from vmr.simulation.parameters import Simulation
from vmr.simulation.vectors import Array, k_means, unit


class Scene(msgspec.Struct, frozen=True):
    """A part of a video that shows a class: from ``start`` to ``end``, s."""

    kind: int
    start: float
    end: float


class _Timeline(msgspec.Struct):
    actions: tuple[tuple[int | str, float, float], ...]


_TIMELINES = msgspec.json.Decoder(dict[str, _Timeline])


class Classes:
    """Classes of things that happen, known by the training sentences about them.

    A sentence reaches a scene as the number of its class and in no other way: the latent of a class is
    the mean of training sentences about *other* videos.

    Args:
        count: Number of classes.
        members: Pairs (class, training sentence); a sentence may belong to several classes.
        latents: Unit latents of the training sentences [n, d].
        texts: The training sentences.
        videos: The video of each.
        scenes: The annotated scenes of each video.
        filled: Whether what the scenes leave of a video is nothing to be filled.
    """

    def __init__(
        self,
        count: int,
        members: Sequence[tuple[int, int]],
        latents: Array,
        texts: Sequence[str],
        videos: Sequence[str],
        scenes: Mapping[str, tuple[Scene, ...]],
        *,
        filled: bool,
    ) -> None:
        self.scenes = scenes
        self.filled = filled
        self.texts = texts
        self._videos = videos
        self._bank: list[list[int]] = [[] for _ in range(count)]
        self._own: dict[tuple[int, str], int] = {}
        self._sums = np.zeros((count, latents.shape[1]))
        self._own_sums: dict[tuple[int, str], NDArray[np.float64]] = {}
        for kind, sentence in members:
            video = videos[sentence]
            row = latents[sentence].astype(np.float64)
            self._bank[kind].append(sentence)
            self._sums[kind] += row
            self._own[kind, video] = self._own.get((kind, video), 0) + 1
            self._own_sums[kind, video] = self._own_sums.get((kind, video), 0.0) + row
        sizes = np.array([len(rows) for rows in self._bank], dtype=np.float64)
        self.frequency: NDArray[np.float64] = sizes / sizes.sum()

    def _known_as(self, kind: int, video: str) -> int:
        """The class, or the next one that other videos have sentences of."""
        for step in range(len(self._bank)):
            near = (kind + step) % len(self._bank)
            if len(self._bank[near]) > self._own.get((near, video), 0):
                return near
        raise InputError(
            "expected training sentences about several videos: what a video shows is made of those "
            f"about others, and all are about {video!r}"
        )

    def latent(self, kind: int, video: str) -> Array:
        """What a class looks like in a video: a unit vector [d] that no sentence of it went into."""
        near = self._known_as(kind, video)
        return unit(self._sums[near] - self._own_sums.get((near, video), 0.0))

    def sentence(
        self, kind: int, video: str, rng: np.random.Generator, allowed: Callable[[str], bool]
    ) -> str | None:
        """A training sentence about the class in another video; None where none is allowed."""
        near = self._known_as(kind, video)
        bank = self._bank[near]
        while True:
            sentence = bank[int(rng.integers(len(bank)))]
            if self._videos[sentence] != video:
                break
        if allowed(self.texts[sentence]):
            return self.texts[sentence]
        # Seldom: only now the whole class is looked through. What is drawn next must not move.
        (aside,) = rng.spawn(1)
        others = [place for place in bank if self._videos[place] != video]
        texts = [text for text in (self.texts[place] for place in others) if allowed(text)]
        return texts[int(aside.integers(len(texts)))] if texts else None


def pseudo_classes(
    corpus: Corpus,
    texts: Sequence[str],
    latents: Array,
    others: Mapping[str, Array],
    simulation: Simulation,
) -> Classes:
    """Clusters of the training sentences; scenes lie where the sentences of a video say.

    Args:
        corpus: The queries.
        texts: The training sentences, as the corpus orders them.
        latents: Their latents [n, d].
        others: Latents [d] of all other sentences of the corpus, in which it looks up the nearest.
        simulation: Its ``classes`` and ``seed`` count here.

    Raises:
        InputError: There are more classes than different sentences.
    """
    distinct = len(set(texts))
    if simulation.classes > distinct:
        raise InputError(
            f"classes: expected at most one a different training sentence ({distinct}), got "
            f"{simulation.classes}"
        )
    centres, labels = k_means(latents, simulation.classes, simulation.seed)
    kind_of = {text: int((centres @ latent).argmax()) for text, latent in others.items()}
    kind_of.update(zip(texts, labels.tolist(), strict=True))
    scenes = {
        video: tuple(
            Scene(kind_of[timed.text], start, end) for timed in said for start, end in timed.windows
        )
        for video, said in corpus.scenes.items()
    }
    videos = [query.video for query in corpus.splits[TRAIN]]
    members = [(int(kind), sentence) for sentence, kind in enumerate(labels)]
    return Classes(simulation.classes, members, latents, texts, videos, scenes, filled=False)


def timeline_classes(
    corpus: Corpus, texts: Sequence[str], latents: Array, path: str | os.PathLike[str]
) -> Classes:
    """The classes of action timelines; a training sentence is about every action that it overlaps.

    Args:
        corpus: The queries.
        texts: The training sentences, as the corpus orders them.
        latents: Their latents [n, d].
        path: JSON, video to ``actions``, each (class, start s, end s): Charades' charades.json.

    Raises:
        InputError: The file is not right, lacks a video, or no training sentence overlaps an action.
    """
    timelines = decode_json(read_document(path), _TIMELINES, str(path))
    lacking = [video for video in corpus.durations if video not in timelines]
    if lacking:
        raise InputError(
            f"{path}: expected the actions of {len(corpus.durations)} videos; {len(lacking)} are not "
            f"there: {', '.join(lacking[:5])}"
        )
    names = sorted({str(action[0]) for line in timelines.values() for action in line.actions})
    numbers = {name: number for number, name in enumerate(names)}
    scenes = {
        video: tuple(
            Scene(numbers[str(name)], start, end)
            for name, begin, stop in timelines[video].actions
            for start, end in clipped([(begin, stop)], duration)
        )
        for video, duration in corpus.durations.items()
    }
    members = []
    for sentence, query in enumerate(corpus.splits[TRAIN]):
        windows = clipped(query.windows or (), query.duration)
        seen = {
            scene.kind
            for scene in scenes[query.video]
            for start, end in windows
            if min(end, scene.end) > max(start, scene.start)
        }
        members += [(kind, sentence) for kind in sorted(seen)]
    if not members:
        raise InputError(f"{path}: no training query overlaps an action of its video")
    videos = [query.video for query in corpus.splits[TRAIN]]
    return Classes(len(names), members, latents, texts, videos, scenes, filled=True)
