"""What a trained model sees of a new video: features as those that it was trained on."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, TypeVar

import msgspec
import numpy as np
import torch
from numpy.typing import NDArray

from vmr.backends import load_encoder, load_sentence_encoder
from vmr.backends.base import Encoder, SentenceEncoder
from vmr.cache import Cache
from vmr.data.arrays import MissingKeyError, open_array
from vmr.data.extract import pack_of, text_of
from vmr.data.made import MadeFiles
from vmr.data.pack_files import PackFiles
from vmr.data.pack_spec import TEF, Pack, Text
from vmr.data.packs import FeaturePack
from vmr.data.records import Query
from vmr.encoding import EncodedTexts, encode_texts, encode_video
from vmr.errors import BackendError, InputError, VmrWarning
from vmr.progress import Progress, Stopwatch
from vmr.video import probe

T = TypeVar("T", bound="Encoder | SentenceEncoder")

_EVERY = 2.0  # seconds a row, where nothing was trained on


class Seen(NamedTuple):
    """A video.

    Attributes:
        duration: Seconds of it that rows stand for.
        rows: [rows, d] of the encoder; None where a folder has them.
    """

    duration: float
    rows: NDArray[np.float32] | None


@dataclass(frozen=True, slots=True)
class Sight:
    """How the features of a pack come about for a video and sentences that it does not hold.

    Attributes:
        spec: What the features are; None for a model that was not trained.
        name: Of the model, for messages.
        encoder: What sees the frames; None where a folder has the rows.
        reader: What reads the sentences; None where they are word vectors.
        every: Seconds between two frames.
        root: The folder that has the rows; None where the encoder makes them.
        pooled: Whether the model reads a sentence as one vector; else its tokens.
    """

    spec: Pack | None
    name: str
    encoder: Encoder | None
    reader: Encoder | SentenceEncoder | None
    every: float
    root: Path | None
    pooled: bool

    @classmethod
    def open(
        cls,
        spec: Pack | None,
        name: str,
        *,
        pooled: bool,
        encoder: str | Encoder | None = None,
        sentence_encoder: str | SentenceEncoder | None = None,
        every: float | None = None,
        features: str | os.PathLike[str] | None = None,
        device: torch.device | str | None = None,
        prefix: str = "",
    ) -> Sight:
        """Opens the encoders that are named, or that the pack names.

        The arguments are those of :class:`vmr.Retriever`, and the attributes; ``prefix`` is that of the
        names which the first have there.

        Raises:
            InputError: It is not known how such features are made, or what is named is not right.
            BackendError: An encoder is not there.
        """
        known = _Trained(spec, name, device, prefix)
        seen_by: Encoder | None = None
        if features is None:
            seen_by = known.encoder(encoder)
        elif spec is None:
            raise InputError(
                f"{name}: features: expected an encoder, as what the model was trained on is not known"
            )
        elif every is not None:
            raise InputError(
                f"{name}: every: does not go with features; the folder's rows have theirs"
            )
        own = None if spec is None else spec.seconds_per_row
        if features is None and every is None and spec is not None and own is None:
            raise InputError(
                f"{name}: was trained on rows that are spread evenly over a video; every (--every) must "
                "say how many seconds apart frames are taken"
            )
        if spec is not None and own is not None and every is not None:
            _check_every(every)
            spec = msgspec.structs.replace(spec, seconds_per_row=every)
        return cls(
            spec=spec,
            name=name,
            encoder=seen_by,
            reader=known.reader(sentence_encoder, seen_by or encoder),
            every=every or own or _EVERY,
            root=None if features is None else Path(features),
            pooled=pooled,
        )

    @property
    def backends(self) -> dict[str, str]:
        """Which model plays which part, by name."""
        sees = f"features in {self.root}" if self.encoder is None else self.encoder.name
        reads = (
            {} if self.reader in (None, self.encoder) else {"sentence encoder": self.reader.name}
        )
        return {"encoder": sees, **reads}

    def read(self, sentences: Sequence[str]) -> EncodedTexts | None:
        """Sentences as text features; None where they are word vectors.

        Raises:
            InputError: They are not as wide as what was trained on, or lack tokens.
        """
        if self.reader is None:
            return None
        found = encode_texts(self.reader, sentences)
        text = None if self.spec is None else self.spec.text
        if text is None:
            return found
        if self._reads_tokens(text) and found.tokens is None:
            raise InputError(
                f"{self.name}: reads the tokens of sentences, which {self.reader.name} does not give; "
                "name another sentence encoder"
            )
        columns, wanted = found.pooled.shape[1], text.pooled_width
        if self._reads_tokens(text) and found.tokens is not None:
            columns, wanted = found.tokens[0].shape[1], text.dim
        self._check_width("sentences", columns, wanted, self.reader.name)
        if self.reader is self.encoder:
            self._check_frames(found.pooled.shape[1])
        return found

    def see(self, video: Path, cache: Cache | None, progress: Progress, watch: Stopwatch) -> Seen:
        """A video.

        Raises:
            InputError: Its rows are not as wide as what was trained on; or the folder's are missing, or
                another video's.
            VideoError: It cannot be read.
        """
        if self.encoder is None:
            info = probe(video)
            self._check_folder(video)
            return Seen(info.duration, None)
        found = encode_video(
            video, self.encoder, self.every, cache=cache, progress=progress, watch=watch
        )
        self._check_frames(found.features.shape[1])
        return Seen(found.duration, found.features)

    def pack(
        self,
        seen: Seen,
        texts: EncodedTexts | None,
        queries: Sequence[Query],
        video_dim: int | None,
    ) -> FeaturePack:
        """Both as a feature pack, which makes of them what it makes of files.

        Args:
            seen: The video.
            texts: The sentences.
            queries: The sentences as queries.
            video_dim: Columns that the model takes, for one that was not trained: with a TEF or without.
        """
        spec = self.spec
        if spec is None:
            assert seen.rows is not None
            assert texts is not None
            spec = msgspec.structs.replace(pack_of(self.every), text=text_of(texts))
            if video_dim == seen.rows.shape[1]:
                spec = msgspec.structs.replace(spec, columns=("video",))
        arrays: dict[int | str, dict[str, NDArray[np.float32]]] = {}
        if texts is not None:
            assert spec.text is not None
            # What the model does not read need not be there.
            tokens = texts.tokens if self._reads_tokens(spec.text) else None
            key = spec.text.pooled_key if tokens is None else spec.text.key
            unread = {"key": None} if tokens is None else {"pooled_key": None}
            spec = msgspec.structs.replace(spec, text=msgspec.structs.replace(spec.text, **unread))
            rows = texts.pooled if tokens is None else tokens
            arrays = {query.qid: {str(key): row} for query, row in zip(queries, rows, strict=True)}
        name = f"features for {self.name}"
        files = MadeFiles(spec, name, video=seen.rows, texts=arrays, root=self.root)
        return FeaturePack(spec, files, name=name)

    def _reads_tokens(self, text: Text) -> bool:
        return not self.pooled and text.key is not None

    def _check_frames(self, columns: int) -> None:
        if self.spec is not None and self.encoder is not None:
            ((_, source),) = self.spec.sources.items()
            self._check_width("frames", columns, source.dim, self.encoder.name)

    def _check_width(self, what: str, columns: int, wanted: int | None, who: str) -> None:
        if wanted not in (None, columns):
            raise InputError(
                f"{self.name}: was trained on {what} of {wanted} columns, and those of {who} have "
                f"{columns}; name the encoder that it was trained with"
            )

    def _check_folder(self, video: Path) -> None:
        """The folder has the video, and no other of its name."""
        assert self.spec is not None
        assert self.root is not None
        files = PackFiles(self.spec, self.root, f"features for {self.name}")
        for source in self.spec.sources:
            paths, _ = files.video(source, video.stem)
            if "encoder" not in self.spec.made:
                continue
            for path in paths:
                try:
                    size = int(open_array(path, "source_bytes").read()[()])
                except MissingKeyError:
                    continue
                if size != video.stat().st_size:
                    raise InputError(f"{path}: was made from another video than {video}")


class _Trained:
    """The encoders that a pack names.

    Args:
        spec: What was trained on; None where nothing was.
        name: Of the model, for messages.
        device: Of encoders that are opened again.
        prefix: Of the names of the user's arguments.
    """

    def __init__(
        self, spec: Pack | None, name: str, device: torch.device | str | None, prefix: str
    ) -> None:
        self._spec, self._name = spec, name
        self._made = {} if spec is None else spec.made
        self._device, self._prefix = device, prefix

    def encoder(self, given: str | Encoder | None) -> Encoder:
        """What sees the frames."""
        spec = self._spec
        if spec is not None and (len(spec.sources) > 1 or spec.glove is not None):
            words = " and word vectors" if spec.glove is not None else ""
            raise InputError(
                f"{self._name}: was trained on {_listed(spec)}{words}, which no one encoder gives; "
                f"{self._argument('features')} takes them from disk"
            )
        if given is None:
            return self._again("encoder", load_encoder)
        found = load_encoder(given)
        self._warn_of_another("encoder", found.name)
        return found

    def reader(
        self, given: str | SentenceEncoder | None, encoder: str | Encoder | None
    ) -> Encoder | SentenceEncoder | None:
        """What reads the sentences; None where they are word vectors."""
        if self._spec is not None and self._spec.text is None:
            return None
        if given is not None:
            found = load_sentence_encoder(given)
            self._warn_of_another("sentence_encoder", found.name)
            return found
        there = self._made.get("sentence_encoder")
        if there is not None and there != self._made.get("encoder"):
            return self._again("sentence_encoder", load_sentence_encoder)
        if encoder is not None:
            return load_encoder(encoder)
        return self._again("encoder", load_encoder)

    def _again(self, part: str, load: Callable[[str], T]) -> T:
        option = self._argument("encoder" if self._prefix else part)
        name, opens = self._made.get(part), self._made.get(f"{part}_spec")
        if opens is None:
            raise InputError(
                f"{self._name}: {self._unknown(name)}; name it by {option}{self._or_features}"
            )
        named = str(opens)
        if self._device is not None and named.startswith("transformers:"):
            named += f",device={self._device}"
        try:
            found = load(named)
        except BackendError as error:
            raise BackendError(
                f"{self._name}: was trained with {name}, which is not to be had: {error}; {option} says "
                "where it is"
            ) from error
        if found.name != name:
            raise InputError(
                f"{self._name}: was trained with {name}, and {opens} is {found.name} now; {option} "
                "takes it all the same"
            )
        return found

    @property
    def _or_features(self) -> str:
        # An anchor's sentences would still have to be read.
        known = self._spec is not None and not self._prefix
        return f", or {self._argument('features')} takes them from disk" if known else ""

    def _argument(self, name: str) -> str:
        """An argument as Python and the command have it."""
        full = self._prefix + name
        return f"{full} (--{full.replace('_', '-')} {'DIR' if name == 'features' else 'MODEL'})"

    def _unknown(self, name: object) -> str:
        if self._spec is None:
            return "does not say what features it was trained on"
        if name is not None:
            return f"was trained with {name}, which does not say what opens it"
        about = f" ({self._spec.about})" if self._spec.about else ""
        return (
            f"was trained on {_listed(self._spec)}{about}, and vmr does not know of which encoder"
        )

    def _warn_of_another(self, part: str, name: str) -> None:
        there = self._made.get(part)
        if there not in (None, name):
            warnings.warn(
                f"{self._name}: was trained with {there}; {name} is another, and what it gives means "
                "something else unless it is the same model",
                VmrWarning,
                stacklevel=5,
            )


def _listed(spec: Pack) -> str:
    widths = {name: source.dim for name, source in spec.sources.items()}
    columns = [column for column in spec.columns if column != TEF]
    return " and ".join(f"{name} {widths[name] or ''}".strip() for name in columns)


def _check_every(every: float) -> None:
    if not 0 < every < float("inf"):
        raise InputError(f"every: expected seconds above 0, got {every}")
