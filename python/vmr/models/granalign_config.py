"""The parameters of GranAlign."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any, Literal

from vmr.errors import InputError, require

QueryForm = Literal["original", "simplified", "detailed", "none"]


@dataclass(frozen=True, slots=True)
class GranAlignConfig:
    """The parameters of GranAlign; "paper" marks the values that the paper gives, the others are ours.

    Attributes:
        every: Seconds between two sampled frames.
        pairs: m, the number of rewrite pairs (paper: 3).
        min_intent: A rewrite whose sentence similarity (cosine) to the query is below is dropped.
        aware_percent: K, the share of frames in percent that get a query-aware caption.
        agnostic_query: The form of the query that is compared with the query-agnostic captions
            (paper: simplified); "none" leaves this channel out.
        aware_query: The same for the query-aware captions (paper: detailed).
        normalization: g: "cosine" is (1 + cos) / 2, "min_max" scales each rewrite's cosines to [0, 1]
            over the video.
        threshold_sd: A frame is high-scoring from the mean of the video's frame scores plus this many
            standard deviations.
        max_gap: tau, seconds between two high-scoring frames that are still merged.
        drop_percent: n, the share of proposals in percent, lowest mean similarity first, that is
            dropped.
        length_weight: lambda in Score(p) = (1 - lambda) mu_p + lambda rho_p (paper: 0.3).
        length_normalization: rho is the proposal's length over that of the video ("duration") or of the
            query's longest proposal ("max").
        nms_iou: A moment whose temporal IoU with a better one exceeds this is left out.
    """

    every: float = 1.0
    pairs: int = 3
    min_intent: float = 0.8
    aware_percent: float = 20.0
    agnostic_query: QueryForm = "simplified"
    aware_query: QueryForm = "detailed"
    normalization: Literal["cosine", "min_max"] = "cosine"
    threshold_sd: float = 0.5
    max_gap: float = 2.0
    drop_percent: float = 20.0
    length_weight: float = 0.3
    length_normalization: Literal["duration", "max"] = "duration"
    nms_iou: float = 0.5

    def __post_init__(self) -> None:
        rules: dict[str, tuple[bool, str]] = {
            "every": (0 < self.every < math.inf, "seconds above 0"),
            "pairs": (self.pairs >= 1, "a whole number from 1"),
            "min_intent": (-1 <= self.min_intent <= 1, "a cosine from -1 to 1"),
            "aware_percent": (0 <= self.aware_percent <= 100, "percent from 0 to 100"),
            "agnostic_query": _choice(self.agnostic_query, QueryForm),
            "aware_query": _choice(self.aware_query, QueryForm),
            "normalization": _choice(self.normalization, Literal["cosine", "min_max"]),
            "threshold_sd": (math.isfinite(self.threshold_sd), "a finite number"),
            "max_gap": (0 <= self.max_gap < math.inf, "seconds from 0"),
            "drop_percent": (0 <= self.drop_percent <= 100, "percent from 0 to 100"),
            "length_weight": (0 <= self.length_weight <= 1, "a weight from 0 to 1"),
            "length_normalization": _choice(self.length_normalization, Literal["duration", "max"]),
            "nms_iou": (0 <= self.nms_iou <= 1, "an IoU from 0 to 1"),
        }
        require("GranAlign", asdict(self), rules)
        if self.agnostic_query == self.aware_query == "none":
            raise InputError(
                "GranAlign: agnostic_query, aware_query: expected at least one channel, got none"
            )


def _choice(value: object, literal: Any) -> tuple[bool, str]:
    choices = literal.__args__
    return value in choices, f"one of {', '.join(choices)}"
