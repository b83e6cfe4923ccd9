"""Which other query stands against each query: the pools of negative queries."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Container, Mapping, Sequence
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vmr.backends import SentenceEncoder
from vmr.cache import Cache
from vmr.data.annotations import Queries
from vmr.data.packs import FeaturePack
from vmr.data.records import Query, clipped
from vmr.encoding import SentenceVectors
from vmr.errors import InputError, require
from vmr.ops.spans import span_iou
from vmr.progress import Progress, silent

Rule = Literal["paper", "same_video", "other_video"]
"""Where negative queries are from (:class:`NegativeQueries`)."""

Embeddings = Callable[[Sequence[int]], "NDArray[np.float32]"]
"""Gives the unit vectors [n, D] of the sentences of n queries, named by their places."""

IOU = 0.5
# By all-MiniLM-L6-v2, 73% of the pairs of sentences that Charades-STA has for one moment (IoU from 0.9)
# are at least so similar, and 5% of those for moments that are apart.
SIMILARITY = 0.7
_LONG = 1e-2  # how far from 1 the length of a unit vector may be, which half precision rounds


class NegativeQueries:
    """The negative queries of each query: other sentences, which are not to be found where it is.

    ===========  ====================================================================================
    rule         a query's pool
    ===========  ====================================================================================
    paper        queries of the same video at other times (every IoU of their windows with its own is
                 below ``iou``) that say something else (the cosine of both sentences is below
                 ``similarity``): BM-DETR (WACV 2025), section 3.2, principle 2
    same_video   all other queries of the same video
    other_video  all queries of other videos
    ===========  ====================================================================================

    Where the pool is empty, it is the queries of other videos. A query whose annotation has
    ``neg_query_ids`` has exactly these, whatever the rule; an empty list stands for other videos.
    Windows are cut to the video for their IoU; a query without any is at other times than all.

    Args:
        queries: Of one split.
        rule: As above.
        iou: Of the rule "paper"; 0.5 is the paper's.
        similarity: Likewise; None leaves the sentences unread. The paper names no threshold: 0.7 suits
            all-MiniLM-L6-v2, and another encoder may want another.
        embeddings: Unit vectors [len(queries), D] of all sentences; or what gives them, which is asked
            for those that have a query at other times in their video, once. The rule "paper" alone
            reads them.
        skipped: Queries that ``neg_query_ids`` may name though they are not among ``queries`` (they
            have no features); they are never drawn.
        where: What the queries are called in messages; None is their file.

    Raises:
        InputError: A threshold or an embedding is not right; ``neg_query_ids`` names no query, or the
            query itself; or a query without a pool has no other video to draw from.
    """

    def __init__(
        self,
        queries: Sequence[Query],
        rule: Rule,
        *,
        iou: float = IOU,
        similarity: float | None = SIMILARITY,
        embeddings: NDArray[np.float32] | Tensor | Embeddings | None = None,
        skipped: Sequence[Query] = (),
        where: str | None = None,
    ) -> None:
        if where is None:
            where = str(queries.path) if isinstance(queries, Queries) else "queries"
        reads = rule == "paper" and similarity is not None
        require(
            "negative queries",
            {"rule": rule, "iou": iou, "similarity": similarity, "embeddings": embeddings},
            {
                "rule": (
                    rule in ("paper", "same_video", "other_video"),
                    "paper, same_video or other_video",
                ),
                "iou": (0 <= iou <= 1, "0 to 1"),
                "similarity": (similarity is None or -1 <= similarity <= 1, "-1 to 1"),
                "embeddings": (not reads or embeddings is not None, "the sentences' vectors"),
            },
        )
        self.rule = rule
        names = [query.video for query in queries]
        codes = np.unique(names, return_inverse=True)[1].reshape(-1)
        # Queries video by video: those of other videos are all but one stretch of this order.
        self._order = np.argsort(codes, kind="stable")
        sizes = np.bincount(codes)
        self._sizes = sizes[codes]
        self._begins = (np.cumsum(sizes) - sizes)[codes]
        pools = self._pools(queries, rule, iou)
        if reads:
            _drop_similar(pools, embeddings, similarity, len(queries))
        self._listed = 0
        places = {query.qid: place for place, query in enumerate(queries)}
        gone = {query.qid for query in skipped}
        for place, query in enumerate(queries):
            if query.neg_query_ids is not None:
                named = _named(query, places, gone, where)
                pools[place] = np.array(named, dtype=np.int32)
                self._listed += 1
        lengths = np.array([len(pool) for pool in pools], dtype=np.int64)
        for place in np.flatnonzero((lengths == 0) & (self._sizes == len(queries)))[:1]:
            raise InputError(
                f"{where}: negative queries: query {queries[place].qid!r} has none in its video "
                f"({queries[place].video}) by the rule {rule}, and there is no other video"
            )
        self._ends = np.cumsum(lengths)
        self._members = np.concatenate([np.empty(0, dtype=np.int32), *pools])

    def __repr__(self) -> str:
        return (
            f"NegativeQueries({len(self)} queries, {self.rule!r}, {self.share():.0%} with a pool)"
        )

    def __len__(self) -> int:
        return len(self._order)

    def pool(self, index: int) -> NDArray[np.int32]:
        """Places of the negative queries of a query; empty where they are all of other videos."""
        if not 0 <= index < len(self):
            raise InputError(f"negative queries: expected 0 to {len(self) - 1}, got {index}")
        begin = self._ends[index - 1] if index else 0
        return self._members[begin : self._ends[index]]

    def draw(self, index: int, rng: np.random.Generator) -> int:
        """The place of a negative query of a query, all of its pool being as likely.

        Args:
            index: The query's place.
            rng: Gives one number.
        """
        pool = self.pool(index)
        if len(pool):
            return int(pool[rng.integers(len(pool))])
        place = int(rng.integers(len(self) - self._sizes[index]))
        # Past the queries of its own video.
        return int(self._order[place + (place >= self._begins[index]) * self._sizes[index]])

    def share(self) -> float:
        """Share of the queries that have a pool; the others draw from other videos."""
        return float((np.diff(self._ends, prepend=0) > 0).mean())

    def describe(self) -> str:
        """The pools as a line for people."""
        listed = f"; neg_query_ids of {self._listed:,}" if self._listed else ""
        head = f"negative queries (rule {self.rule}{listed}): "
        if not len(self._members):
            return f"{head}those of other videos for all {len(self):,} queries"
        count = int((np.diff(self._ends, prepend=0) > 0).sum())
        said = (
            f"{count:,} of {len(self):,} queries ({count / len(self):.0%}) have a pool of their own"
        )
        mean = len(self._members) / count
        rest = "" if count == len(self) else "; the others, those of other videos"
        return f"{head}{said}, {mean:.1f} on average{rest}"

    def digest(self) -> str:
        """SHA-256 of all pools."""
        found = hashlib.sha256(self._ends.astype("<i8").tobytes())
        found.update(self._members.astype("<i4").tobytes())
        return found.hexdigest()

    def _pools(self, queries: Sequence[Query], rule: Rule, iou: float) -> list[NDArray[np.int32]]:
        """By query, those of its video that the rule lets pass before any sentence is read."""
        pools = [np.empty(0, dtype=np.int32)] * len(queries)
        if rule == "other_video":
            return pools
        firsts = np.flatnonzero(np.diff(self._begins[self._order], prepend=-1))
        for places in np.split(self._order.astype(np.int32), firsts[1:]):
            if len(places) < 2:
                continue
            if rule == "paper":
                passing = apart([queries[place] for place in places], iou)
            else:
                passing = ~np.eye(len(places), dtype=bool)
            for place, row in zip(places, passing, strict=True):
                pools[place] = places[row]
        return pools


def apart(queries: Sequence[Query], iou: float = IOU) -> NDArray[np.bool_]:
    """Which pairs of queries of one video are at other times: all IoUs of their windows below ``iou``.

    Returns:
        [n, n], symmetric; no query is apart from itself.
    """
    windows = [clipped(query.windows or (), query.duration) for query in queries]
    flat = torch.tensor([window for each in windows for window in each], dtype=torch.float64)
    owners = np.repeat(np.arange(len(queries)), [len(each) for each in windows])
    found = ~np.eye(len(queries), dtype=bool)
    if len(owners):
        close = (span_iou(flat, flat) >= iou).numpy()
        # Several windows may say the same of a pair.
        rows, columns = np.nonzero(close)
        found[owners[rows], owners[columns]] = False
    return found


def sentence_embeddings(
    queries: Sequence[Query],
    encoder: Callable[[], SentenceEncoder],
    *,
    cache: Cache | None = None,
    progress: Progress = silent,
) -> Embeddings:
    """Embeddings by a sentence encoder, which is opened where there is a sentence to read.

    Args:
        queries: Whose places are asked for.
        encoder: Opens it.
        cache: Where vectors are kept between runs.
        progress: Told how many sentences are done.
    """

    def embed(places: Sequence[int]) -> NDArray[np.float32]:
        texts = [queries[place].text for place in places]
        vectors = SentenceVectors(encoder(), cache, progress)
        vectors.add(texts, "sentences")
        return vectors.rows(texts)

    return embed


def token_embeddings(
    queries: Sequence[Query], pack: FeaturePack, *, progress: Progress = silent
) -> Embeddings:
    """Embeddings by a feature pack: the mean of a sentence's tokens, at length 1."""

    def embed(places: Sequence[int]) -> NDArray[np.float32]:
        found = []
        for done, place in enumerate(places, 1):
            mean = pack.text(queries[place]).mean(axis=0)
            found.append(mean / max(float(np.linalg.norm(mean)), 1e-12))
            progress("read sentences", done, len(places))
        return np.stack(found).astype(np.float32)

    return embed


