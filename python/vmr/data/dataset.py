"""Queries with their features as a torch data set, and batches with lengths."""

from __future__ import annotations

import os
import warnings
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import Dataset

from vmr.data.packs import FeaturePack
from vmr.data.records import Query
from vmr.errors import InputError, VmrWarning

_NAMED = 20  # missing videos or queries in a message
_KEPT = 4  # videos: annotation files list a video's queries one after the other


@dataclass(frozen=True, slots=True, eq=False)
class Item:
    """One query.

    Attributes:
        query: As it was annotated.
        video: [T, width] features.
        row_seconds: Seconds from one row to the next.
        text: [L, dim] tokens; None where the pack has none.
        pooled: [dim] the sentence as one vector; None where it was not asked for.
        windows: [M, 2] ground truth, (start s, end s) as annotated; [0, 2] where there is none.
        saliency: [T] mean of the annotators' scores of the clip that a row's middle lies in; None where
            there are none.
        anchor_video: [T, other width] of the anchor pack; None without one.
        anchor_pooled: [other dim] its sentence; likewise.
        negative_text: [L', dim] tokens of the negative query; None where none was asked for.
    """

    query: Query
    video: Tensor
    row_seconds: float
    text: Tensor | None
    pooled: Tensor | None
    windows: Tensor
    saliency: Tensor | None
    anchor_video: Tensor | None = None
    anchor_pooled: Tensor | None = None
    negative_text: Tensor | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Batch:
    """Some queries, padded with zeros to the longest; the lengths say what is padding.

    Attributes:
        queries: B of them.
        video: [B, T, width].
        video_lengths: [B] rows, whole numbers.
        row_seconds: [B] seconds from one row to the next.
        durations: [B] seconds of the videos.
        text: [B, L, dim]; None where the pack has no tokens.
        text_lengths: [B] tokens; zeros where there are none.
        pooled: [B, dim]; None where it was not asked for.
        windows: [B, M, 2] ground truth, (start s, end s).
        window_counts: [B] windows.
        saliency: [B, T] a score a row; zeros where there are none.
        has_saliency: [B] truth values.
        anchor_video: [B, T, other width] of the anchor pack; None without one.
        anchor_pooled: [B, other dim] its sentences; likewise.
        negative_text: [B, L', dim] tokens of each query's negative query; None where none was asked for.
        negative_lengths: [B] tokens of these; likewise.
    """

    queries: tuple[Query, ...]
    video: Tensor
    video_lengths: Tensor
    row_seconds: Tensor
    durations: Tensor
    text: Tensor | None
    text_lengths: Tensor
    pooled: Tensor | None
    windows: Tensor
    window_counts: Tensor
    saliency: Tensor
    has_saliency: Tensor
    anchor_video: Tensor | None = None
    anchor_pooled: Tensor | None = None
    negative_text: Tensor | None = None
    negative_lengths: Tensor | None = None

    def __len__(self) -> int:
        return len(self.queries)

    def to(self, device: torch.device | str, *, non_blocking: bool = False) -> Batch:
        """The same on another device."""
        return self._changed(lambda value: value.to(device, non_blocking=non_blocking))

    def pin_memory(self) -> Batch:
        """The same in page-locked memory; what a DataLoader with ``pin_memory=True`` calls."""
        return self._changed(Tensor.pin_memory)

    def _changed(self, change: Callable[[Tensor], Tensor]) -> Batch:
        values: dict[str, Any] = {field.name: getattr(self, field.name) for field in fields(self)}
        for name, value in values.items():
            if isinstance(value, Tensor):
                values[name] = change(value)
        return Batch(**values)


