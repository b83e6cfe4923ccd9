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
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from vmr import backends, ops
from vmr.backends.base import Captioner, Encoder, Rewrite, Rewriter, SentenceEncoder
from vmr.backends.recorded import Recorder
from vmr.backends.rewriting import clean_rewrite
from vmr.cache import Cache, Key, pack_texts, unpack_texts
from vmr.errors import BackendError, InputError, VmrWarning
from vmr.features import CHUNK, DescribedVideo, Describer, checked_captions, embed_captions
from vmr.moments import Moment
from vmr.progress import Progress, Stopwatch, silent
from vmr.results import FrameScores, Result, Results

MAX_QUERY_CHARACTERS = 1000
"""A query is a sentence or a few; what is longer is refused."""

QueryForm = Literal["original", "simplified", "detailed", "none"]


@dataclass(frozen=True, slots=True)
class GranAlignConfig:
    """The parameters of GranAlign; "paper" marks the values that the paper gives, the others are ours.

    Attributes:
        every: Seconds between two sampled frames.
        pairs: m, the number of rewrite pairs (paper: 3).
        min_intent: A rewrite whose sentence similarity (cosine) to the query is below is dropped.
        aware_percent: K, the share of frames in percent that get a query-aware caption.
        agnostic_query: The form of the query that is compared with the query-agnostic captions
            (paper: simplified); "none" leaves this channel out.
        aware_query: The same for the query-aware captions (paper: detailed).
        normalization: g: "cosine" is (1 + cos) / 2, "min_max" scales each rewrite's cosines to [0, 1]
            over the video.
        threshold_sd: A frame is high-scoring from the mean of the video's frame scores plus this many
            standard deviations.
        max_gap: tau, seconds between two high-scoring frames that are still merged.
        drop_percent: n, the share of proposals in percent, lowest mean similarity first, that is
            dropped.
        length_weight: lambda in Score(p) = (1 - lambda) mu_p + lambda rho_p (paper: 0.3).
        length_normalization: rho is the proposal's length over that of the video ("duration") or of the
            query's longest proposal ("max").
        nms_iou: A moment whose temporal IoU with a better one exceeds this is left out.
    """

    every: float = 1.0
    pairs: int = 3
    min_intent: float = 0.8
    aware_percent: float = 20.0
    agnostic_query: QueryForm = "simplified"
    aware_query: QueryForm = "detailed"
    normalization: Literal["cosine", "min_max"] = "cosine"
    threshold_sd: float = 0.5
    max_gap: float = 2.0
    drop_percent: float = 20.0
    length_weight: float = 0.3
    length_normalization: Literal["duration", "max"] = "duration"
    nms_iou: float = 0.5

    def __post_init__(self) -> None:
        rules: dict[str, tuple[bool, str]] = {
            "every": (0 < self.every < math.inf, "seconds above 0"),
            "pairs": (self.pairs >= 1, "a whole number from 1"),
            "min_intent": (-1 <= self.min_intent <= 1, "a cosine from -1 to 1"),
            "aware_percent": (0 <= self.aware_percent <= 100, "percent from 0 to 100"),
            "agnostic_query": _choice(self.agnostic_query, QueryForm),
            "aware_query": _choice(self.aware_query, QueryForm),
            "normalization": _choice(self.normalization, Literal["cosine", "min_max"]),
            "threshold_sd": (math.isfinite(self.threshold_sd), "a finite number"),
            "max_gap": (0 <= self.max_gap < math.inf, "seconds from 0"),
            "drop_percent": (0 <= self.drop_percent <= 100, "percent from 0 to 100"),
            "length_weight": (0 <= self.length_weight <= 1, "a weight from 0 to 1"),
            "length_normalization": _choice(self.length_normalization, Literal["duration", "max"]),
            "nms_iou": (0 <= self.nms_iou <= 1, "an IoU from 0 to 1"),
        }
        for name, (holds, expected) in rules.items():
            if not holds:
                raise InputError(
                    f"GranAlign: {name}: expected {expected}, got {getattr(self, name)!r}"
                )
        if self.agnostic_query == self.aware_query == "none":
            raise InputError(
                "GranAlign: agnostic_query, aware_query: expected at least one channel, got none"
            )