def _drop_similar(
    pools: list[NDArray[np.int32]],
    embeddings: NDArray[np.float32] | Tensor | Embeddings | None,
    similarity: float | None,
    count: int,
) -> None:
    """Takes the queries out of each pool whose sentence is too similar."""
    asked = np.array([place for place, pool in enumerate(pools) if len(pool)], dtype=np.int64)
    if not len(asked):
        return
    if callable(embeddings):
        vectors = _checked(embeddings(asked.tolist()), len(asked))
        rows = np.zeros(count, dtype=np.int64)
        # Whoever is in a pool has one: queries are apart both ways.
        rows[asked] = np.arange(len(asked))
    else:
        vectors, rows = _checked(embeddings, count), np.arange(count)
    for place in asked:
        pool = pools[place]
        cosines = vectors[rows[pool]] @ vectors[rows[place]]
        pools[place] = pool[cosines < similarity]


def _checked(given: object, count: int) -> NDArray[np.float32]:
    vectors = np.asarray(given.detach().cpu() if isinstance(given, Tensor) else given)
    if vectors.ndim != 2 or len(vectors) != count:
        raise InputError(
            f"negative queries: embeddings: expected [{count}, D], a vector a query, got "
            f"{list(vectors.shape)}"
        )
    vectors = vectors.astype(np.float32)
    lengths = np.linalg.norm(vectors, axis=1)
    wrong = ~((np.abs(lengths - 1) < _LONG) | (lengths == 0))
    if wrong.any():
        place = int(wrong.argmax())
        raise InputError(
            "negative queries: embeddings: expected vectors of length 1 (or 0), got length "
            f"{lengths[place]:g} in row {place}"
        )
    return vectors


def _named(
    query: Query, places: Mapping[int | str, int], gone: Container[int | str], where: str
) -> list[int]:
    """The places of the queries that the annotation of one names."""
    found = []
    for qid in query.neg_query_ids or ():
        if qid == query.qid or (qid not in places and qid not in gone):
            line = f", line {query.line}" if query.line else ""
            said = "the query itself" if qid == query.qid else "no query of the file"
            raise InputError(
                f"{where}{line}: neg_query_ids: expected qids of other queries, got {qid!r}: {said}"
            )
        if qid in places:
            found.append(places[qid])
    return found
