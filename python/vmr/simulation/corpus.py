"""Which queries a simulated corpus has: the real ones, or a named part of them."""

from __future__ import annotations

import hashlib
import itertools
import math
import os
import warnings
from collections.abc import Iterable, Mapping, Sequence

import msgspec
import numpy as np

from vmr.data.annotations import read_queries
from vmr.data.glove import tokenise
from vmr.data.negatives import apart
from vmr.data.records import Query, Saliency, clipped
from vmr.errors import InputError, VmrWarning
from vmr.simulation.parameters import Simulation
from vmr.simulation.randomness import generator

TRAIN = "train"
_LONGEST_NAME = (
    200  # bytes; of a file 255, less what stands around a qid and a temporary file's name
)


class Timed(msgspec.Struct, frozen=True):
    """A sentence about some part of a video.

    Attributes:
        text: The sentence.
        windows: (start s, end s), in order and within the video.
    """

    text: str
    windows: tuple[tuple[float, float], ...]


class Corpus(msgspec.Struct, frozen=True):
    """What is simulated.

    Attributes:
        splits: Queries by split, the training split first; qids are unique among all.
        about: One line on which part of the files this is.
        durations: Seconds by video.
        scenes: All annotated windows of a video, kept queries and others: what its scenes are drawn
            around. By video, each with its split.
        witnesses: Sentences about a video by those who saw it, of which none is in a split.
    """

    splits: dict[str, tuple[Query, ...]]
    about: str
    durations: dict[str, float]
    scenes: dict[str, tuple[Timed, ...]]
    witnesses: dict[str, tuple[Timed, ...]]


def read_split(
    path: str | os.PathLike[str], durations: str | os.PathLike[str] | None
) -> tuple[Query, ...]:
    """The queries of a file that can be simulated: those with words.

    Raises:
        InputError: The file cannot be read, a query has no window, or a name cannot be a file's.
    """
    queries = read_queries(path, durations=durations)
    for query in queries:
        if not query.windows:
            raise InputError(
                f"{path}: qid {query.qid!r}: expected a window, got none: what happens when is what a "
                "simulation is built from"
            )
        for what, name in (("qid", str(query.qid)), ("video", query.video)):
            if "/" in name or "\0" in name or len(os.fsencode(name)) > _LONGEST_NAME:
                raise InputError(f"{path}: {what} {name!r:.80}: cannot be the name of a file")
    spoken = tuple(query for query in queries if tokenise(query.text))
    if len(spoken) < len(queries):
        silent = len(queries) - len(spoken)
        warnings.warn(f"{path}: {silent} queries have no words and are left out", VmrWarning, 2)
    return spoken


def make_corpus(
    files: Mapping[str, Sequence[Query]],
    simulation: Simulation,
    *,
    queries: int | None = None,
    other_queries: int | None = None,
    witnesses: Iterable[Query] = (),
) -> Corpus:
    """Chooses videos and queries.

    Where a qid of a split stands in an earlier split too, all qids of the later split are written as
    ``SPLIT-QID``, with a warning.

    Args:
        files: Queries by split, :data:`TRAIN` first.
        simulation: Its ``kept`` and ``seed`` count here.
        queries: At least so many training queries, of whole videos; None takes all.
        other_queries: The same for each other split; None takes the share that ``queries`` takes.
        witnesses: What other annotators said.

    Raises:
        InputError: More queries are asked for than there are; or a qid stands twice in a split.
    """
    kept: dict[str, list[Query]] = {}
    left: list[Query] = []
    for split, found in files.items():
        kept[split], others = _keep(split, found, simulation)
        left += others
    share = 1.0 if queries is None else queries / len(kept[TRAIN])
    splits: dict[str, tuple[Query, ...]] = {}
    said = []
    for split, found in kept.items():
        wanted = queries if split == TRAIN else other_queries
        if wanted is None and share < 1:
            wanted = max(1, round(share * len(found)))
        if wanted is not None and not 1 <= wanted <= len(found):
            raise InputError(f"{split}: expected from 1 to {len(found)} queries, got {wanted}")
        chosen = found if wanted is None else _some(split, found, wanted, simulation.seed)
        splits[split] = tuple(chosen)
        said.append(f"{split} {len(chosen)} of {len(found)}")
    _make_unique(splits)
    durations: dict[str, float] = {}
    for query in itertools.chain.from_iterable(splits.values()):
        # Files may differ by some tenths of a second.
        durations[query.video] = max(query.duration, durations.get(query.video, 0.0))
    seen = [query for query in (*left, *witnesses) if query.video in durations]
    about = f"queries: {', '.join(said)}; subset by seed {simulation.seed}"
    evaluated = {(query.video, query.text) for part in splits.values() for query in part}
    return Corpus(
        splits=splits,
        about=about,
        durations=durations,
        scenes=_by_video(
            [*(query for part in splits.values() for query in part), *left], durations
        ),
        # What is evaluated is not to be narrated: its words need no vector. `narrate` looks closer.
        witnesses=_by_video(
            [query for query in seen if (query.video, query.text) not in evaluated], durations
        ),
    )


