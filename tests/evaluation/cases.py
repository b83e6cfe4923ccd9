"""Predictions and ground truth with everything in them that evaluators stumble over.

Python's own random numbers are the same on every machine, so the cases need not be stored; what the
official evaluators make of them is (tests/golden/evaluation.json).
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

Record = dict[str, Any]


@dataclass
class Case:
    """Records for one protocol.

    Attributes:
        as_published: Whether the case holds what vmr refuses otherwise.
        limit: BM-DETR's seconds of a video.
        dataset: The official code's name of the data set, where it asks for one.
    """

    protocol: str
    ground_truth: list[Record]
    predictions: list[Record]
    as_published: bool = False
    limit: int | None = None
    dataset: str = "hl"


def ground_truth(
    rng: random.Random,
    queries: int,
    *,
    duration: int = 60,
    windows: int = 3,
    saliency: bool = True,
    lengths: tuple[int, int] = (1, 20),
) -> list[Record]:
    """Queries with disjoint windows of whole clips of 2 s."""
    records = []
    clips = duration // 2
    for qid in range(queries):
        starts = sorted(rng.sample(range(clips - 1), rng.randint(1, windows)))
        found = []
        for start, following in zip(starts, [*starts[1:], clips], strict=True):
            end = min(start + rng.randint(*lengths), following)
            if end > start:
                found.append([2 * start, 2 * end])
        record: Record = {
            "qid": qid,
            "query": f"query {qid}",
            "duration": duration,
            "vid": f"video{qid // 2}",
            "relevant_windows": found,
        }
        if saliency:
            ids = [clip for start, end in found for clip in range(start // 2, end // 2)]
            record["relevant_clip_ids"] = ids
            record["saliency_scores"] = [[rng.randint(0, 4) for _ in range(3)] for _ in ids]
        records.append(record)
    return records


def prediction(
    rng: random.Random, query: Record, windows: int = 10, *, ties: bool = False
) -> Record:
    """One prediction; near the ground truth in half of its windows."""
    found = []
    for place in range(windows):
        if query["relevant_windows"] and rng.random() < 0.5:
            start, end = rng.choice(query["relevant_windows"])
            start, end = (
                start + rng.choice([-2, -1, 0, 0, 0.4, 1]),
                end + rng.choice([-1, 0, 0, 1.3]),
            )
        else:
            start = rng.uniform(0, query["duration"] - 4)
            end = start + rng.uniform(1, 30)
        start, end = max(0.0, min(start, end)), max(start, end)
        score = (
            rng.choice([0.9, 0.5, 0.5, 0.1]) if ties else 1 - place / windows + 0.01 * rng.random()
        )
        found.append([round(start, 4), round(end, 4), round(score, 4)])
    found.sort(key=lambda window: -window[2])
    record = {
        "qid": query["qid"],
        "query": query["query"],
        "vid": query["vid"],
        "pred_relevant_windows": found,
    }
    if "saliency_scores" in query:
        levels = [-0.5, 0.0, 0.25, 0.25, 0.5] if ties else None
        record["pred_saliency_scores"] = [
            rng.choice(levels) if levels else round(rng.uniform(-1, 1), 4)
            for _ in range(query["duration"] // 2)
        ]
    return record


def _plain(protocol: str, *, ties: bool = False, **how: Any) -> Callable[[random.Random], Case]:
    def build(rng: random.Random) -> Case:
        truth = ground_truth(rng, 40, **how)
        return Case(protocol, truth, [prediction(rng, query, ties=ties) for query in truth])

    return build


def _sizes(protocol: str) -> Callable[[random.Random], Case]:
    """Fewer and more than ten windows, duplicates of windows, no length, past the end, unsorted."""

    def build(rng: random.Random) -> Case:
        truth = ground_truth(rng, 40)
        predictions = []
        for query in truth:
            record = prediction(rng, query, rng.choice([1, 2, 5, 9, 11, 14]))
            windows = record["pred_relevant_windows"]
            if rng.random() < 0.3:
                windows.insert(1, list(windows[0]))
            if rng.random() < 0.3:
                windows[0][1] = windows[0][0]
            if rng.random() < 0.3:
                windows[-1][1] = query["duration"] + 20.0
            if rng.random() < 0.3:
                rng.shuffle(windows)
            predictions.append(record)
        return Case(protocol, truth, predictions)

    return build


def _moments_alone(protocol: str, **more: Any) -> Callable[[random.Random], Case]:
    def build(rng: random.Random) -> Case:
        truth = ground_truth(rng, 40, saliency=False)
        return Case(protocol, truth, [prediction(rng, query) for query in truth], **more)

    return build


def _accidents(protocol: str) -> Callable[[random.Random], Case]:
    """What vmr refuses unless asked to score as published."""

    def build(rng: random.Random) -> Case:
        truth = ground_truth(rng, 40)
        predictions = []
        for query in truth:
            record = prediction(rng, query, rng.choice([3, 10, 12]))
            windows = record["pred_relevant_windows"]
            chance = rng.random()
            if chance < 0.15:
                rng.choice(windows)[rng.randint(0, 1)] = math.nan
            elif chance < 0.3:
                window = rng.choice(windows)
                window[0], window[1] = window[1], window[0]
            elif chance < 0.4:
                windows[rng.randrange(len(windows))][2] = math.nan
            elif chance < 0.5:
                windows[rng.randrange(len(windows))][2] = math.inf
            scores = record["pred_saliency_scores"]
            if rng.random() < 0.2:
                del scores[rng.randint(1, 10) :]
            elif rng.random() < 0.2:
                scores += [rng.uniform(-1, 1) for _ in range(rng.randint(1, 30))]
            predictions.append(record)
            if rng.random() < 0.15:
                predictions.append(prediction(rng, query, 4))
        return Case(protocol, truth, predictions, as_published=True)

    return build


def _no_length(protocol: str) -> Callable[[random.Random], Case]:
    """Ground truth and predictions of no length."""

    def build(rng: random.Random) -> Case:
        truth = ground_truth(rng, 30, saliency=False)
        for query in truth[::3]:
            start = query["relevant_windows"][0][0]
            query["relevant_windows"][0] = [start, start]
        predictions = [prediction(rng, query, 6) for query in truth]
        for record in predictions[::2]:
            start = record["pred_relevant_windows"][0][0]
            record["pred_relevant_windows"][0][1] = start
        return Case(protocol, truth, predictions, as_published=True)

    return build


def _long(protocol: str) -> Callable[[random.Random], Case]:
    """Windows of minutes, some longer than 1,500 s, and none that is short."""

    def build(rng: random.Random) -> Case:
        truth = ground_truth(rng, 30, duration=4000, saliency=False, windows=2, lengths=(6, 1200))
        predictions = [prediction(rng, query) for query in truth]
        return Case(protocol, truth, predictions, as_published=protocol == "univtg")

    return build


def _limited(rng: random.Random) -> Case:
    """BM-DETR outside QVHighlights and Charades-STA: ground truth ends where its rows end."""
    truth = ground_truth(rng, 40, duration=120, saliency=False)
    predictions = [prediction(rng, query) for query in truth]
    return Case("bm-detr", truth, predictions, limit=75, dataset="tacos")


def _emb(rng: random.Random) -> Case:
    truth = ground_truth(rng, 60, windows=1, saliency=False)
    for query in truth[::4]:
        query["relevant_windows"][0][1] = query["duration"] + rng.uniform(0, 2)
    return Case("emb", truth, [prediction(rng, query, 1) for query in truth])


def _tvsum(protocol: str) -> Callable[[random.Random], Case]:
    def build(rng: random.Random) -> Case:
        return _tvsum_case(protocol, rng)

    return build


def _youtube(protocol: str) -> Callable[[random.Random], Case]:
    def build(rng: random.Random) -> Case:
        return _youtube_case(protocol, rng)

    return build


def _tvsum_case(protocol: str, rng: random.Random) -> Case:
    truth, predictions = [], []
    for video in range(10):
        clips = rng.randint(4, 40)
        labels = [[rng.randint(1, 5) for _ in range(20)] for _ in range(clips)]
        truth.append(_labelled(video, clips, labels))
        predictions.append(_scored(rng, video, clips))
    return Case(protocol, truth, predictions, dataset="tvsum")


def _youtube_case(protocol: str, rng: random.Random) -> Case:
    truth, predictions = [], []
    for video in range(20):
        clips = rng.randint(2, 30)
        match = [rng.choice([-1, 0, 1]) if video % 5 else -1 for _ in range(clips)]
        record = _labelled(video, clips, [[int(value == 1)] for value in match])
        record["match"] = match
        record["clip"] = [[50 * clip, 50 * clip + 100] for clip in range(clips)]
        record["frames"], record["fps"] = 50 * clips + 50, 25
        truth.append(record)
        predictions.append(_scored(rng, video, clips))
    return Case(protocol, truth, predictions, dataset="youtube_highlight")


def _labelled(video: int, clips: int, labels: list[list[int]]) -> Record:
    return {
        "qid": f"v{video}",
        "query": "a title",
        "duration": clips,
        "vid": f"v{video}",
        "domain": "AB"[video % 2],
        "relevant_windows": None,
        "label": labels,
    }


def _scored(rng: random.Random, video: int, clips: int) -> Record:
    # The official code sorts in single precision, and equal scores in no order that it would keep.
    scores = [number / 64 for number in rng.sample(range(-256, 256), clips)]
    return {"qid": f"v{video}", "vid": f"v{video}", "pred_saliency_scores": scores}


def _by_protocol(name: str, *protocols: str) -> dict[str, Callable[[random.Random], Case]]:
    makers: dict[str, Callable[[str], Callable[[random.Random], Case]]] = {
        "plain": _plain,
        "ties": lambda protocol: _plain(protocol, ties=True),
        "sizes": _sizes,
        "moments": _moments_alone,
        "accidents": _accidents,
        "no-length": _no_length,
        "long": _long,
        "tvsum": _tvsum,
        "youtube": _youtube,
    }
    return {f"{protocol}/{name}": makers[name](protocol) for protocol in protocols}


_DETR = ("qvhighlights", "lighthouse", "univtg", "bm-detr")
_BUILDERS: dict[str, Callable[[random.Random], Case]] = {
    **_by_protocol("plain", *_DETR),
    **_by_protocol("ties", *_DETR),
    **_by_protocol("sizes", *_DETR),
    **_by_protocol("moments", "qvhighlights", "lighthouse", "univtg"),
    **_by_protocol("accidents", *_DETR),
    **_by_protocol("no-length", "lighthouse", "univtg"),
    **_by_protocol("long", "lighthouse", "univtg"),
    **_by_protocol("tvsum", "lighthouse", "univtg"),
    **_by_protocol("youtube", "lighthouse", "univtg"),
    "bm-detr/charades": _moments_alone("bm-detr", dataset="charades"),
    "bm-detr/limited": _limited,
    "emb/plain": _emb,
}
NAMES = tuple(_BUILDERS)


def case(name: str) -> Case:
    """The case of that name, the same every time."""
    return _BUILDERS[name](random.Random(name))
