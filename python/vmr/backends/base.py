"""What a system asks of a model: four small interfaces.

Any object with these members is a backend; none has to inherit from anything here. ``name`` tells
apart two backends that would give different results (model, version, settings, prompt): it is part of
every cache key, so it must change when the results do.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, runtime_checkable

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from vmr.video import Frames


@dataclass(frozen=True, slots=True)
class Rewrite:
    """One pair of rewrites of a query (GranAlign): ``simple`` is Q_s, ``detailed`` is Q_d."""

    simple: str
    detailed: str


@dataclass(frozen=True, slots=True)
class Focus:
    """What a query-aware caption attends to: the query and the entities and actions in it."""

    query: str
    entities: tuple[str, ...]
    actions: tuple[str, ...]


@runtime_checkable
class Encoder(Protocol):
    """Maps frames and texts into one space, where a dot product says how well they fit."""

    @property
    def name(self) -> str: ...

    @property
    def short_side(self) -> int:
        """Pixels of the short side of the frames that the encoder wants to be given."""
        ...

    def encode_frames(self, frames: Frames) -> NDArray[np.float32]:
        """Frames to L2-normalised vectors [n, d]."""
        ...

    def encode_texts(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Texts to L2-normalised vectors [n, d]."""
        ...


@runtime_checkable
class SentenceEncoder(Protocol):
    """Maps sentences to vectors whose cosine is their similarity of meaning."""

    @property
    def name(self) -> str: ...

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Sentences to L2-normalised vectors [n, d]; [0, d] for no sentence."""
        ...


@runtime_checkable
class TokenEncoder(Protocol):
    """What an encoder of texts may do besides: say what it makes of each token."""

    def encode_tokens(self, texts: Sequence[str]) -> list[NDArray[np.float32]]:
        """The last hidden states of each sentence [tokens, h], not normalised."""
        ...


@runtime_checkable
class Rewriter(Protocol):
    """Rewrites a query at two granularities."""

    @property
    def name(self) -> str: ...

    def rewrite(self, query: str, pairs: int) -> list[Rewrite]:
        """``pairs`` raw rewrites of the query; the caller judges them. An empty string is "none"."""
        ...


@runtime_checkable
class Captioner(Protocol):
    """Puts frames into words."""

    @property
    def name(self) -> str: ...

    @property
    def short_side(self) -> int:
        """Pixels of the short side of the frames that the captioner wants to be given."""
        ...

    def caption(self, frames: Frames) -> list[str]:
        """A query-agnostic caption for each frame; an empty string where there is none."""
        ...

    def caption_for(self, frames: Frames, focus: Focus) -> list[str]:
        """A query-aware caption for each frame; an empty string where there is none."""
        ...


@runtime_checkable
class Reopenable(Protocol):
    """What a model may say besides: the string that opens it again, as it is now."""

    @property
    def spec(self) -> str: ...


@runtime_checkable
class Concurrent(Protocol):
    """What a model may say besides: how many of its calls may run at once, from several threads.

    A model that does not say so gets one call at a time.
    """

    @property
    def calls_at_once(self) -> int: ...


def calls_at_once(model: object) -> int:
    """How many calls of a model may run at once."""
    return model.calls_at_once if isinstance(model, Concurrent) else 1