class MomentDataset(Dataset[Item]):
    """Queries with their features; for a DataLoader with ``collate_fn=vmr.collate``.

    Args:
        queries: As :func:`vmr.data.annotations.read_queries` gives them.
        pack: Their features.
        pooled: Whether items hold the sentence as one vector too.
        anchor_pack: Features of another model, row by row beside those of ``pack``, from which a model
            that looks for an anchor frame takes it (A2FA's Table 4); of them the source that is as wide
            as its sentence.
        skip_missing: Whether queries without features are left out, with a warning; else they are an
            error.

    Attributes:
        queries: Those that are not left out.
        skipped: Those that are.

    Raises:
        InputError: Features are missing, or nothing is left; or a name came instead of queries or of a
            pack.
    """

    def __init__(
        self,
        queries: Sequence[Query],
        pack: FeaturePack,
        *,
        pooled: bool = False,
        anchor_pack: FeaturePack | None = None,
        skip_missing: bool = False,
    ) -> None:
        _check_arguments(queries, pack)
        self.pack = pack
        self.pooled = pooled
        self.anchor_pack = anchor_pack
        videos: set[str] = set()
        qids: set[int | str] = set()
        for features in self._packs:
            missing = features.missing(queries)
            if (missing.videos or missing.queries) and not skip_missing:
                raise InputError(
                    f"{features.name}: no features of {_listed('video', missing.videos)}"
                    f"{' and ' if missing.videos and missing.queries else ''}"
                    f"{_listed('query', missing.queries)}, out of {len(queries)} queries; add them, or "
                    "leave such queries out (--skip-missing, skip_missing)"
                )
            videos.update(missing.videos)
            qids.update(missing.queries)
        gone = [query for query in queries if query.video in videos or query.qid in qids]
        left = {id(query) for query in gone}
        self.queries = tuple(query for query in queries if id(query) not in left)
        self.skipped = tuple(gone)
        if not self.queries:
            raise InputError(f"{pack.name}: none of the {len(queries)} queries has features")
        if gone:
            lost = list(dict.fromkeys(query.video for query in gone))
            warnings.warn(
                f"{pack.name}: {len(gone)} of {len(queries)} queries have no features and are left out, "
                f"of {_listed('video', lost)}",
                VmrWarning,
                stacklevel=2,
            )
        for features in self._packs:
            features.prepare(self.queries)
        # By duration too: features are held against the one of each query.
        self._videos: OrderedDict[tuple[FeaturePack, str, float], Tensor] = OrderedDict()

    def __repr__(self) -> str:
        videos = len({query.video for query in self.queries})
        return f"MomentDataset({len(self)} queries on {videos} videos, {self.pack.name!r})"

    def __len__(self) -> int:
        return len(self.queries)

    def __getitem__(self, index: int | tuple[int, int]) -> Item:
        """The features of a query.

        Args:
            index: The query's place; or that and the place of the query whose sentence stands against
                it (:class:`vmr.data.negatives.NegativeQueries`).

        Raises:
            InputError: As :meth:`vmr.FeaturePack.video` and :meth:`vmr.FeaturePack.text`; or a negative
                query is asked for, and the pack has no tokens.
        """
        place, negative = index if isinstance(index, tuple) else (index, None)
        query = self.queries[place]
        video = self._video(self.pack, query)
        return Item(
            query=query,
            # A copy: what is done to an item leaves the next one of the video alone.
            video=video.clone(),
            row_seconds=self.pack.row_seconds(len(video), query.duration),
            text=self._text(place) if self.pack.has_tokens else None,
            negative_text=self._text(negative) if negative is not None else None,
            pooled=torch.from_numpy(self.pack.pooled_text(query)) if self.pooled else None,
            windows=torch.tensor(query.windows or (), dtype=torch.float32).reshape(-1, 2),
            saliency=self._saliency(query, len(video)),
            **self._anchor(query, len(video)),
        )

    def __getstate__(self) -> dict[str, Any]:
        # A worker process reads its own videos.
        return {**self.__dict__, "_videos": OrderedDict()}

    @property
    def _packs(self) -> tuple[FeaturePack, ...]:
        return (self.pack,) if self.anchor_pack is None else (self.pack, self.anchor_pack)

    def _anchor(self, query: Query, rows: int) -> dict[str, Tensor]:
        """What another model saw and read."""
        pack = self.anchor_pack
        if pack is None:
            return {}
        pooled = pack.pooled_text(query)
        first, width = pack.columns_like(len(pooled))
        video = self._video(pack, query)
        if len(video) != rows:
            raise InputError(
                f"{pack.name}: expected {rows} rows of video {query.video}, as {self.pack.name} has, "
                f"got {len(video)}"
            )
        return {
            "anchor_video": video[:, first : first + width].clone(),
            "anchor_pooled": torch.from_numpy(pooled),
        }

    def _text(self, place: int) -> Tensor:
        return torch.from_numpy(self.pack.text(self.queries[place]))

    def _video(self, pack: FeaturePack, query: Query) -> Tensor:
        place = pack, query.video, query.duration
        if place not in self._videos:
            self._videos[place] = torch.from_numpy(pack.video(query.video, query.duration))
            if len(self._videos) > _KEPT * len(self._packs):
                self._videos.popitem(last=False)
        self._videos.move_to_end(place)
        return self._videos[place]

    def _saliency(self, query: Query, rows: int) -> Tensor | None:
        if query.saliency is None:
            return None
        clips = query.saliency.dense().mean(axis=1)
        middles = (np.arange(rows) + 0.5) * self.pack.row_seconds(rows, query.duration)
        places = (middles / query.saliency.clip_seconds).astype(int)
        scores = np.zeros(rows, dtype=np.float32)
        inside = places < len(clips)
        scores[inside] = clips[places[inside]]
        return torch.from_numpy(scores)


