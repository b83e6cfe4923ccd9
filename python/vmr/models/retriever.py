"""A trained model on raw videos: frames, features, the model, moments."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from vmr.backends.base import Encoder, SentenceEncoder
from vmr.cache import Cache
from vmr.data.dataset import MomentDataset, collate
from vmr.data.records import Query
from vmr.devices import pick_device
from vmr.errors import InputError
from vmr.evaluation.predictions import Prediction
from vmr.models.base import MomentModel
from vmr.models.questions import checked_queries
from vmr.models.sight import Sight
from vmr.moments import Moment
from vmr.progress import Progress, Stopwatch, silent
from vmr.results import FrameScores, Result, Results

_MOST_QUERIES = 64  # at once
# Of rows, over the queries that are answered at once: 16 MiB a map of similarities or scores. A host's
# 2D-TAN holds some 60 such maps, where A2FA + F2SGD holds a few.
_MOST_PAIRS = 2**22


class Retriever:
    """A trained model that is asked about videos, as :class:`vmr.GranAlign` is.

    The rows that the model sees are made as those were that it was trained on: by the same encoder, at
    the same rate, and then by the reading of its feature pack. A video is encoded once for all queries,
    and kept in the cache.

    Args:
        model: Any model, e.g. of :meth:`vmr.MomentModel.from_pretrained`. New weights do too, where they
            say something: A2FA alone needs none (``predict="segment"``).
        encoder: What sees the frames, a string or an object (:func:`vmr.backends.load_encoder`); None
            is the one that made the features which the model was trained on.
        sentence_encoder: What reads the sentences; None is likewise what was trained with, or else the
            encoder's own text tower.
        every: Seconds a row, of the anchor's features too; None is what was trained with, or 2.
        features: Folder of features as the model was trained on, for what vmr has no encoder of (I3D,
            SlowFast); a video's are found by its file name. Sentences are read all the same, unless
            they are word vectors.
        anchor_encoder: As ``encoder``, for a model that looks for its anchor in another model's
            features; it reads the sentences as well.
        anchor_features: As ``features``, likewise.
        device: Of the model, and of encoders that it names itself; None is a GPU or else the CPU.
        cache: Where features are kept between runs; "default" is the user's cache folder, None keeps
            nothing.
        name: What the model is called in results and messages.

    Attributes:
        model: The model.
        backends: Which model plays which part, by name.

    Raises:
        InputError: It is not known what features the model was trained on, no encoder gives them, or the
            one named is not right; or the model takes no other features for its anchor.
        BackendError: An encoder is not there.
    """

    def __init__(
        self,
        model: MomentModel,
        *,
        encoder: str | Encoder | None = None,
        sentence_encoder: str | SentenceEncoder | None = None,
        every: float | None = None,
        features: str | os.PathLike[str] | None = None,
        anchor_encoder: str | Encoder | None = None,
        anchor_features: str | os.PathLike[str] | None = None,
        device: torch.device | str | None = None,
        cache: Cache | Literal["default"] | None = "default",
        name: str | None = None,
    ) -> None:
        about = model.about
        self.name = name or (about.name if about is not None else f"new {model.kind}")
        self._device = pick_device(device)
        self._sight = Sight.open(
            about.pack if about is not None else None,
            self.name,
            pooled=model.wants_pooled,
            encoder=encoder,
            sentence_encoder=sentence_encoder,
            every=every,
            features=features,
            device=device,
        )
        self._anchors: Sight | None = None
        if about is not None and about.anchor_pack is not None:
            self._anchors = Sight.open(
                about.anchor_pack,
                f"{self.name}, anchor",
                pooled=True,
                encoder=anchor_encoder,
                every=every,
                features=anchor_features,
                device=device,
                prefix="anchor_",
            )
        elif anchor_encoder is not None or anchor_features is not None:
            raise InputError(
                f"{self.name}: anchor_encoder and anchor_features (--anchor-encoder, --anchor-features) "
                "go with models that were trained with another model's features for the anchor"
            )
        self.model = model.to(self._device).eval()
        self.cache = Cache() if cache == "default" else cache
        self.backends = {"model": f"{model.kind} ({self.name})", **self._sight.backends}
        if self._anchors is not None:
            named = self._anchors.backends
            self.backends |= {f"anchor {part}": backend for part, backend in named.items()}

    @classmethod
    def from_pretrained(
        cls,
        checkpoint: str | os.PathLike[str],
        *,
        encoder: str | Encoder | None = None,
        sentence_encoder: str | SentenceEncoder | None = None,
        every: float | None = None,
        features: str | os.PathLike[str] | None = None,
        anchor_encoder: str | Encoder | None = None,
        anchor_features: str | os.PathLike[str] | None = None,
        device: torch.device | str | None = None,
        cache: Cache | Literal["default"] | None = "default",
        **hub: Any,
    ) -> Retriever:
        """A checkpoint of any model, ready to be asked.

        Args:
            checkpoint: The result folder of a training run, a checkpoint's folder, or "owner/name" on
                the hub.
            encoder, sentence_encoder, every, features, anchor_encoder, anchor_features, device, cache:
                As for the class.
            hub: ``revision``, ``token``, ``cache_dir`` and ``local_files_only``, as for
                :meth:`vmr.MomentModel.from_pretrained`.

        Raises:
            InputError: There is no such checkpoint; or as for the class.
            BackendError: As for the class.
        """
        return cls(
            MomentModel.from_pretrained(checkpoint, **hub),
            encoder=encoder,
            sentence_encoder=sentence_encoder,
            every=every,
            features=features,
            anchor_encoder=anchor_encoder,
            anchor_features=anchor_features,
            device=device,
            cache=cache,
            name=os.fspath(checkpoint),
        )

    def retrieve(
        self,
        video: str | os.PathLike[str],
        queries: str | Sequence[str],
        *,
        top_k: int = 5,
        progress: Progress = silent,
    ) -> Results:
        """The moments of a video that fit each query, and a score for every row.

        Args:
            video: Path of a video file.
            queries: One sentence or several.
            top_k: At most this many moments a query, and at most as many as the model answers with.
            progress: Called with the stage, what is done and what there is to do.

        Returns:
            One :class:`vmr.Result` a query, in the order of the queries. Its frame scores are the
            model's saliency of each row, at the row's middle; of a model without (a host), there are
            none.

        Raises:
            InputError: For an empty or overlong query, or ``top_k`` below 1; the encoder's vectors are
                not as wide as those that the model was trained on; or the features are not there, or
                another video's.
            VideoError: Where the file is missing, not a video or holds no frames.
            BackendError: Where an encoder fails.
        """
        sentences = checked_queries(queries, "Retriever.retrieve")
        if top_k < 1:
            raise InputError(f"Retriever.retrieve: top_k: expected at least 1, got {top_k}")
        watch = Stopwatch()
        with torch.no_grad():
            dataset = self._dataset(Path(video), sentences, progress, watch)
            with watch.stage("model"):
                found = self._answers(dataset, progress)
        rows = len(dataset[0].video)
        duration = dataset.queries[0].duration
        seconds = dataset.pack.row_seconds(rows, duration)
        edges = np.minimum(np.arange(rows + 1) * seconds, duration)
        times = (edges[1:] + edges[:-1]) / 2
        return Results(
            [
                Result(
                    video=os.fspath(video),
                    duration=duration,
                    query=prediction.query or "",
                    moments=tuple(
                        Moment(float(start), float(end), float(score))
                        for start, end, score in (prediction.pred_relevant_windows or [])[:top_k]
                    ),
                    frame_scores=_frame_scores(times, prediction.pred_saliency_scores),
                )
                for prediction in found
            ],
            backends=self.backends,
            timings=watch.seconds,
        )

    def _dataset(
        self, video: Path, sentences: list[str], progress: Progress, watch: Stopwatch
    ) -> MomentDataset:
        """The questions with the features of video and sentences, as a data set of packs has them."""
        sights = [self._sight] if self._anchors is None else [self._sight, self._anchors]
        # Read first: what does not fit shows before the long work.
        with watch.stage("read sentences"):
            read = [sight.read(sentences) for sight in sights]
        seen = [sight.see(video, self.cache, progress, watch) for sight in sights]
        queries = [
            Query(qid=place, video=video.stem, text=text, duration=seen[0].duration)
            for place, text in enumerate(sentences)
        ]
        packs = [
            sight.pack(rows, texts, queries, self.model.config.video_dim)
            for sight, rows, texts in zip(sights, seen, read, strict=True)
        ]
        return MomentDataset(
            queries, packs[0], pooled=self.model.wants_pooled, anchor_pack=(*packs[1:], None)[0]
        )

    def _answers(self, dataset: MomentDataset, progress: Progress) -> list[Prediction]:
        rows = len(dataset[0].video)
        size = min(_MOST_QUERIES, max(1, _MOST_PAIRS // rows**2))
        shared: dict[str, Any] | None = None
        found: list[Prediction] = []
        for begin in range(0, len(dataset), size):
            places = range(begin, min(begin + size, len(dataset)))
            batch = collate([dataset[place] for place in places]).to(self._device)
            if shared is None:
                shared = self.model.shared(batch)
            outputs = self.model.forward(**self.model.inputs(batch), **shared)
            found += self.model.decode(outputs, batch)
            progress("queries", len(found), len(dataset))
        return found


def _frame_scores(times: NDArray[np.float64], saliency: list[float] | None) -> FrameScores:
    """The scores of rows; none where the model has no saliency."""
    scores = np.array(saliency or (), dtype=np.float64)
    return FrameScores(times[: len(scores)], scores)
