"""Video by video through a benchmark."""

from __future__ import annotations

import hashlib
import json
import math
import os
import threading
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from vmr.answering.file import AnswerFile, Unanswered
from vmr.answering.parts import Shard
from vmr.backends.base import Concurrent
from vmr.backends.calls import Calls
from vmr.data.records import Query
from vmr.errors import InputError, NoCaptionsError, VideoError, VmrWarning
from vmr.evaluation.predictions import Prediction
from vmr.features import CHUNK
from vmr.files import make_folder
from vmr.models.questions import checked_queries
from vmr.progress import Progress, Stopwatch, silent

if TYPE_CHECKING:
    from vmr.models.granalign import GranAlign
    from vmr.results import Result

_ODD_SECONDS, _ODD_SHARE = 2.0, 0.05  # a video's length may differ so much from the annotated one

CLIP_SECONDS = 2.0
"""Length of a clip where the annotations do not say: that of QVHighlights."""


class Outcome(NamedTuple):
    """What a run did.

    Attributes:
        path: The predictions.
        answered: Queries that are answered in the file.
        new: Those of them that this run answered.
        unanswered: Videos that could not be read.
    """

    path: Path
    answered: int
    new: int
    unanswered: list[Unanswered]


def answers(
    system: GranAlign,
    queries: Sequence[Query],
    videos: Mapping[str, Path],
    *,
    top_k: int = 10,
    progress: Progress = silent,
) -> Iterator[list[Prediction] | Unanswered]:
    """The answers to queries, video by video, in the order of the queries.

    Where the captioner says how many calls it takes at once, at least two videos are worked on at once,
    so that it is not idle while one ends and the next is opened; else one after the other. The system's
    recording, which would grow with every video, is cleared.

    Args:
        system: What answers.
        queries: The questions; those about videos that are not in ``videos`` are left out.
        videos: Files by the names of the videos.
        top_k: At most this many moments a query.
        progress: Told of videos, and of the frames of those that were begun.

    Yields:
        The predictions for a video's queries, or what was wrong with the video.

    Raises:
        BackendError: A model fails.
        InputError: A query is empty or too long, or has no duration; before the first video.
    """
    _check(queries)
    by_video: dict[str, list[Query]] = {}
    for query in queries:
        if query.video in videos:
            by_video.setdefault(query.video, []).append(query)
    progress("videos", 0, len(by_video))
    frames = _Frames(progress)
    work = (
        (1, partial(_answer, system, name, videos[name], asked, top_k, frames))
        for name, asked in by_video.items()
    )
    captioner = system.captioner
    more = math.ceil(captioner.calls_at_once / CHUNK) if isinstance(captioner, Concurrent) else 0
    odd = 0
    with closing(Calls(1 + more).in_order(work, Stopwatch(), "videos")) as calls:
        for done, ((name, asked), found) in enumerate(zip(by_video.items(), calls, strict=True), 1):
            progress("videos", done, len(by_video))
            if isinstance(found, Unanswered):
                yield found
            elif found is not None:
                annotated, seconds = asked[0].duration, found[0].duration
                if abs(seconds - annotated) > max(_ODD_SECONDS, _ODD_SHARE * annotated):
                    odd += 1
                    if odd == 1:
                        _warn(f"{name} lasts {seconds:.1f} s, and {annotated:.1f} s as annotated")
                yield [
                    _prediction(query, result) for query, result in zip(asked, found, strict=True)
                ]
    if odd > 1:
        _warn(f"{odd} videos do not last as long as annotated")


def _warn(said: str) -> None:
    advice = "are these the videos that were annotated, cut as they were then?"
    warnings.warn(f"{said}; {advice}", VmrWarning, stacklevel=3)


def _check(queries: Sequence[Query]) -> None:
    for query in queries:
        try:
            checked_queries([query.text], "GranAlign.retrieve")
        except InputError as error:
            raise InputError(f"qid {query.qid!r}: {error}") from None
        if not 0 < query.duration < math.inf:
            raise InputError(
                f"qid {query.qid!r}: duration: expected seconds above 0, got {query.duration}"
            )


