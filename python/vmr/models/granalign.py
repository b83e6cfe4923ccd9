"""GranAlign: training-free video moment retrieval at matched granularities (AAAI 2026).

A query is rewritten into m pairs of a simplified and a detailed form. All frames get a query-agnostic
caption, the frames nearest to the query a query-aware one as well. The simplified forms are compared
with the agnostic captions, the detailed forms with the aware ones; frames that score high are merged
into proposals, which are scored, filtered and thinned by NMS. docs/papers/granalign.md says which of
the parameters the paper gives.
"""

from __future__ import annotations

import math
import os
import threading
import warnings
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, fields
from functools import partial
from itertools import zip_longest
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from vmr import backends, ops
from vmr.backends.base import (
    Captioner,
    Encoder,
    Rewrite,
    Rewriter,
    SentenceEncoder,
    calls_at_once,
)
from vmr.backends.calls import Calls
from vmr.backends.recorded import Recorder
from vmr.backends.rewriting import clean_rewrite
from vmr.cache import Cache, Key, pack_texts, unpack_texts
from vmr.errors import BackendError, InputError, VmrWarning
from vmr.features import CHUNK, DescribedVideo, Describer, checked_captions, embed_captions
from vmr.models.granalign_config import GranAlignConfig, QueryForm
from vmr.models.questions import checked_queries
from vmr.moments import Moment
from vmr.progress import Progress, Stopwatch, silent
from vmr.results import FrameScores, Result, Results


@dataclass(frozen=True, slots=True)
class _Rewritten:
    """A query's forms, m of each; a form that was dropped is the query itself."""

    query: str
    simplified: list[str]
    detailed: list[str]
    dropped: list[dict[str, str]]

    def form(self, form: QueryForm) -> list[str]:
        forms = {"simplified": self.simplified, "detailed": self.detailed}
        return forms.get(form, [self.query] * len(self.simplified))


@dataclass(frozen=True, slots=True, eq=False)
class _Aware:
    """A query's query-aware captions."""

    frames: NDArray[np.int64]  # [K] indices
    captions: list[str]
    vectors: NDArray[np.float32]  # [K, D]


