"""What a narrator says now and then: what a video shows, nothing much, and what is not there."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Literal

import msgspec
import numpy as np

from vmr.simulation.classes import Classes
from vmr.simulation.corpus import Timed
from vmr.simulation.parameters import Simulation
from vmr.simulation.randomness import generator
from vmr.simulation.scenes import Track

Source = Literal["witness", "class", "generic", "hallucinated"]

GENERIC = (
    "the video goes on",
    "something is going on here",
    "this part of the video looks much like the one before",
    "it is hard to tell what is happening",
    "the picture is somewhat blurred",
    "the camera moves a little",
    "there is a view of the surroundings",
    "someone can be seen",
    "nothing much changes",
    "the light is the same as before",
)
"""Lines that fit any video."""


class Narration(msgspec.Struct, frozen=True):
    """A line about a moment of a video.

    Attributes:
        video: Its name.
        time: s.
        text: The line.
        source: Where it is from: someone who saw the video; the class that is shown, by a sentence about
            another video; no place at all; a class that is not shown. For statistics, never for a model.
    """

    video: str
    time: float
    text: str
    source: Source


def narrate(
    video: str,
    duration: float,
    track: Track,
    classes: Classes,
    witnesses: Sequence[Timed],
    asked: Iterable[str],
    simulation: Simulation,
) -> tuple[list[Narration], list[str]]:
    """The narrations of a video in time, and the whole sentence that each is made from.

    None has the words of a query of the video.

    Args:
        video: Its name.
        duration: s.
        track: What the video shows.
        classes: Whose training sentences are used.
        witnesses: What was said of this video by others than the annotators of its queries.
        asked: The sentences of the video's queries.
        simulation: The parameters.
    """
    barred = {_letters(text) for text in asked}

    def allowed(text: str) -> bool:
        return _letters(text) not in barred

    heard = [timed for timed in witnesses if allowed(timed.text)]
    generic = [line for line in GENERIC if allowed(line)] or GENERIC
    rng = generator(simulation.seed, "narrations", video)
    period = simulation.narration_seconds
    count = max(1, int(duration / period))
    shown = {scene.kind for scene in track.scenes}
    absent = [
        kind for kind, share in enumerate(classes.frequency) if share > 0 and kind not in shown
    ]
    times = [min((number + 0.5) * period, duration) for number in range(count)]
    said: list[tuple[str, Source]] = []
    for time in times:
        chance, second = rng.random(2)
        there = [scene.kind for scene in track.scenes if scene.start <= time < scene.end]
        seen = [timed for timed in heard if _at(timed, time)]
        text: str | None = None
        source: Source = "generic"
        if chance < simulation.hallucinated and absent:
            kind = absent[int(rng.integers(len(absent)))]
            text, source = classes.sentence(kind, video, rng, allowed), "hallucinated"
        elif chance < simulation.hallucinated + simulation.generic or not (there or seen):
            pass
        elif seen and (second < simulation.witness or not there):
            text, source = seen[int(rng.integers(len(seen)))].text, "witness"
        else:
            kind = there[int(rng.integers(len(there)))]
            text, source = classes.sentence(kind, video, rng, allowed), "class"
        if text is None:
            text, source = generic[int(rng.integers(len(generic)))], "generic"
        said.append((text, source))
    if simulation.null == "narrations":
        order = generator(simulation.seed, "shuffled narrations", video).permutation(count)
        said = [said[place] for place in order]
    drawn = generator(simulation.seed, "dropped", video)
    lines = []
    for time, (text, source) in zip(times, said, strict=True):
        whole = source == "generic"
        spoken = text if whole else _shortened(text, simulation.dropped, drawn)
        # What is left of a sentence may be a query.
        spoken = spoken if allowed(spoken) else text
        lines.append(Narration(video, time, spoken, source))
    return lines, [text for text, _ in said]


def _letters(text: str) -> str:
    """A sentence without case, punctuation and blanks."""
    return re.sub(r"[\W_]+", "", text.casefold())


def _at(timed: Timed, time: float) -> bool:
    return any(start <= time < end for start, end in timed.windows)


def _shortened(text: str, dropped: float, rng: np.random.Generator) -> str:
    """A sentence without some of its words, but for one."""
    words = text.split()
    left = [
        word
        for word, chance in zip(words, rng.random(len(words)), strict=True)
        if chance >= dropped
    ]
    return " ".join(left or words[:1])