def collate(items: Sequence[Item], *, rows: int = 0, tokens: int = 0) -> Batch:
    """Pads items to a batch (see :class:`Batch`).

    Args:
        items: At least one.
        rows: T is at least this, so that batches may be of one shape.
        tokens: L and L' likewise, where there is text.

    Raises:
        InputError: There is no item, or some have text, or a negative query, and others none.
    """
    if not items:
        raise InputError("collate: expected at least one item, got none")
    texts = [item.text for item in items]
    pooled = [item.pooled for item in items]
    negatives = [item.negative_text for item in items]
    anchors = [item.anchor_video for item in items]
    asked = [item.anchor_pooled for item in items]
    videos = [item.video for item in items]
    any_negative = any(text is not None for text in negatives)
    saliency = [
        torch.zeros(len(item.video)) if item.saliency is None else item.saliency for item in items
    ]
    return Batch(
        queries=tuple(item.query for item in items),
        video=_padded(videos, rows),
        video_lengths=torch.tensor([len(video) for video in videos]),
        row_seconds=torch.tensor([item.row_seconds for item in items], dtype=torch.float32),
        durations=torch.tensor([item.query.duration for item in items], dtype=torch.float32),
        text=_padded(_all(texts), tokens) if texts[0] is not None else None,
        text_lengths=torch.tensor([0 if text is None else len(text) for text in texts]),
        pooled=torch.stack(_all(pooled)) if pooled[0] is not None else None,
        windows=pad_sequence([item.windows for item in items], batch_first=True),
        window_counts=torch.tensor([len(item.windows) for item in items]),
        saliency=_padded(saliency, rows),
        has_saliency=torch.tensor([item.saliency is not None for item in items]),
        anchor_video=_padded(_all(anchors), rows) if anchors[0] is not None else None,
        anchor_pooled=torch.stack(_all(asked)) if asked[0] is not None else None,
        negative_text=_padded(_all(negatives), tokens) if any_negative else None,
        negative_lengths=torch.tensor(list(map(len, _all(negatives)))) if any_negative else None,
    )


def _check_arguments(queries: object, pack: object) -> None:
    """Names where their contents are wanted: both are a call away."""
    if isinstance(queries, str | os.PathLike):
        name = os.fspath(queries)
        raise InputError(
            f"MomentDataset: expected queries, got the name {name!r}; read them by "
            f"vmr.read_queries({name!r})"
        )
    if not isinstance(pack, FeaturePack):
        got = f"the name {os.fspath(pack)!r}" if isinstance(pack, str | os.PathLike) else repr(pack)
        raise InputError(
            f"MomentDataset: expected a feature pack, got {got:.200}; vmr.load_pack opens one"
        )


def _padded(tensors: Sequence[Tensor], least: int) -> Tensor:
    """[B, N, ...] with N of the longest tensor, or ``least``."""
    padded = pad_sequence(list(tensors), batch_first=True)
    short = least - padded.shape[1]
    if short <= 0:
        return padded
    return torch.cat([padded, padded.new_zeros(len(padded), short, *padded.shape[2:])], dim=1)


def _all(tensors: Sequence[Tensor | None]) -> list[Tensor]:
    here = [tensor for tensor in tensors if tensor is not None]
    if len(here) < len(tensors):
        raise InputError("collate: expected text for all items or for none")
    return here


def _listed(what: str, names: Sequence[object]) -> str:
    if not names:
        return ""
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    plural = {"video": "videos", "query": "queries"}[what] if len(names) > 1 else what
    return f"{len(names)} {plural} ({', '.join(map(str, names[:_NAMED]))}{more})"
