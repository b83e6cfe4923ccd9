"""Video -> frame features of an encoder alone, and sentences as text features."""

from __future__ import annotations

import hashlib
import os
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vmr.backends.base import Encoder, SentenceEncoder, TokenEncoder
from vmr.cache import Arrays, Cache, Key
from vmr.errors import BackendError, InputError, VideoError, VmrWarning
from vmr.progress import Progress, Stopwatch, silent
from vmr.video import VideoInfo, probe, sample_times, stream

_CHUNK = 64  # frames that are encoded and kept together
_SENTENCES = 256  # that are an entry of the cache: what a run loses at most when it is killed
_MOST_ROWS = 1_000_000  # of a video: 11 days at a row a second


@dataclass(frozen=True, slots=True, eq=False)
class EncodedVideo:
    """A video as features of its frames.

    Attributes:
        info: The file's facts.
        every: Seconds between two sampled frames.
        features: [F, d] L2-normalised, of the frame in the middle of each span of ``every`` seconds.
    """

    info: VideoInfo
    every: float
    features: NDArray[np.float32]

    @property
    def duration(self) -> float:
        """Seconds of the video that the frames stand for."""
        return min(self.info.duration, len(self.features) * self.every)


def encode_video(
    path: str | os.PathLike[str],
    encoder: Encoder,
    every: float,
    *,
    cache: Cache | None = None,
    progress: Progress = silent,
    watch: Stopwatch | None = None,
) -> EncodedVideo:
    """The features of a video's frames, in chunks of which each is kept when it is done.

    Args:
        path: The video.
        encoder: What sees the frames.
        every: Seconds between two of them.
        cache: Where chunks are kept and taken from; None keeps nothing. What is there is not decoded.
        progress: Told of frames.
        watch: Told where the time went.

    Raises:
        VideoError: The file is missing, is no video or holds no frames.
        InputError: ``every`` is not above 0, or makes more than a million rows.
        BackendError: The encoder fails.
    """
    watch = Stopwatch() if watch is None else watch
    info = probe(path)
    if every > 0 and info.duration / every > _MOST_ROWS:
        raise InputError(
            f"every: expected seconds that make up to {_MOST_ROWS:,} rows of {Path(path).name} "
            f"({info.duration:g} s), got {every:g}"
        )
    times = sample_times(info.duration, every)
    with watch.stage("read content"):
        digest = cache.digest(path) if cache is not None else ""
    chunks: dict[int, Arrays] = {}
    unseen: list[int] = []
    with watch.stage("cache"):
        for start in range(0, len(times), _CHUNK):
            kept = None if cache is None else cache.get(_key(digest, encoder, every, start))
            if kept is None:
                unseen.append(start)
                continue
            chunks[start] = kept
            if len(kept["features"]) < len(times[start : start + _CHUNK]):
                break  # the file ends here, whatever its header claims
    known = sum(len(chunk["features"]) for chunk in chunks.values())
    progress("frames", known, len(times))
    wanted = np.concatenate([[], *(times[start : start + _CHUNK] for start in unseen)])
    done = 0
    if unseen:
        remaining = iter(unseen)
        with closing(stream(path, wanted, batch=_CHUNK, short_side=encoder.short_side)) as seen:
            for frames in seen:
                start = next(remaining)
                with watch.stage("encode frames"):
                    features = _checked(encoder, encoder.encode_frames(frames), len(frames))
                chunks[start] = {"features": features}
                if cache is not None:
                    with watch.stage("cache"):
                        cache.put(_key(digest, encoder, every, start), chunks[start])
                done += len(frames)
                progress("frames", known + done, len(times))
    if not chunks:
        raise VideoError(f"{path}: expected a frame at one of {len(times)} times, got none")
    if known + done < len(times) and done == len(wanted):  # else the stream said so
        warnings.warn(
            f"{path} decodes only up to {(known + done) * every:.1f} s of the {info.duration:.1f} s its "
            "header claims; the rest is left out",
            VmrWarning,
            stacklevel=2,
        )
    rows = np.concatenate([chunks[start]["features"] for start in sorted(chunks)])
    return EncodedVideo(info, every, rows.astype(np.float32))


