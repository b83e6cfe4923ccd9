"""Query rewriting at two granularities by a language model (GranAlign).

The package's prompts are here and nowhere else. There are three pairs of them; a pair is a simplifying
and a detailing instruction, each worded differently and shown with examples of its own, because the
paper averages over several prompt pairs. A prompt is a chat: a system instruction, the examples as
turns of user and assistant, and the query as the last turn. The examples keep the subject of the
sentence and show things, actions and noun phrases alike: a small model copies their habits, good and
bad (an example that turned "a drummer" into "a man" made it turn women into men).
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, TypedDict, runtime_checkable

from vmr.backends.base import Rewrite, calls_at_once
from vmr.errors import BackendError, InputError


class Message(TypedDict):
    """One turn of a chat; ``role`` is "system", "user" or "assistant"."""

    role: str
    content: str


Messages = Sequence[Message]


@runtime_checkable
class TextGenerator(Protocol):
    """A language model that goes on with a chat.

    It may have ``calls_at_once`` too (:class:`vmr.backends.base.Concurrent`).
    """

    @property
    def name(self) -> str:
        """Tells apart two generators that would give different texts."""
        ...

    def generate(self, prompts: Sequence[Messages]) -> list[str]:
        """The assistant's next turn for each chat; an empty string for an answer cut off."""
        ...


@dataclass(frozen=True, slots=True)
class Prompt:
    """An instruction with examples.

    Attributes:
        system: The instruction.
        template: What the user's turn says; ``{}`` stands for the sentence.
        examples: Pairs of a sentence and its rewrite.
    """

    system: str
    template: str
    examples: tuple[tuple[str, str], ...]

    def messages(self, query: str) -> list[Message]:
        """The chat that asks for the rewrite of a query."""
        chat: list[Message] = [{"role": "system", "content": self.system}]
        for sentence, answer in self.examples:
            chat.append({"role": "user", "content": self.template.format(sentence)})
            chat.append({"role": "assistant", "content": answer})
        chat.append({"role": "user", "content": self.template.format(query)})
        return chat


PROMPT_PAIRS: tuple[tuple[Prompt, Prompt], ...] = (
    (
        Prompt(
            "Make the sentence short. Use common words. Keep the main person, thing and action.",
            "Sentence: {}\nShort:",
            (
                ("the boy is slicing a ripe watermelon in the kitchen", "A boy cuts a watermelon"),
                ("A band performs a lively song under purple lights", "A band plays a song"),
                ("a person carefully hangs a framed picture", "A person hangs a picture"),
                ("Passengers wait at a crowded railway station", "People wait at a station"),
                ("an old red canoe on the lake", "A canoe"),
            ),
        ),
        Prompt(
            "Say exactly the same in other words. Keep every detail. Add nothing.",
            "Sentence: {}\nSame:",
            (
                (
                    "A woman gently pets a white cat on the sofa",
                    "A woman is gently stroking a white cat that is on the sofa",
                ),
                (
                    "person grabs a broom from the closet",
                    "A person takes hold of a broom and pulls it out of the closet",
                ),
                (
                    "after the rain, kids build a sandcastle",
                    "Once the rain is over, several kids are building a castle of sand",
                ),
                ("a ripe watermelon", "One ripe watermelon can be seen"),
            ),
        ),
    ),
    (
        Prompt(
            "You write very short video titles in common words.",
            "Video: {}\nTitle:",
            (
                ("the boy is slicing a ripe watermelon in the kitchen", "boy cuts a watermelon"),
                ("a drummer performs an energetic solo on stage", "drummer plays the drums"),
                ("Woman vacuums the carpet while talking", "woman cleans the floor"),
                ("Passengers wait at a crowded railway station", "people wait at a station"),
                ("blue fishing boats in the harbor", "boats"),
            ),
        ),
        Prompt(
            "Make each sentence clear and complete. "
            "Keep all words about people, things, colors, places and times.",
            "Sentence: {}\nComplete:",
            (
                (
                    "boy slicing a ripe watermelon in the kitchen",
                    "A boy is slicing a ripe watermelon into pieces in the kitchen",
                ),
                (
                    "a drummer in a green hat performs a solo on stage",
                    "A drummer who wears a green hat is performing a solo on stage",
                ),
                (
                    "person hangs a picture before going to bed",
                    "A person is hanging a picture on the wall just before going to bed",
                ),
                ("blue fishing boats", "Several blue fishing boats are in view"),
            ),
        ),
    ),
    (
        Prompt(
            "Say what happens in a few plain words.",
            "{}",
            (
                ("A mechanic inspects the worn tires of an old truck", "A mechanic checks a truck"),
                ("person carefully hangs a picture on the wall", "A person hangs a picture"),
                ("Three girls in vests paddle a canoe down the river", "Girls ride in a boat"),
                ("a man strolls through the park with his dachshund", "A man walks his dog"),
                ("big waves on a stormy sea", "Waves on the sea"),
            ),
        ),
        Prompt(
            "Describe the moment precisely. Keep who, what, where and when.",
            "{}",
            (
                (
                    "A lady in red sips a cappuccino at a cafe",
                    "A lady who is dressed in red is sipping a cappuccino at a cafe",
                ),
                (
                    "person vacuums the carpet before dinner",
                    "Before dinner, a person is vacuuming the carpet",
                ),
                (
                    "teenagers paddle a canoe down the river",
                    "Several teenagers are paddling a canoe down the river",
                ),
                ("big waves on a stormy sea", "There are big waves on a stormy sea"),
            ),
        ),
    ),
)
"""Pairs of a simplifying prompt (Q_s) and a detailing one (Q_d)."""


