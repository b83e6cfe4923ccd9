"""Every parameter of a simulated corpus, and how a command line sets them."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, Literal

import msgspec

from vmr.settings import convert, override

Null = Literal["none", "windows", "narrations", "negatives"]
"""What is torn from its meaning: nothing; windows (permuted between videos); the times of narrations;
negative queries (drawn from other videos)."""

_SHARES = ("hit", "faint", "token_mix", "witness", "generic", "hallucinated", "dropped")
_NOT_NEGATIVE = (
    "seed",
    "frame_noise",
    "boundary_noise",
    "gap",
    "bend",
    "setting",
    "instance",
    "pooled_noise",
    "token_noise",
    "word_noise",
    "narration_noise",
    "kept",
)
_AT_LEAST_ONE = ("classes", "distractors", "dim", "word_dim")
_ABOVE_ZERO = ("row_seconds", "narration_seconds")


class Simulation(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How a corpus is simulated. The same parameters and inputs give the same files.

    Noise and deviations are lengths beside a latent of length 1: at 1 they are as strong as it is.

    Attributes:
        seed: Of everything that is drawn.
        hit: Share of queries whose most similar frame lies in the ground truth. The strength of the
            frames' noise is raised until the training queries are down at it.
        frame_noise: Least strength of the frames' noise.
        faint: Share of rows that hardly show their scene; with more of them the similarities inside
            and outside of moments overlap more, and the most similar frame stays where it is.
        coherence: Correlation of the frames' noise, and of faintness, from one row of a scene to the
            next; from 0 up to below 1.
        boundary_noise: Standard deviation of a scene's ends around the annotated ones, s.
        classes: Pseudo-classes of the training sentences; not used with action timelines.
        row_seconds: Time from one row of features to the next, s.
        dim: Columns of frames, tokens, pooled queries and narrations.
        word_dim: Columns of the word vectors.
        gap: Length of the constant that tells a modality from the others.
        bend: Strength of the non-linear part of the maps from latents to features.
        setting: What all frames of a video have in common.
        instance: How far a scene is from the mean of its class.
        distractors: Classes that a video draws its unannotated scenes from.
        pooled_noise, token_noise, word_noise, narration_noise: Of these views.
        token_mix: Share of the word itself in its token; the rest is the sentence.
        kept: Queries that a video keeps at most, in each split; 0 keeps all. Those it does not keep
            are in no split any more and become narrators of the video.
        narration_seconds: Time from one narration to the next, s.
        witness: Share of narrations by those who saw the video, where there are any for the time: other
            annotators' sentences, and queries that were not kept.
        generic: Share of narrations that say nothing.
        hallucinated: Share of narrations of what is not there.
        dropped: Share of the words that are left out of narrations.
        null: What is torn from its meaning; there every gain must vanish.
    """

    seed: int = 0
    hit: float = 0.9
    frame_noise: float = 0.5
    faint: float = 0.3
    coherence: float = 0.7
    boundary_noise: float = 0.5
    classes: int = 100
    row_seconds: float = 2.0
    dim: int = 512
    word_dim: int = 300
    gap: float = 1.0
    bend: float = 0.5
    setting: float = 0.5
    instance: float = 0.5
    distractors: int = 3
    pooled_noise: float = 0.3
    token_noise: float = 0.3
    token_mix: float = 0.5
    word_noise: float = 0.3
    kept: int = 0
    narration_seconds: float = 4.0
    narration_noise: float = 0.3
    witness: float = 0.5
    generic: float = 0.1
    hallucinated: float = 0.1
    dropped: float = 0.2
    null: Null = "none"

    def __post_init__(self) -> None:
        rules: tuple[tuple[tuple[str, ...], Callable[[float], bool], str], ...] = (
            (_SHARES, lambda value: 0 <= value <= 1, "from 0 to 1"),
            (_NOT_NEGATIVE, lambda value: 0 <= value < math.inf, ">= 0"),
            (_AT_LEAST_ONE, lambda value: value >= 1, ">= 1"),
            (_ABOVE_ZERO, lambda value: 0 < value < math.inf, "> 0"),
            (("coherence",), lambda value: 0 <= value < 1, ">= 0 and < 1"),
        )
        for names, right, what in rules:
            for name in names:
                if not right(getattr(self, name)):
                    raise ValueError(f"`{name}` must be {what}, got {getattr(self, name)}")
        if self.generic + self.hallucinated > 1:
            raise ValueError("`generic` and `hallucinated` together must be <= 1")


def parse(settings: Sequence[str]) -> Simulation:
    """The parameters with some set as ``NAME=VALUE``.

    Raises:
        InputError: For another form, a name that there is not (with the nearest one), or a value of
            another type or out of its range.
    """
    values: dict[str, Any] = {}
    override(values, settings)
    return convert(values, Simulation, "parameters")