class _Frames:
    """Adds up how far the videos are that are worked on."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._known: dict[str, tuple[int, int]] = {}
        self._lock = threading.Lock()

    def tell(self, video: str, stage: str, done: int, total: int) -> None:
        """A :data:`vmr.progress.Progress` for one video."""
        if stage == "frames":
            with self._lock:
                self._known[video] = done, total
                together = [sum(column) for column in zip(*self._known.values(), strict=True)]
                self._progress("frames", together[0], together[1])


def _answer(
    system: GranAlign,
    name: str,
    path: Path,
    queries: Sequence[Query],
    top_k: int,
    frames: _Frames,
) -> list[Result] | Unanswered:
    """A result for each query."""
    texts = list(dict.fromkeys(query.text.strip() for query in queries))
    try:
        results = system.retrieve(path, texts, top_k=top_k, progress=partial(frames.tell, name))
    except (VideoError, NoCaptionsError) as error:
        return Unanswered(name, len(queries), str(error))
    finally:
        system.recording.clear()
    by_text = dict(zip(texts, results, strict=True))
    return [by_text[query.text.strip()] for query in queries]


def _prediction(query: Query, result: Result) -> Prediction:
    seconds = query.saliency.clip_seconds if query.saliency is not None else CLIP_SECONDS
    clips = (
        query.saliency.clips
        if query.saliency is not None
        else max(1, math.ceil(query.duration / seconds - 1e-6))
    )
    times, scores = result.frame_scores.times, result.frame_scores.scores
    return Prediction(
        qid=query.qid,
        query=query.text,
        vid=query.video,
        pred_relevant_windows=[
            (round(moment.start, 4), round(moment.end, 4), round(moment.score, 6))
            for moment in result.moments
        ],
        pred_saliency_scores=[
            round(score, 6)
            for score in clip_scores(times, scores, result.duration, seconds, clips).tolist()
        ],
    )


def clip_scores(
    times: NDArray[np.float64],
    scores: NDArray[np.float64],
    duration: float,
    clip_seconds: float,
    clips: int,
) -> NDArray[np.float64]:
    """Frame scores as scores of clips: highlight detection as the benchmarks ask for it.

    Args:
        times: [F] seconds at which frames were sampled, the middles of the spans that they stand for.
        scores: [F] their scores.
        duration: Seconds up to which the last one counts.
        clip_seconds: Length of a clip.
        clips: Number of clips.

    Returns:
        [clips]: the mean score over the clip's time; for a clip after the last frame the lowest score.
    """
    edges = np.concatenate([[0.0], (times[1:] + times[:-1]) / 2, [duration]])
    if len(times) > 1:
        # The last span may be shorter than the others, and its middle lies nearer then.
        edges[-2] = 2 * times[-2] - edges[-3]
    area = np.concatenate([[0.0], np.cumsum(np.diff(edges) * scores)])
    bounds = np.minimum(np.arange(clips + 1) * clip_seconds, edges[-1])
    covered = np.diff(bounds)
    total = np.diff(np.interp(bounds, edges, area))
    means = total / np.where(covered > 1e-9, covered, 1.0)
    found: NDArray[np.float64] = np.where(covered > 1e-9, means, scores.min())
    return found


def answer_file(
    system: GranAlign,
    queries: Sequence[Query],
    videos: Mapping[str, Path],
    path: str | os.PathLike[str],
    *,
    data: str = "",
    shard: Shard = Shard(),  # noqa: B008
    top_k: int = 10,
    progress: Progress = silent,
) -> Outcome:
    """Writes the answers to queries as official jsonl, going on where an earlier run stopped.

    Args:
        system: What answers.
        queries: All of a benchmark's.
        videos: Files by the names of the videos.
        path: The file; a shard gets a name of its own (:meth:`Shard.name`).
        data: Name of the annotations, for the run file.
        shard: Which part of the queries.
        top_k: At most this many moments a query.
        progress: As for :func:`answers`.

    Raises:
        InputError: As for :func:`answers`; the file holds answers of another run, or another process
            writes it.
        BackendError: A model fails; what was answered so far is kept.
        CacheError: The file cannot be written.
    """
    target = shard.name(Path(path))
    make_folder(target.parent)
    part = shard.part(queries)
    own = [query for query in part if query.video in videos]
    settings = {
        "system": "granalign",
        "backends": system.backends,
        "parameters": asdict(system.config),
        "data": data,
        "queries": _digest(queries),
        "shard": str(shard),
        "top_k": top_k,
    }
    with AnswerFile(target, settings, [query.qid for query in part]) as growing:
        left = [query for query in own if query.qid not in growing.qids]
        earlier = len({query.video for query in own} - {query.video for query in left})

        def shown(stage: str, done: int, total: int) -> None:
            before = earlier if stage == "videos" else 0
            progress(stage, before + done, before + total)

        begin, before = time.monotonic(), len(growing.qids)
        unanswered: list[Unanswered] = []
        try:
            for found in answers(system, left, videos, top_k=top_k, progress=shown):
                if isinstance(found, Unanswered):
                    unanswered.append(found)
                else:
                    growing.add(found)
        except BaseException:
            growing.stop(unanswered, time.monotonic() - begin)
            raise
        growing.finish(unanswered, time.monotonic() - begin)
    answered = len(growing.qids)
    return Outcome(target, answered, answered - before, unanswered)


def _digest(queries: Sequence[Query]) -> str:
    """Of what is asked; the ground truth is not part of it."""
    asked = json.dumps([[query.qid, query.video, query.text] for query in queries])
    return hashlib.blake2b(asked.encode(), digest_size=12).hexdigest()