class LlmRewriter:
    """Rewrites queries with a language model.

    Args:
        generator: The language model.
        prompts: Pairs of a simplifying prompt (Q_s) and a detailing one (Q_d).
    """

    def __init__(
        self,
        generator: TextGenerator,
        *,
        prompts: Sequence[tuple[Prompt, Prompt]] = PROMPT_PAIRS,
    ) -> None:
        self._generator = generator
        self._prompts = tuple(prompts)
        digest = hashlib.sha256(repr(self._prompts).encode()).hexdigest()[:8]
        self._name = f"{generator.name}, prompts {digest}"

    @property
    def name(self) -> str:
        """The generator's name and a digest of the prompts."""
        return self._name

    @property
    def calls_at_once(self) -> int:
        """As many as the generator takes."""
        return calls_at_once(self._generator)

    def rewrite(self, query: str, pairs: int) -> list[Rewrite]:
        """Rewrites of the query, cleaned but not judged.

        Args:
            query: A sentence.
            pairs: m, how many pairs of prompts to use; at most as many as there are.

        Returns:
            ``pairs`` rewrites; an empty string stands for an answer that held no usable rewrite.

        Raises:
            InputError: ``pairs`` is not a number of prompt pairs that there are.
            BackendError: The generator failed.
        """
        if not 1 <= pairs <= len(self._prompts):
            raise InputError(
                f"rewriter {self.name}: expected 1 to {len(self._prompts)} pairs of rewrites, "
                f"got {pairs}"
            )
        query = " ".join(query.split())
        if not query:
            return [Rewrite("", "")] * pairs
        prompts = [prompt for pair in self._prompts[:pairs] for prompt in pair]
        answers = self._generator.generate([prompt.messages(query) for prompt in prompts])
        if len(answers) != len(prompts):
            raise BackendError(
                f"generator {self._generator.name}: expected {len(prompts)} answers, "
                f"got {len(answers)}"
            )
        texts = [clean_rewrite(answer) for answer in answers]
        return [
            Rewrite(simple, detailed)
            for simple, detailed in zip(texts[::2], texts[1::2], strict=True)
        ]


MAX_WORDS = 80
"""A rewrite with more words is an essay, not a sentence."""

_LABEL = (
    r"(?:(?:rewritten|simplified|detailed|shortened|short|complete|same|new|original)\s+)?"
    r"(?:sentence|query|version|title|answer|output|rewrite|video|short|simplified|detailed|complete"
    r"|same)"
)
_OPENING = re.compile(
    rf"^(?:(?:sure|certainly|of course|okay|ok|yes)\b[!,.: ]*)?"
    rf"(?:here(?:'s|’s| is| are)[^:]{{0,80}}:|{_LABEL}\s*:|(?<=[!,.: ])(?=.))\s*",
    re.IGNORECASE,
)
_MARKER = re.compile(r"^(?:[-*•>]|\(?\d{1,2}[.)])\s+")
_QUOTES = {'"': '"', "'": "'", "“": "”", "‘": "’", "«": "»", "`": "`"}
_TALK = re.compile(
    r"^(?:i'm|i’m|i am|i can|i cannot|i don't|i don’t|i would|i'd|as an|sorry|unfortunately|please|"
    r"note|sure|certainly|of course|let me|let's)\b"
    r"|\bthe (?:original|rewritten|simplified|given|provided|above) (?:sentence|query|text|version)\b"
    r"|\b(?:rephrase[ds]?|rewritten|language model)\b",
    re.IGNORECASE,
)


def clean_rewrite(text: str) -> str:
    """The rewrite in a model's answer, without what the model says around it.

    Openings ("Sure! Here is the short sentence:"), labels, list markers and surrounding quotes are
    taken off. What cannot be told from talk is refused: more than one line, an apology, a question,
    words about the sentence, a text that repeats itself or is very long.

    Args:
        text: The answer of a language model.

    Returns:
        One line, or an empty string.
    """
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    if len(lines) > 1 and lines[0].endswith(":") and not _OPENING.sub("", lines[0]):
        lines = lines[1:]
    if len(lines) != 1:
        return ""
    line = " ".join(lines[0].split())
    while True:
        shorter = _unquoted(_MARKER.sub("", _OPENING.sub("", line).strip()).strip("*_ "))
        if shorter == line:
            break
        line = shorter
    if _TALK.search(line) or line.endswith(("?", ":")) or not re.search(r"\w", line):
        return ""
    words = re.findall(r"\w+", line.lower())
    runs = [tuple(words[start : start + 4]) for start in range(len(words) - 3)]
    if len(words) > MAX_WORDS or len(set(runs)) < len(runs):
        return ""
    return line


def _unquoted(line: str) -> str:
    """The line without a pair of quotes around all of it."""
    closing = _QUOTES.get(line[:1])
    if closing and len(line) > 1 and line.endswith(closing) and closing not in line[1:-1]:
        return line[1:-1].strip()
    return line
