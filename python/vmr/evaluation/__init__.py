"""Predictions against ground truth, by the published protocols."""

from __future__ import annotations

from vmr.evaluation.metric import MomentMetric
from vmr.evaluation.oddities import Oddity
from vmr.evaluation.predictions import Prediction, read_predictions, write_predictions
from vmr.evaluation.protocols import PROTOCOLS, Protocol
from vmr.evaluation.scoring import Evaluation, evaluate
from vmr.evaluation.statistics import Difference, Group, Interval

__all__ = [
    "PROTOCOLS",
    "Difference",
    "Evaluation",
    "Group",
    "Interval",
    "MomentMetric",
    "Oddity",
    "Prediction",
    "Protocol",
    "evaluate",
    "read_predictions",
    "write_predictions",
]
