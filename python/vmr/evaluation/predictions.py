"""Predictions as the field writes them: JSON lines in the layout of the QVHighlights evaluator."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeAlias, cast

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
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        for line in prediction_lines(predictions):
            file.write(line + b"\n")


def prediction_lines(predictions: Iterable[Prediction]) -> Iterator[bytes]:
    """The lines of an official jsonl file.

    Raises:
        InputError: As :func:`write_predictions`.
    """
    encoder = msgspec.json.Encoder()
    for prediction in predictions:
        _require_finite(prediction)
        yield encoder.encode(_without_line(prediction))


def as_predictions(given: Predictions) -> tuple[list[Prediction], str]:
    """Predictions from a path, from records or from mappings in the official layout; and their name.

    Windows and scores in memory may be lists, NumPy arrays or tensors.

    Raises:
        InputError: For a mapping that is not of the layout, with its place.
    """
    if isinstance(given, str | os.PathLike):
        return read_predictions(given), str(given)
    items = cast("Sequence[Prediction | Mapping[str, Any]]", given)
    return [_record(item, place) for place, item in enumerate(items, start=1)], "predictions"


def _record(item: Prediction | Mapping[str, Any], place: int) -> Prediction:
    if isinstance(item, Prediction):
        if _is_plain(item):
            return item
        line = item.line
        item = {key: getattr(item, key) for key in item.__struct_fields__}
    else:
        line = 0
    try:
        record = msgspec.convert(item, Prediction)
    except msgspec.ValidationError:
        try:
            record = msgspec.convert(_as_lists(item), Prediction)
        except msgspec.ValidationError as error:
            raise InputError(f"predictions, record {place}: {error}") from None
    record.line = line
    return record


def _is_plain(prediction: Prediction) -> bool:
    """Whether a record holds lists; what these hold is looked at when they are laid out."""
    windows, scores = prediction.pred_relevant_windows, prediction.pred_saliency_scores
    return (windows is None or type(windows) is list) and (scores is None or type(scores) is list)


def _as_lists(value: Any) -> Any:
    """Arrays, tensors and their numbers as Python's own."""
    if isinstance(value, Mapping):
        return {key: _as_lists(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_as_lists(inner) for inner in value]
    return value.tolist() if hasattr(value, "tolist") else value


def _require_finite(prediction: Prediction) -> None:
    from math import isfinite

    numbers = [number for window in prediction.pred_relevant_windows or () for number in window]
    numbers += prediction.pred_saliency_scores or ()
    if not all(map(isfinite, numbers)):
        raise InputError(f"qid {prediction.qid!r}: a window or score is not a finite number")


def _without_line(prediction: Prediction) -> Prediction:
    return msgspec.structs.replace(prediction, line=0) if prediction.line else prediction
