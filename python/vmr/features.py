"""Video -> frame features and captions, computed once and kept.

A video is worked through in chunks of frames that are sampled on a fixed grid. Each product of a chunk
(features, captions, caption vectors, pictures) is an entry of the cache of its own, so that a run that
was killed goes on where it stopped, and a change of captioner costs no new features. While the captioner
has a chunk, the next one is decoded and encoded.
"""

from __future__ import annotations

import threading
import warnings
from collections import deque
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import cast

import numpy as np
from numpy.typing import NDArray

from vmr.backends.base import Captioner, Encoder, SentenceEncoder
from vmr.backends.calls import Calls
from vmr.cache import PICTURES, Arrays, Cache, Key, pack_texts, unpack_texts
from vmr.errors import BackendError, NoCaptionsError, VideoError, VmrWarning
from vmr.progress import Progress, Stopwatch
from vmr.video import Frames, VideoInfo, probe, sample_times, stream

CHUNK = 16
"""Frames that are computed and kept together: so many are decoded before the captioner begins."""

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
        pictures: The frames as captioners saw them.
        decoded_side: Pixels of the short side that frames are decoded to.
    """

    info: VideoInfo
    digest: str
    every: float
    times: NDArray[np.float64]
    features: NDArray[np.float32]
    captions: list[str]
    caption_vectors: NDArray[np.float32]
    derived: dict[str, NDArray[np.generic]]
    pictures: _Pictures
    decoded_side: int

    @property
    def duration(self) -> float:
        """Seconds of the video that the frames stand for."""
        return min(self.info.duration, len(self.times) * self.every)

    def frames(self, indices: NDArray[np.int64]) -> Frames:
        """Some of the frames again as the captioner saw them, decoded only if they were not kept."""
        derived = {name: rows[indices] for name, rows in self.derived.items()}
        frames = _frames_again(self.info, self.times[indices], derived, self.decoded_side)
        return self.pictures.shown(frames, indices)


@dataclass(frozen=True, slots=True)
class Describer:
    """Computes a :class:`DescribedVideo`, taking from the cache what is there.

    Args:
        encoder, captioner, sentence_encoder: The models.
        cache: Where products are kept; None keeps nothing.
        every: Seconds between two sampled frames.
        calls: The line in which the captioner's callers wait.
        one_at_a_time: Held while an encoder is called, since several videos may be described at once.
    """

    encoder: Encoder
    captioner: Captioner
    sentence_encoder: SentenceEncoder
    cache: Cache | None
    every: float
    calls: Calls
    one_at_a_time: threading.Lock

    @property
    def decoded_side(self) -> int:
        """Pixels of the short side that frames are decoded to: enough for both models."""
        return max(self.encoder.short_side, self.captioner.short_side)

    def describe(self, path: Path, *, progress: Progress, watch: Stopwatch) -> DescribedVideo:
        """The features and captions of a video.

        Raises:
            VideoError: Where the file is missing or holds no frames.
            BackendError: Where a model fails.
            NoCaptionsError: Where the captioner has none for any frame.
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
        side = self.captioner.short_side
        pictures = _Pictures(self.cache, partial(self._picture_key, digest), side)
        begun: deque[tuple[int, Frames]] = deque()

        def work() -> Iterator[tuple[int, Callable[[], list[str]] | None]]:
            chunks = self._chunks(info, grid, kept, unseen, watch)
            with closing(chunks):
                for start, frames in chunks:
                    products = kept[start]
                    rows = np.arange(start, start + len(frames))
                    looked = pictures.shown(frames, rows, known="captions" not in products)
                    if pictures.wanted and "captions" not in products:
                        with watch.stage("encode pictures"):
                            looked.jpegs()  # before the captioner has time for them
                    begun.append((start, looked))
                    call = partial(checked_captions, self.captioner, looked, self.captioner.caption)
                    yield len(frames), None if "captions" in products else call
                    # The captioner is at work meanwhile.
                    if "features" in products:
                        continue
                    with self.one_at_a_time, watch.stage("encode frames"):
                        features = self.encoder.encode_frames(
                            frames.scaled(self.encoder.short_side)
                        )
                    key = self._key(digest, start)
                    self._add(products, "features", features, key, frames, watch)

        chunks: dict[int, Arrays] = {}
        done = 0
        with closing(self.calls.in_order(work(), watch, "caption frames")) as answers:
            for captions in answers:
                start, frames = begun.popleft()
                products, key = kept[start], self._key(digest, start)
                if captions is not None:
                    self._add(products, "captions", pack_texts(captions), key, frames, watch)
                    if frames.encoded is not None:
                        with watch.stage("cache"):
                            pictures.keep(start, frames.encoded)
                if "vectors" not in products:
                    with self.one_at_a_time, watch.stage("embed captions"):
                        texts = unpack_texts(products["captions"]["captions"])
                        vectors = embed_captions(self.sentence_encoder, texts)
                    self._add(products, "vectors", vectors, key, frames, watch)
                chunks[start] = {
                    name: rows for arrays in products.values() for name, rows in arrays.items()
                }
                done += len(frames)
                progress("frames", done, len(grid))
        parts = [chunks[start] for start in sorted(chunks)]
        # A stream that ends early says so itself.
        streamed = sum(len(chunks[start]["times"]) for start in unseen if start in chunks)
        told = streamed < sum(len(grid[start : start + CHUNK]) for start in unseen)
        return self._join(info, digest, len(grid), parts, pictures, warn=not told)

    def _join(
        self,
        info: VideoInfo,
        digest: str,
        expected: int,
        parts: list[Arrays],
        pictures: _Pictures,
        *,
        warn: bool,
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
            raise NoCaptionsError(
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
            pictures=pictures,
            decoded_side=self.decoded_side,
        )

    # ---- chunks -------------------------------------------------------------------------------------

    def _place(self, start: int) -> str:
        return f"every={self.every!r} chunk={CHUNK} start={start}"

    def _key(self, digest: str, start: int) -> Callable[[str], Key]:
        """What a product of a chunk is kept under, by its name."""
        models = {
            "features": ("features", self.encoder.name),
            "captions": ("captions", self.captioner.name),
            "vectors": ("caption vectors", f"{self.captioner.name} {self.sentence_encoder.name}"),
        }
        return lambda product: Key(digest, *models[product], self._place(start))

    def _picture_key(self, digest: str, start: int) -> Key:
        side = f"{self.captioner.short_side} px of {self.decoded_side}"
        return Key(digest, PICTURES, side, self._place(start))

    def _kept(self, digest: str, start: int) -> dict[str, Arrays]:
        """The products of a chunk that the cache has."""
        if self.cache is None:
            return {}
        key = self._key(digest, start)
        found = {name: self.cache.get(key(name)) for name in ("features", "captions", "vectors")}
        return {name: arrays for name, arrays in found.items() if arrays is not None}

    def _add(
        self,
        products: dict[str, Arrays],
        name: str,
        value: NDArray[np.generic],
        key: Callable[[str], Key],
        frames: Frames,
        watch: Stopwatch,
    ) -> None:
        """Puts a product of a chunk to its others, and into the cache."""
        derived = {f"{_DERIVED}{what}": rows for what, rows in frames.derived.items()}
        products[name] = {"times": frames.times, name: value, **derived}
        with watch.stage("cache"):
            if self.cache is not None:
                self.cache.put(key(name), products[name])

    def _chunks(
        self,
        info: VideoInfo,
        grid: NDArray[np.float64],
        kept: Mapping[int, Mapping[str, Arrays]],
        unseen: Sequence[int],
        watch: Stopwatch,
    ) -> Generator[tuple[int, Frames], None, None]:
        """The frames of all chunks: those whose features are known, then the others, decoded."""
        for start, products in kept.items():
            if "features" in products:
                times = products["features"]["times"].astype(np.float64)
                derived = {
                    name.removeprefix(_DERIVED): values
                    for arrays in products.values()
                    for name, values in arrays.items()
                    if name.startswith(_DERIVED)
                }
                yield start, _frames_again(info, times, derived, self.decoded_side)
        if not unseen:
            return
        times = np.concatenate([grid[start : start + CHUNK] for start in unseen])
        batches = stream(info.path, times, batch=CHUNK, short_side=self.decoded_side)
        remaining = iter(unseen)
        with closing(batches):
            while True:
                # The decoder runs ahead in its own thread: this is the time the models wait for it.
                with watch.stage("wait for frames"):
                    frames = next(batches, None)
                if frames is None:
                    return
                yield next(remaining), frames


class _Pictures:
    """The frames of a video as captioners saw them: in the cache, or in memory where there is none.

    Args:
        cache: The cache.
        key: What the pictures of a chunk are kept under.
        short_side: Pixels of their short side.
    """

    def __init__(self, cache: Cache | None, key: Callable[[int], Key], short_side: int) -> None:
        self._cache = cache
        self._key = key
        self._short_side = short_side
        self.wanted = False
        """Whether the captioner looks at pictures: known when it did."""
        self._held: dict[int, list[bytes]] = {}

    def keep(self, start: int, jpegs: list[bytes]) -> None:
        """Keeps the pictures of the chunk that begins with the frame ``start``."""
        self.wanted = True
        if self._cache is None:
            self._held[start] = jpegs
            return
        ends = np.cumsum([len(jpeg) for jpeg in jpegs])
        joined = np.frombuffer(b"".join(jpegs), np.uint8)
        self._cache.put(self._key(start), {"jpegs": joined, "ends": ends})

    def shown(self, frames: Frames, indices: NDArray[np.int64], *, known: bool = True) -> Frames:
        """Frames in the captioner's size, with the pictures that were kept of them if ``known``."""
        scaled = frames.scaled(self._short_side)
        scaled.encoded = self._of(indices) if known else None
        return scaled

    def _of(self, indices: NDArray[np.int64]) -> list[bytes] | None:
        """The pictures of some frames; None unless all of them were kept."""
        chunks: dict[int, list[bytes]] = {}
        for start in sorted({int(index) // CHUNK * CHUNK for index in indices}):
            found = self._chunk(start)
            if found is None:
                return None
            chunks[start] = found
        return [chunks[int(index) // CHUNK * CHUNK][int(index) % CHUNK] for index in indices]

    def _chunk(self, start: int) -> list[bytes] | None:
        if self._cache is None:
            return self._held.get(start)
        entry = self._cache.get(self._key(start))
        if entry is None:
            return None
        joined, ends = entry["jpegs"].tobytes(), entry["ends"].tolist()
        return [joined[begin:end] for begin, end in zip([0, *ends], ends, strict=False)]


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