def _key(digest: str, encoder: Encoder, every: float, start: int) -> Key:
    detail = f"every={every!r} side={encoder.short_side} chunk={_CHUNK} start={start}"
    return Key(digest, "frame features", encoder.name, detail)


def _checked(encoder: Encoder, features: NDArray[np.float32], count: int) -> NDArray[np.float32]:
    if features.ndim != 2 or len(features) != count:
        raise BackendError(
            f"encoder {encoder.name}: expected {count} vectors, one a frame, got "
            f"{list(features.shape)}"
        )
    return features.astype(np.float32)


@dataclass(frozen=True, slots=True, eq=False)
class EncodedTexts:
    """Sentences as text features.

    Attributes:
        pooled: [n, d] L2-normalised, a sentence as one vector. Of an image-text encoder: in the space
            of its frames, so that a dot product says how well both fit (CLIP: after the projection).
        tokens: A [tokens, h] a sentence, the last hidden states (CLIP: before the projection); None
            where the encoder does not give them.
    """

    pooled: NDArray[np.float32]
    tokens: list[NDArray[np.float32]] | None

    def arrays(self, place: int) -> dict[str, NDArray[np.float32]]:
        """One sentence's, by the names that the field's files have for them."""
        found = {"pooler_output": self.pooled[place]}
        if self.tokens is not None:
            found["last_hidden_state"] = self.tokens[place]
        return found


def encode_texts(reader: Encoder | SentenceEncoder, texts: Sequence[str]) -> EncodedTexts:
    """What an encoder makes of sentences.

    Args:
        reader: An image-text encoder, whose text tower is meant, or a sentence encoder.
        texts: At least one.

    Raises:
        BackendError: The encoder fails.
    """
    given = list(texts)
    pooled = (
        reader.encode(given) if isinstance(reader, SentenceEncoder) else reader.encode_texts(given)
    )
    tokens = reader.encode_tokens(given) if isinstance(reader, TokenEncoder) else None
    return EncodedTexts(pooled.astype(np.float32), tokens)


class SentenceVectors(Mapping[str, NDArray[np.float32]]):
    """What one encoder makes of sentences.

    Args:
        encoder: What reads them.
        cache: Where their vectors are kept; whoever asks for the same sentences again encodes none.
        progress: Is told how many of a batch are done.
    """

    def __init__(self, encoder: SentenceEncoder, cache: Cache | None, progress: Progress) -> None:
        self._encoder = encoder
        self._cache = cache
        self._progress = progress
        self._known: dict[str, NDArray[np.float32]] = {}

    def add(self, texts: Iterable[str], what: str) -> None:
        """Encodes those that are not known yet, by themselves.

        An encoder may round a sentence differently beside longer ones, so texts that must not move
        others are added in a call of their own.
        """
        new = [text for text in dict.fromkeys(texts) if text not in self._known]
        for begin in range(0, len(new), _SENTENCES):
            chunk = new[begin : begin + _SENTENCES]
            self._known.update(zip(chunk, self._encoded(chunk), strict=True))
            self._progress(f"encode {what}", min(begin + _SENTENCES, len(new)), len(new))

    def _encoded(self, texts: list[str]) -> NDArray[np.float32]:
        digest = hashlib.blake2b("\0".join(texts).encode(), digest_size=20).hexdigest()
        key = Key("", "sentence vectors", self._encoder.name, digest)
        found = self._cache.get(key) if self._cache is not None else None
        if found is not None and len(found["vectors"]) == len(texts):
            return found["vectors"].astype(np.float32)
        vectors = self._encoder.encode(texts)
        if self._cache is not None:
            self._cache.put(key, {"vectors": vectors})
        return vectors

    def rows(self, texts: Iterable[str]) -> NDArray[np.float32]:
        """The vectors [n, d] of added texts."""
        return np.stack([self._known[text] for text in texts])

    def __getitem__(self, text: str) -> NDArray[np.float32]:
        return self._known[text]

    def __iter__(self) -> Iterator[str]:
        return iter(self._known)

    def __len__(self) -> int:
        return len(self._known)
