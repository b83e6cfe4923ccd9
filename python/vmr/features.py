"""Video -> frame features and captions, computed once and kept.

A video is worked through in chunks of frames that are sampled on a fixed grid. Each product of a chunk
(features, captions, caption vectors) is an entry of the cache of its own, so that a run that was killed
goes on where it stopped, and a change of captioner costs no new features.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np
from numpy.typing import NDArray

from vmr.backends.base import Captioner, Encoder, SentenceEncoder
from vmr.cache import Arrays, Cache, Key, pack_texts, unpack_texts
from vmr.errors import BackendError, VmrWarning
from vmr.progress import Progress, Stopwatch
from vmr.video import Frames, VideoInfo, probe, sample_times, stream

CHUNK = 64
"""Frames that are computed and kept together."""


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
        times = self.times[indices]

        def load() -> tuple[NDArray[np.uint8], NDArray[np.float64]]:
            (found,) = stream(self.info.path, times, batch=len(times), short_side=short_side)
            return found.pixels, found.shown

        derived = {name: rows[indices] for name, rows in self.derived.items()}
        return Frames(times, load, derived=derived, video=self.info.path.name)


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
        chunks: dict[int, Arrays] = {}
        missing: list[int] = []
        with watch.stage("cache"):
            for start in range(0, len(grid), CHUNK):
                chunk = self._kept(digest, start)
                if chunk is None:
                    missing.append(start)
                    continue
                chunks[start] = chunk
                if len(chunk["times"]) < min(CHUNK, len(grid) - start):
                    break  # the file ends here, whatever its header claims
        done = sum(len(chunk["times"]) for chunk in chunks.values())
        progress("frames", done, len(grid))
        for start, chunk in self._compute(path, digest, grid, missing, watch):
            chunks[start] = chunk
            done += len(chunk["times"])
            progress("frames", done, len(grid))
        parts = [chunks[start] for start in sorted(chunks)]
        return self._join(info, digest, len(grid), parts, warn=not missing)

    def _join(
        self, info: VideoInfo, digest: str, expected: int, parts: list[Arrays], *, warn: bool
    ) -> DescribedVideo:
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
                name.removeprefix("derived/"): np.concatenate([part[name] for part in parts])
                for name in parts[0]
                if name.startswith("derived/") and all(name in part for part in parts)
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

    def _kept(self, digest: str, start: int) -> Arrays | None:
        if self.cache is None:
            return None
        chunk: dict[str, NDArray[np.generic]] = {}
        for key in self._keys(digest, start).values():
            arrays = self.cache.get(key)
            if arrays is None:
                return None
            chunk.update(arrays)
        return chunk

    def _compute(
        self,
        path: Path,
        digest: str,
        grid: NDArray[np.float64],
        starts: Sequence[int],
        watch: Stopwatch,
    ) -> Iterator[tuple[int, Arrays]]:
        if not starts:
            return
        times = np.concatenate([grid[start : start + CHUNK] for start in starts])
        short_side = max(self.encoder.short_side, self.captioner.short_side)
        batches = stream(path, times, batch=CHUNK, short_side=short_side)
        remaining = iter(starts)
        while True:
            # The decoder runs ahead in its own thread: this is the time the models wait for it.
            with watch.stage("wait for frames"):
                frames = next(batches, None)
            if frames is None:
                return
            start = next(remaining)
            yield start, self._chunk(digest, start, frames, watch)

    def _chunk(self, digest: str, start: int, frames: Frames, watch: Stopwatch) -> Arrays:
        keys = self._keys(digest, start)
        with watch.stage("encode frames"):
            features = self.encoder.encode_frames(frames)
        with watch.stage("caption frames"):
            captions = checked_captions(self.captioner, frames, self.captioner.caption)
        with watch.stage("embed captions"):
            vectors = embed_captions(self.sentence_encoder, captions)
        derived = {f"derived/{name}": rows for name, rows in frames.derived.items()}
        products: dict[str, dict[str, NDArray[np.generic]]] = {
            "features": {"times": frames.times, "features": features},
            "captions": {"captions": pack_texts(captions), **derived},
            "vectors": {"vectors": vectors},
        }
        with watch.stage("cache"):
            if self.cache is not None:
                for name, arrays in products.items():
                    self.cache.put(keys[name], arrays)
        return {name: array for arrays in products.values() for name, array in arrays.items()}


def checked_captions(
    captioner: Captioner, frames: Frames, speak: Callable[[Frames], list[str]]
) -> list[str]:
    """A captioner's answer, stripped; a :class:`BackendError` where it is not a text a frame."""
    captions = speak(frames)
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
