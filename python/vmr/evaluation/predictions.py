"""Predictions as the field writes them: JSON lines in the layout of the QVHighlights evaluator."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeAlias

import msgspec

from vmr.data.lines import collector_paused, decode_json, read_lines
from vmr.errors import InputError
from vmr.files import atomic_path


class Prediction(msgspec.Struct, kw_only=True, omit_defaults=True):
    """What a model answered for one query; the names are those of the official files.

    Attributes:
        qid: The query's name in the ground truth.
        query: The sentence.
        vid: The video's name.
        pred_relevant_windows: Windows (start s, end s, score), best first; None where the model gives
            no moments.
        pred_saliency_scores: One score a clip of the video; None where the model gives none.
        line: Line of the file that the prediction was read from, counted from 1.
    """

    qid: int | str
    query: str = ""
    vid: str = ""
    pred_relevant_windows: list[tuple[float, float, float]] | None = None
    pred_saliency_scores: list[float] | None = None
    line: int = 0


Predictions: TypeAlias = (
    "str | os.PathLike[str] | Sequence[Prediction] | Sequence[Mapping[str, Any]]"
)

_DECODER = msgspec.json.Decoder(Prediction)


def read_predictions(path: str | os.PathLike[str]) -> list[Prediction]:
    """The predictions of an official jsonl file, in its order.

    NaN and Infinity are read; whether they count is the protocol's matter.

    Raises:
        InputError: For a file or a line that is not right, with both named.
    """
    predictions = []
    with collector_paused():
        for number, raw in read_lines(path):
            prediction = decode_json(raw, _DECODER, f"{path}, line {number}")
            prediction.line = number
            predictions.append(prediction)
    return predictions


def write_predictions(path: str | os.PathLike[str], predictions: Iterable[Prediction]) -> None:
    """Writes an official jsonl file, atomically.

    Raises:
        InputError: For a window or score that is not finite, which JSON cannot say.
        CacheError: Where the file cannot be written.
    """
    encoder = msgspec.json.Encoder()
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        for prediction in predictions:
            _require_finite(prediction)
            file.write(encoder.encode(_without_line(prediction)) + b"\n")


def as_predictions(given: Predictions) -> tuple[list[Prediction], str]:
    """Predictions from a path, from records or from mappings in the official layout; and their name.

    Raises:
        InputError: For a mapping that is not of the layout, with its place.
    """
    if isinstance(given, str | os.PathLike):
        return read_predictions(given), str(given)
    name = "predictions"
    records = []
    for place, item in enumerate(given, start=1):
        if isinstance(item, Prediction):
            records.append(item)
            continue
        try:
            record = msgspec.convert(item, Prediction)
        except msgspec.ValidationError as error:
            raise InputError(f"{name}, record {place}: {error}") from None
        record.line = place
        records.append(record)
    return records, name


def _require_finite(prediction: Prediction) -> None:
    from math import isfinite

    numbers = [number for window in prediction.pred_relevant_windows or () for number in window]
    numbers += prediction.pred_saliency_scores or ()
    if not all(map(isfinite, numbers)):
        raise InputError(f"qid {prediction.qid!r}: a window or score is not a finite number")


def _without_line(prediction: Prediction) -> Prediction:
    return msgspec.structs.replace(prediction, line=0) if prediction.line else prediction
