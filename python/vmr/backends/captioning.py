"""Captions by a model that sees an image and reads an instruction (GranAlign).

The package's instructions are here and nowhere else. The query-agnostic one asks for what anybody would
see; the query-aware one names the entities and actions of the query and asks what the picture shows of
them, so that the caption goes into the detail that the query is about. Both ask for what is visible
only: such models like to repeat a question as if it were the answer.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from vmr.backends.base import Focus, calls_at_once
from vmr.errors import BackendError, InputError

if TYPE_CHECKING:
    from vmr.video import Frames

AGNOSTIC = (
    "This is a frame of a video. Say in one plain sentence who or what it shows, what they are doing, "
    "and where. Name only what can be seen. Answer with the sentence alone."
)
"""The instruction for query-agnostic captions."""

AWARE = (
    "This is a frame of a video. Look in particular for: {focus}. Say in one sentence what the frame "
    "really shows of this, with the visible details: who or what it is, how it looks, what it is "
    "doing, and where. What is not in the frame is not there: do not mention it, and describe what "
    "is there instead. Answer with the sentence alone."
)
"""The instruction for query-aware captions; ``{focus}`` stands for entities and actions."""

SHORT_SIDE = 448
"""Pixels of the short side of the frames that are shown."""

_SENTENCES = re.compile(r".*(?:[.!?](?=\s|$)|[。！？])", re.DOTALL)
_REFUSAL = re.compile(
    r"^(?:sorry|unfortunately|as an ai|i(?:['’]m| am) (?:sorry|unable)|i can(?:not|['’]t))\b",
    re.IGNORECASE,
)


@runtime_checkable
class VisionModel(Protocol):
    """A model that says something about an image.

    It may have ``calls_at_once`` too (:class:`vmr.backends.base.Concurrent`).
    """

    @property
    def name(self) -> str:
        """Tells apart two models that would say different things."""
        ...

    @property
    def takes_instructions(self) -> bool:
        """False for a plain captioner (BLIP-2), which is given "" and describes."""
        ...

    def describe(self, jpegs: Sequence[bytes], instruction: str) -> list[str]:
        """What it says about each picture; an empty string for an answer without words.

        Of an answer that was cut off the whole sentences (:func:`whole_sentences`).
        """
        ...


def whole_sentences(answer: str) -> str:
    """What is left of an answer that was cut off: its whole sentences, "" where there is none."""
    found = _SENTENCES.match(answer)
    return found[0] if found else ""


class VlmCaptioner:
    """Captions frames with a vision-language model.

    A model that takes no instructions has no query-aware captions: its query-agnostic ones stand in.

    Args:
        model: The vision-language model.
        agnostic: The instruction for query-agnostic captions.
        aware: The one for query-aware captions; ``{focus}`` stands for entities and actions.

    Raises:
        InputError: ``{focus}`` is missing.
    """

    short_side = SHORT_SIDE

    def __init__(self, model: VisionModel, *, agnostic: str = AGNOSTIC, aware: str = AWARE) -> None:
        if "{focus}" not in aware:
            raise InputError(f"VlmCaptioner: aware: expected {{focus}} in it, got {aware!r:.100}")
        self._model = model
        self._agnostic, self._aware = agnostic, aware
        asked = repr((agnostic, aware, SHORT_SIDE)).encode()
        self._digest = hashlib.sha256(asked).hexdigest()[:8]

    @property
    def name(self) -> str:
        """The model's name and a digest of the instructions."""
        asked = (
            f"instructions {self._digest}" if self._model.takes_instructions else "no instructions"
        )
        return f"{self._model.name}, {asked}"

    @property
    def calls_at_once(self) -> int:
        """As many as the model takes."""
        return calls_at_once(self._model)

    def caption(self, frames: Frames) -> list[str]:
        """What is seen in each frame; "" where the model refuses to say."""
        return self._ask(frames, self._agnostic if self._model.takes_instructions else "")

    def caption_for(self, frames: Frames, focus: Focus) -> list[str]:
        """What is seen in each frame of the entities and actions of a query; "" where there is none."""
        if not self._model.takes_instructions:
            return [""] * len(frames)
        words = [*focus.entities, *focus.actions] or [focus.query]
        return self._ask(frames, self._aware.replace("{focus}", ", ".join(words)))

    def _ask(self, frames: Frames, instruction: str) -> list[str]:
        pictures = frames.jpegs()
        answers = self._model.describe(pictures, instruction)
        if len(answers) != len(pictures):
            raise BackendError(
                f"{self._model.name}: expected {len(pictures)} answers, one a picture, got "
                f"{len(answers)}"
            )
        return [_sentence(answer) for answer in answers]


def _sentence(answer: str) -> str:
    """The answer in one line; "" for a refusal."""
    line = " ".join(answer.split()).strip('"“”').strip()
    return "" if _REFUSAL.search(line) else line