def _keep(
    split: str, queries: Sequence[Query], simulation: Simulation
) -> tuple[list[Query], list[Query]]:
    """The queries that stay, and those that become narrators."""
    if simulation.kept == 0:
        return list(queries), []
    by_video: dict[str, list[int]] = {}
    for place, query in enumerate(queries):
        by_video.setdefault(query.video, []).append(place)
    stay: set[int] = set()
    for video, places in by_video.items():
        order = generator(simulation.seed, "kept", split, video).permutation(len(places))
        stay.update(places[number] for number in order[: simulation.kept])
    return (
        [query for place, query in enumerate(queries) if place in stay],
        [query for place, query in enumerate(queries) if place not in stay],
    )


def _some(split: str, queries: Sequence[Query], wanted: int, seed: int) -> list[Query]:
    """All queries of some videos, drawn by their names: a larger part holds a smaller one."""
    counts: dict[str, int] = {}
    for query in queries:
        counts[query.video] = counts.get(query.video, 0) + 1

    def rank(video: str) -> bytes:
        return hashlib.blake2b(f"{seed}\0{split}\0{video}".encode(), digest_size=8).digest()

    chosen: set[str] = set()
    total = 0
    for video in sorted(counts, key=rank):
        if total >= wanted:
            break
        chosen.add(video)
        total += counts[video]
    return [query for query in queries if query.video in chosen]


def _make_unique(splits: dict[str, tuple[Query, ...]]) -> None:
    taken: set[str] = set()
    for split, queries in splits.items():
        names = [str(query.qid) for query in queries]
        if not taken.isdisjoint(names):
            splits[split] = tuple(
                msgspec.structs.replace(query, qid=f"{split}-{query.qid}") for query in queries
            )
            names = [f"{split}-{name}" for name in names]
            warnings.warn(
                f"{split}: some of its qids stand in another split too: all are written as "
                f"{names[0]} and so on",
                VmrWarning,
                stacklevel=3,
            )
        for name in names:
            if name in taken:
                raise InputError(f"{split}: the qid {name!r} stands there twice, once as text")
            taken.add(name)


def _by_video(
    queries: Iterable[Query], durations: Mapping[str, float]
) -> dict[str, tuple[Timed, ...]]:
    found: dict[str, list[Timed]] = {}
    for query in queries:
        if query.video in durations:
            windows = clipped(query.windows or (), durations[query.video])
            found.setdefault(query.video, []).append(Timed(query.text, windows))
    return {video: tuple(timed) for video, timed in found.items()}


# ---- null corpora -------------------------------------------------------------------------------------


def permuted_windows(queries: Sequence[Query], seed: int, split: str) -> tuple[Query, ...]:
    """Queries with the windows, and saliency, of a query of another video.

    Times are stretched to the video's duration. A query keeps its own where all queries are about one
    video.
    """
    rng = generator(seed, "permuted windows", split)
    # Videos in a circle of random order: each gets the windows of the next, so none its own.
    videos = list(dict.fromkeys(query.video for query in queries))
    order = rng.permutation(len(videos))
    donor = {
        videos[here]: videos[there] for here, there in zip(order, np.roll(order, 1), strict=True)
    }
    of_video: dict[str, list[Query]] = {}
    for query in queries:
        of_video.setdefault(query.video, []).append(query)
    turn: dict[str, int] = {}
    result = []
    for query in queries:
        donors = of_video[donor[query.video]]
        place = turn.get(query.video, 0)
        turn[query.video] = place + 1
        result.append(_with_windows_of(query, donors[place % len(donors)]))
    return tuple(result)


def _with_windows_of(query: Query, donor: Query) -> Query:
    ratio = query.duration / donor.duration
    windows = tuple((start * ratio, end * ratio) for start, end in donor.windows or ())
    saliency = donor.saliency
    if saliency is not None:
        scores = dict(zip(saliency.clip_ids, saliency.scores, strict=True))
        clips = math.ceil(query.duration / saliency.clip_seconds)
        # The donor's clip at the same part of the video.
        at = {
            clip: min(clip * saliency.clips // clips, saliency.clips - 1) for clip in range(clips)
        }
        ids = tuple(clip for clip, there in at.items() if there in scores)
        saliency = Saliency(
            ids, tuple(scores[at[clip]] for clip in ids), clips, saliency.clip_seconds
        )
    return msgspec.structs.replace(query, windows=windows, saliency=saliency)


def negative_queries(
    queries: Sequence[Query], seed: int, split: str, *, unrelated: bool
) -> dict[int | str, tuple[int | str, ...]]:
    """Negatives of each query: those of its video that overlap it by an IoU below 0.5.

    Args:
        queries: Of one split.
        seed: Of the unrelated ones.
        split: Its name.
        unrelated: As many queries of other videos instead.
    """
    of_video: dict[str, list[Query]] = {}
    for query in queries:
        of_video.setdefault(query.video, []).append(query)
    related = {
        query.qid: [peers[place].qid for place in np.flatnonzero(row)]
        for peers in of_video.values()
        for query, row in zip(peers, apart(peers), strict=True)
    }
    result: dict[int | str, tuple[int | str, ...]] = {}
    for query in queries:
        found = related[query.qid]
        if unrelated and found:
            rng = generator(seed, "unrelated", split, query.qid)
            drawn = (queries[place] for place in rng.permutation(len(queries)))
            others = (other.qid for other in drawn if other.video != query.video)
            found = list(itertools.islice(others, len(found)))
        result[query.qid] = tuple(found)
    return result