def _choice(value: object, literal: Any) -> tuple[bool, str]:
    choices = literal.__args__
    return value in choices, f"one of {', '.join(choices)}"


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
        encoder, sentence_encoder, rewriter, captioner: A backend's name ("embedded",
            "recorded:FILE", for the rewriter also "none") or an object with the members of the
            protocol in :mod:`vmr.backends.base`.
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
        sentences = _checked_queries(queries)
        if top_k < 1:
            raise InputError(f"GranAlign.retrieve: top_k: expected at least 1, got {top_k}")
        watch = Stopwatch()
        describer = Describer(
            self.encoder, self.captioner, self.sentence_encoder, self.cache, self.config.every
        )
        with torch.inference_mode():
            # Rewritten first: what is wrong with the queries shows before the long work.
            with watch.stage("rewrite queries"):
                rewritten = [self._rewrite(query) for query in sentences]
            described = describer.describe(Path(video), progress=progress, watch=watch)
            name = described.info.path.name
            self.recording.add_captions(name, described.times.tolist(), described.captions)
            aware: list[_Aware] = []
            for place, query in enumerate(sentences):
                progress("queries", place, len(sentences))
                with watch.stage("query-aware captions"):
                    aware.append(self._aware(described, query))
            progress("queries", len(sentences), len(sentences))
            with watch.stage("score"):
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

    def _rewrite(self, query: str) -> _Rewritten:
        forms = {self.config.agnostic_query, self.config.aware_query}
        if self.rewriter is None or not forms & {"simplified", "detailed"}:
            return self._unrewritten(query)
        try:
            raw = self._raw_rewrites(self.rewriter, query)
        except BackendError as error:
            if self._needs_rewriter:
                raise
            self.rewriter = None
            _warn_unrewritten(error)
            return self._unrewritten(query)
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

    def _aware(self, described: DescribedVideo, query: str) -> _Aware:
        count = math.ceil(self.config.aware_percent / 100 * len(described.times))
        if self.config.aware_query == "none" or count == 0:
            width = described.caption_vectors.shape[1]
            return _Aware(np.empty(0, np.int64), [], np.empty((0, width), np.float32))
        similarity = described.features @ self.encoder.encode_texts([query])[0]
        # The frames most like the query, equal ones by time, put back into their order.
        frames = np.sort(np.argsort(-similarity, kind="stable")[:count]).astype(np.int64)
        captions = [
            caption
            for begin in range(0, count, CHUNK)
            for caption in self._aware_chunk(described, query, frames[begin : begin + CHUNK])
        ]
        name, times = described.info.path.name, described.times[frames]
        self.recording.add_captions(name, times.tolist(), captions, query)
        spoken = np.array([bool(caption) for caption in captions])
        captions = [caption for caption in captions if caption]
        return _Aware(frames[spoken], captions, embed_captions(self.sentence_encoder, captions))

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
        frames = described.frames(indices, self.captioner.short_side)
        captions = checked_captions(
            self.captioner, frames, lambda frames: self.captioner.caption_for(frames, focus)
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


def _checked_queries(queries: str | Sequence[str]) -> list[str]:
    sentences = [queries] if isinstance(queries, str) else list(queries)
    if not sentences:
        raise InputError("GranAlign.retrieve: queries: expected at least one sentence, got none")
    for query in sentences:
        if not isinstance(query, str) or not query.strip():
            raise InputError(f"GranAlign.retrieve: queries: expected a sentence, got {query!r}")
        if len(query) > MAX_QUERY_CHARACTERS:
            raise InputError(
                f"GranAlign.retrieve: queries: expected at most {MAX_QUERY_CHARACTERS} characters, "
                f"got {len(query)}: {query[:40]!r}..."
            )
    return [query.strip() for query in sentences]


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
