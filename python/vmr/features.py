"""Video -> frame features and captions, computed once and kept.

A video is worked through in chunks of frames that are sampled on a fixed grid. Each product of a chunk
(features, captions, caption vectors) is an entry of the cache of its own, so that a run that was killed
goes on where it stopped, and a change of captioner costs no new features.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np
from numpy.typing import NDArray

from vmr.backends.base import Captioner, Encoder, SentenceEncoder
from vmr.cache import Arrays, Cache, Key, pack_texts, unpack_texts
from vmr.errors import BackendError, VideoError, VmrWarning
from vmr.progress import Progress, Stopwatch
from vmr.video import Frames, VideoInfo, probe, sample_times, stream

CHUNK = 64
"""Frames that are computed and kept together."""

_DERIVED = "derived/"  # marks what backends computed on the way, in an entry of the cache


@dataclass(frozen=True, slots=True, eq=False)
class DescribedVideo:
    """A video as its frames' features and captions.

    Attributes:
        info: The file's facts.
        digest: Of its content.
        every: Seconds between two sampled frames.
        times: [F] seconds of the frames.
        features: [F, d] L2-normalised frame features of the encoder.
        captions: F query-agnostic captions; "" where there is none.
        caption_vectors: [F, D] sentence embeddings of the captions; zero where there is none.
        derived: What the backends computed on the way, by name, one row a frame.
    """

    info: VideoInfo
    digest: str
    every: float
    times: NDArray[np.float64]
    features: NDArray[np.float32]
    captions: list[str]
    caption_vectors: NDArray[np.float32]
    derived: dict[str, NDArray[np.generic]]

    @property
    def duration(self) -> float:
        """Seconds of the video that the frames stand for."""
        return min(self.info.duration, len(self.times) * self.every)

    def frames(self, indices: NDArray[np.int64], short_side: int) -> Frames:
        """Some of the frames again, decoded only if somebody looks at their pixels."""
        derived = {name: rows[indices] for name, rows in self.derived.items()}
        return _frames_again(self.info, self.times[indices], derived, short_side)


@dataclass(frozen=True, slots=True)
class Describer:
    """Computes a :class:`DescribedVideo`, taking from the cache what is there.

    Args:
        encoder, captioner, sentence_encoder: The models.
        cache: Where products are kept; None keeps nothing.
        every: Seconds between two sampled frames.
    """

    encoder: Encoder
    captioner: Captioner
    sentence_encoder: SentenceEncoder
    cache: Cache | None
    every: float

    def describe(self, path: Path, *, progress: Progress, watch: Stopwatch) -> DescribedVideo:
        """The features and captions of a video.

        Raises:
            VideoError: Where the file is missing or holds no frames.
            BackendError: Where a model fails or gives no caption for any frame.
        """
        info = probe(path)
        with watch.stage("read content"):
            digest = self.cache.digest(path) if self.cache is not None else ""
        grid = sample_times(info.duration, self.every)
        kept: dict[int, dict[str, Arrays]] = {}
        with watch.stage("cache"):
            for start in range(0, len(grid), CHUNK):
                kept[start] = self._kept(digest, start)
                known = kept[start].get("features") or kept[start].get("captions")
                if known is not None and len(known["times"]) < len(grid[start : start + CHUNK]):
                    break  # the file ends here, whatever its header claims
        # Where the features are known, pixels are decoded only if a captioner looks at them.
        unseen = [start for start, products in kept.items() if "features" not in products]
        chunks: dict[int, Arrays] = {}
        done = 0
        for start, products in kept.items():
            if "features" in products:
                frames = self._known_frames(info, products)
                chunks[start] = self._finish(digest, start, frames, products, watch)
                done += len(frames)
                progress("frames", done, len(grid))
        streamed = 0
        for start, frames in self._stream(info, grid, unseen, watch):
            chunks[start] = self._finish(digest, start, frames, kept[start], watch)
            streamed += len(frames)
            progress("frames", done + streamed, len(grid))
        parts = [chunks[start] for start in sorted(chunks)]
        # A stream that ends early says so itself.
        told = streamed < sum(len(grid[start : start + CHUNK]) for start in unseen)
        return self._join(info, digest, len(grid), parts, warn=not told)

    def _join(
        self, info: VideoInfo, digest: str, expected: int, parts: list[Arrays], *, warn: bool
    ) -> DescribedVideo:
        if not parts:
            raise VideoError(
                f"{info.path}: expected a frame at one of the {expected} sampled times, got none: "
                f"the file ends before the first; sample more often than every {self.every:g} s"
            )
        captions = [text for part in parts for text in unpack_texts(part["captions"])]
        times = np.concatenate([part["times"] for part in parts]).astype(np.float64)
        if warn and len(times) < expected:
            warnings.warn(
                f"{info.path} decodes only up to {len(times) * self.every:.1f} s of the "
                f"{info.duration:.1f} s its header claims; the rest is left out",
                VmrWarning,
                stacklevel=4,
            )
        if not any(captions):
            raise BackendError(
                f"captioner {self.captioner.name}: expected captions, got an empty one for each of "
                f"the {len(captions)} frames of {info.path}"
            )
        return DescribedVideo(
            info=info,
            digest=digest,
            every=self.every,
            times=times,
            features=_rows(parts, "features"),
            captions=captions,
            caption_vectors=_rows(parts, "vectors"),
            derived={
                name.removeprefix(_DERIVED): np.concatenate([part[name] for part in parts])
                for name in parts[0]
                if name.startswith(_DERIVED) and all(name in part for part in parts)
            },
        )

    # ---- chunks -------------------------------------------------------------------------------------

    def _keys(self, digest: str, start: int) -> dict[str, Key]:
        place = f"every={self.every!r} chunk={CHUNK} start={start}"
        voice = f"{self.captioner.name} {self.sentence_encoder.name}"
        return {
            "features": Key(digest, "features", self.encoder.name, place),
            "captions": Key(digest, "captions", self.captioner.name, place),
            "vectors": Key(digest, "caption vectors", voice, place),
        }

    def _kept(self, digest: str, start: int) -> dict[str, Arrays]:
        """The products of a chunk that the cache has."""
        if self.cache is None:
            return {}
        found = {name: self.cache.get(key) for name, key in self._keys(digest, start).items()}
        return {name: arrays for name, arrays in found.items() if arrays is not None}

    def _known_frames(self, info: VideoInfo, products: Mapping[str, Arrays]) -> Frames:
        times = products["features"]["times"].astype(np.float64)
        derived = {
            name.removeprefix(_DERIVED): rows
            for arrays in products.values()
            for name, rows in arrays.items()
            if name.startswith(_DERIVED)
        }
        return _frames_again(info, times, derived, self.captioner.short_side)

    def _stream(
        self,
        info: VideoInfo,
        grid: NDArray[np.float64],
        starts: Sequence[int],
        watch: Stopwatch,
    ) -> Iterator[tuple[int, Frames]]:
        if not starts:
            return
        times = np.concatenate([grid[start : start + CHUNK] for start in starts])
        short_side = max(self.encoder.short_side, self.captioner.short_side)
        batches = stream(info.path, times, batch=CHUNK, short_side=short_side)
        remaining = iter(starts)
        while True:
            # The decoder runs ahead in its own thread: this is the time the models wait for it.
            with watch.stage("wait for frames"):
                frames = next(batches, None)
            if frames is None:
                return
            yield next(remaining), frames

    def _finish(
        self,
        digest: str,
        start: int,
        frames: Frames,
        kept: Mapping[str, Arrays],
        watch: Stopwatch,
    ) -> Arrays:
        """All products of a chunk: those that are kept, and the others computed and kept."""
        products = dict(kept)

        def add(name: str, arrays: Arrays) -> None:
            derived = {f"{_DERIVED}{key}": rows for key, rows in frames.derived.items()}
            products[name] = {"times": frames.times, **arrays, **derived}
            with watch.stage("cache"):
                if self.cache is not None:
                    self.cache.put(self._keys(digest, start)[name], products[name])

        if "features" not in products:
            with watch.stage("encode frames"):
                features = self.encoder.encode_frames(frames)
            add("features", {"features": features})
        if "captions" not in products:
            with watch.stage("caption frames"):
                captions = checked_captions(self.captioner, frames, self.captioner.caption)
            add("captions", {"captions": pack_texts(captions)})
        if "vectors" not in products:
            with watch.stage("embed captions"):
                texts = unpack_texts(products["captions"]["captions"])
                vectors = embed_captions(self.sentence_encoder, texts)
            add("vectors", {"vectors": vectors})
        return {name: rows for arrays in products.values() for name, rows in arrays.items()}


def _frames_again(
    info: VideoInfo,
    times: NDArray[np.float64],
    derived: Mapping[str, NDArray[np.generic]],
    short_side: int,
) -> Frames:
    """Frames of a video once more, decoded only if somebody looks at their pixels."""

    def load() -> tuple[NDArray[np.uint8], NDArray[np.float64]]:
        (found,) = stream(info.path, times, batch=len(times), short_side=short_side)
        return found.pixels, found.shown

    return Frames(times, load, derived=dict(derived), video=info.path.name)


def checked_captions(
    captioner: Captioner, frames: Frames, speak: Callable[[Frames], list[str]]
) -> list[str]:
    """A captioner's answer, stripped; a :class:`BackendError` where it is not a text a frame."""
    captions = speak(frames)
    if not isinstance(captions, list) or not all(isinstance(text, str) for text in captions):
        raise BackendError(
            f"captioner {captioner.name}: expected a list of texts, got {captions!r:.100}"
        )
    if len(captions) != len(frames.times):
        raise BackendError(
            f"captioner {captioner.name}: expected {len(frames.times)} captions, one a frame, "
            f"got {len(captions)}"
        )
    return [caption.strip() for caption in captions]


def embed_captions(encoder: SentenceEncoder, captions: Sequence[str]) -> NDArray[np.float32]:
    """Sentence embeddings [n, D]; equal captions are embedded once, empty ones are zero."""
    distinct = sorted({caption for caption in captions if caption})
    vectors = encoder.encode(distinct)
    rows = {caption: row for row, caption in enumerate(distinct)}
    result = np.zeros((len(captions), vectors.shape[1]), dtype=np.float32)
    for place, caption in enumerate(captions):
        if caption:
            result[place] = vectors[rows[caption]]
    return result


def _rows(parts: Sequence[Arrays], name: str) -> NDArray[np.float32]:
    return cast("NDArray[np.float32]", np.concatenate([part[name] for part in parts]))