class GranAlign:
    """The training-free system.

    Attributes:
        recording: The captions and rewrites of all its answers; ``recording.save(FILE)`` writes them for
            the recorded backend.

    Args:
        config: Parameters; ``options`` are single ones of them, e.g. ``every=0.5``.
        encoder, sentence_encoder, rewriter, captioner: A model by a string ("embedded",
            "transformers:MODEL", a URL, "recorded:FILE", "none"; :mod:`vmr.backends` says which part
            takes what) or an object with the members of the protocol in :mod:`vmr.backends.base`.
        cache: Where captions and embeddings are kept between runs; "default" is the user's cache
            folder, None keeps nothing.

    Raises:
        InputError: For an unknown parameter, a value out of its range or an unknown backend.
        BackendError: Where a model is not installed. Where the embedded rewriter is missing or fails,
            that is only a warning: queries then go unrewritten.
    """

    def __init__(
        self,
        config: GranAlignConfig | None = None,
        *,
        encoder: str | Encoder = "embedded",
        sentence_encoder: str | SentenceEncoder = "embedded",
        rewriter: str | Rewriter = "embedded",
        captioner: str | Captioner = "embedded",
        cache: Cache | Literal["default"] | None = "default",
        **options: Any,
    ) -> None:
        names = [field.name for field in fields(GranAlignConfig)]
        for option in options:
            if option not in names:
                raise InputError(f"GranAlign: expected one of {', '.join(names)}; got {option!r}")
        base = {name: getattr(config, name) for name in names} if config else {}
        self.config = GranAlignConfig(**{**base, **options})
        self.encoder = backends.load_encoder(encoder)
        self.sentence_encoder = backends.load_sentence_encoder(sentence_encoder)
        self.captioner = backends.load_captioner(captioner)
        # Without the default's language model queries go unrewritten; what a user names must be there.
        self._needs_rewriter = rewriter != "embedded"
        self.rewriter: Rewriter | None = None
        try:
            self.rewriter = backends.load_rewriter(rewriter)
        except BackendError as error:
            if self._needs_rewriter:
                raise
            _warn_unrewritten(error)
        self.cache = Cache() if cache == "default" else cache
        self.recording = Recorder()
        self._captioner_calls = Calls(calls_at_once(self.captioner))
        self._rewriter_calls = Calls(calls_at_once(self.rewriter))
        # Several threads may retrieve at once; an encoder answers one of them at a time.
        self._one_at_a_time = threading.Lock()

    @property
    def backends(self) -> dict[str, str]:
        """Which model plays which part, by name."""
        return {
            "encoder": self.encoder.name,
            "sentence encoder": self.sentence_encoder.name,
            "rewriter": self.rewriter.name if self.rewriter is not None else "none",
            "captioner": self.captioner.name,
        }

    def retrieve(
        self,
        video: str | os.PathLike[str],
        queries: str | Sequence[str],
        *,
        top_k: int = 5,
        progress: Progress = silent,
    ) -> Results:
        """The moments of a video that fit each query, and a score for every sampled frame.

        Args:
            video: Path of a video file.
            queries: One sentence or several.
            top_k: At most this many moments a query.
            progress: Called with the stage, what is done and what there is to do.

        Returns:
            One :class:`vmr.Result` a query, in the order of the queries.

        Raises:
            InputError: For an empty or overlong query, or ``top_k`` below 1.
            VideoError: Where the file is missing, not a video or holds no frames.
            BackendError: Where a model fails.
        """
        sentences = checked_queries(queries, "GranAlign.retrieve")
        if top_k < 1:
            raise InputError(f"GranAlign.retrieve: top_k: expected at least 1, got {top_k}")
        watch = Stopwatch()
        describer = Describer(
            self.encoder,
            self.captioner,
            self.sentence_encoder,
            self.cache,
            self.config.every,
            self._captioner_calls,
            self._one_at_a_time,
        )
        with torch.inference_mode():
            # Rewritten first: what is wrong with the queries shows before the long work.
            rewritten = self._rewrite(sentences, watch)
            described = describer.describe(Path(video), progress=progress, watch=watch)
            name = described.info.path.name
            self.recording.add_captions(name, described.times.tolist(), described.captions)
            aware = self._aware(described, sentences, progress, watch)
            with self._one_at_a_time, watch.stage("score"):
                scores = self._score(described, rewritten, aware)
                moments = self._moments(described, scores, top_k)
        return Results(
            [
                Result(
                    video=os.fspath(video),
                    duration=described.duration,
                    query=query,
                    moments=found,
                    frame_scores=FrameScores(described.times, row),
                    explanation=_explain(described, forms, captions),
                )
                for query, found, row, forms, captions in zip(
                    sentences, moments, scores.double().numpy(), rewritten, aware, strict=True
                )
            ],
            backends=self.backends,
            timings=watch.seconds,
        )

    # ---- granularity-based query rewriting ----------------------------------------------------------

    def _rewrite(self, queries: Sequence[str], watch: Stopwatch) -> list[_Rewritten]:
        forms = {self.config.agnostic_query, self.config.aware_query}
        rewriter = self.rewriter if forms & {"simplified", "detailed"} else None
        if rewriter is None:
            return [self._unrewritten(query) for query in queries]
        work = ((1, partial(self._raw_rewrites, rewriter, query)) for query in queries)
        raw: list[list[Rewrite] | None] = []
        try:
            raw.extend(self._rewriter_calls.in_order(work, watch, "rewrite queries"))
        except BackendError as error:
            if self._needs_rewriter:
                raise
            self.rewriter = None
            _warn_unrewritten(error)
        with self._one_at_a_time, watch.stage("judge rewrites"):
            return [
                self._judged(query, rewrites) if rewrites else self._unrewritten(query)
                for query, rewrites in zip_longest(queries, raw)
            ]

    def _judged(self, query: str, raw: Sequence[Rewrite]) -> _Rewritten:
        """The rewrites that mean what the query means."""
        self.recording.add_rewrites(query, raw)
        answers = [rewrite.simple for rewrite in raw] + [rewrite.detailed for rewrite in raw]
        texts = [clean_rewrite(answer) for answer in answers]
        vectors = embed_captions(self.sentence_encoder, [query, *texts])
        intent = vectors[1:] @ vectors[0]
        kept: list[str] = []
        dropped: list[dict[str, str]] = []
        for answer, text, similarity in zip(answers, texts, intent, strict=True):
            if text and similarity >= self.config.min_intent:
                kept.append(text)
                continue
            reason = (
                f"similarity {similarity:.2f} below {self.config.min_intent:.2f}"
                if text
                else "no answer, or talk around it"
            )
            dropped.append({"text": answer, "reason": reason})
            kept.append(query)
        return _Rewritten(query, kept[: len(raw)], kept[len(raw) :], dropped)

    def _unrewritten(self, query: str) -> _Rewritten:
        same = [query] * self.config.pairs
        return _Rewritten(query, same, same, [])

    def _raw_rewrites(self, rewriter: Rewriter, query: str) -> list[Rewrite]:
        pairs = self.config.pairs
        key = Key("", "rewrites", rewriter.name, f"pairs={pairs} query={query}")
        kept = self.cache.get(key) if self.cache is not None else None
        if kept is not None:
            texts = unpack_texts(kept["rewrites"])
            return [
                Rewrite(simple, detailed)
                for simple, detailed in zip(texts[::2], texts[1::2], strict=True)
            ]
        rewrites = rewriter.rewrite(query, pairs)
        if len(rewrites) != pairs:
            raise BackendError(
                f"rewriter {rewriter.name}: expected {pairs} pairs of rewrites, got {len(rewrites)}"
            )
        if self.cache is not None:
            texts = [text for rewrite in rewrites for text in (rewrite.simple, rewrite.detailed)]
            self.cache.put(key, {"rewrites": pack_texts(texts)})
        return rewrites

    # ---- query-aware captions -----------------------------------------------------------------------

    def _aware(
        self,
        described: DescribedVideo,
        queries: Sequence[str],
        progress: Progress,
        watch: Stopwatch,
    ) -> list[_Aware]:
        with self._one_at_a_time, watch.stage("choose frames"):
            chosen = self._chosen(described, queries)
        chunks = [
            (place, frames[begin : begin + CHUNK])
            for place, frames in enumerate(chosen)
            for begin in range(0, len(frames), CHUNK)
        ]
        work = (
            (len(frames), partial(self._aware_chunk, described, queries[place], frames))
            for place, frames in chunks
        )
        spoken: list[list[str]] = [[] for _ in queries]
        progress("queries", 0, len(queries))
        calls = self._captioner_calls.in_order(work, watch, "query-aware captions")
        with closing(calls) as answers:
            for (place, _), captions in zip(chunks, answers, strict=True):
                spoken[place] += captions or []
                if len(spoken[place]) == len(chosen[place]):
                    progress("queries", place + 1, len(queries))
        progress("queries", len(queries), len(queries))
        name, aware = described.info.path.name, []
        for query, frames, captions in zip(queries, chosen, spoken, strict=True):
            self.recording.add_captions(name, described.times[frames].tolist(), captions, query)
            has_words = np.array([bool(caption) for caption in captions], dtype=bool)
            captions = [caption for caption in captions if caption]
            with self._one_at_a_time, watch.stage("embed captions"):
                vectors = embed_captions(self.sentence_encoder, captions)
            aware.append(_Aware(frames[has_words], captions, vectors))
        return aware

    def _chosen(self, described: DescribedVideo, queries: Sequence[str]) -> list[NDArray[np.int64]]:
        """The frames of each query that get a query-aware caption, in order of time."""
        count = math.ceil(self.config.aware_percent / 100 * len(described.times))
        if self.config.aware_query == "none" or count == 0:
            return [np.empty(0, np.int64)] * len(queries)
        similarity = self.encoder.encode_texts(queries) @ described.features.T
        # The frames most like the query, equal ones by time, put back into their order.
        best = np.argsort(-similarity, axis=1, kind="stable")[:, :count]
        return list(np.sort(best, axis=1).astype(np.int64))

    def _aware_chunk(
        self, described: DescribedVideo, query: str, indices: NDArray[np.int64]
    ) -> list[str]:
        key = Key(
            described.digest,
            "query-aware captions",
            self.captioner.name,
            f"every={described.every!r} frames={indices.tolist()} query={query}",
        )
        kept = self.cache.get(key) if self.cache is not None else None
        if kept is not None:
            return unpack_texts(kept["captions"])
        focus = backends.focus_of(query)
        captions = checked_captions(
            self.captioner,
            described.frames(indices),
            lambda frames: self.captioner.caption_for(frames, focus),
        )
        if self.cache is not None:
            self.cache.put(key, {"captions": pack_texts(captions)})
        return captions

    # ---- granular scoring and proposals -------------------------------------------------------------

    def _score(
        self, described: DescribedVideo, rewritten: Sequence[_Rewritten], aware: Sequence[_Aware]
    ) -> torch.Tensor:
        """S_f of every query and frame: [Q, F]."""
        config = self.config
        # One channel alone is the mean over its own rewrites: its weight is then 1, not 1/2.
        channels = (config.agnostic_query != "none") + (config.aware_query != "none")
        weight = 1.0 / channels
        splits = np.cumsum([0, *(len(captions.frames) for captions in aware)])
        return ops.granular_scores(
            self._query_vectors(rewritten, config.agnostic_query),
            self._query_vectors(rewritten, config.aware_query),
            torch.from_numpy(described.caption_vectors),
            torch.from_numpy(np.concatenate([captions.vectors for captions in aware])),
            torch.from_numpy(np.concatenate([captions.frames for captions in aware])),
            torch.from_numpy(splits),
            normalization=config.normalization,
            agnostic_weight=0.0 if config.agnostic_query == "none" else weight,
            aware_weight=0.0 if config.aware_query == "none" else weight,
        )

    def _query_vectors(self, rewritten: Sequence[_Rewritten], form: QueryForm) -> torch.Tensor:
        """Sentence embeddings [Q, m, D] of one form of every query."""
        texts = [forms.form(form) for forms in rewritten]
        vectors = embed_captions(self.sentence_encoder, [text for row in texts for text in row])
        return torch.from_numpy(vectors).reshape(len(texts), len(texts[0]), -1)

    def _moments(
        self, described: DescribedVideo, scores: torch.Tensor, top_k: int
    ) -> list[tuple[Moment, ...]]:
        config = self.config
        frames = torch.full((len(scores),), scores.shape[1])
        sd, mean = torch.std_mean(scores, dim=1, correction=0)
        spans, values, _, counts = ops.granular_proposals(
            scores,
            frames,
            # Rounding must not lift the threshold of a constant row above its scores.
            torch.minimum(mean + config.threshold_sd * sd, scores.amax(dim=1)),
            max_gap=math.floor(config.max_gap / config.every + 1e-9),
            drop_percent=config.drop_percent,
            length_weight=config.length_weight,
            length_normalization=config.length_normalization,
        )
        most = int(counts.max())
        spans, values = spans[:, :most], values[:, :most]
        seconds = torch.stack([spans[..., 0], spans[..., 1] + 1], dim=-1).double() * config.every
        seconds.clamp_(max=described.duration)
        kept, kept_counts = ops.span_nms(
            seconds, values.double(), counts, iou_threshold=config.nms_iou, top_k=top_k
        )
        return [
            tuple(
                Moment(
                    start=seconds[query, place, 0].item(),
                    end=seconds[query, place, 1].item(),
                    score=values[query, place].item(),
                )
                for place in kept[query, : kept_counts[query]].tolist()
            )
            for query in range(len(scores))
        ]


def _warn_unrewritten(error: BackendError) -> None:
    warnings.warn(
        f"no language model for rewriting, so queries go unrewritten ({error})",
        VmrWarning,
        stacklevel=3,
    )


def _explain(described: DescribedVideo, rewritten: _Rewritten, aware: _Aware) -> dict[str, Any]:
    return {
        "simplified": rewritten.simplified,
        "detailed": rewritten.detailed,
        "dropped_rewrites": rewritten.dropped,
        "query_aware_captions": [
            {"time": round(float(described.times[frame]), 3), "caption": caption}
            for frame, caption in zip(aware.frames, aware.captions, strict=True)
        ],
    }
