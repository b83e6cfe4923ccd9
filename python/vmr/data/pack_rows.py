"""Rows of features as the loaders of the code bases compute them."""

from __future__ import annotations

from itertools import pairwise
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from vmr.data.arrays import Array
from vmr.data.pack_problems import Notice, PackError
from vmr.data.pack_spec import Normalise

Rows: TypeAlias = npt.NDArray[np.float32]

_EPS = 1e-5
_UNIT = 0.02  # half precision and the eps above leave a unit row within this of 1


def as_float32(array: Array, where: str) -> Rows:
    """A copy of [rows, columns] as float32.

    Raises:
        InputError: A row is not finite.
    """
    with np.errstate(over="ignore"):
        rows = np.array(array, dtype=np.float32)
    finite = np.isfinite(rows).all(axis=1)
    if not finite.all():
        row = int(np.argmin(finite))
        raise PackError.of(
            "not finite",
            f"{where}: row {row} is not finite ({int((~finite).sum())} of {len(rows)} rows are not); "
            "extract the features again",
        )
    return rows


def normalised(rows: Rows, how: Normalise, name: str, subject: str, notice: Notice) -> Rows:
    """The rows, normalised in place where the pack says so.

    Args:
        rows: [rows, columns].
        how: As the pack says.
        name: Of the source.
        subject: The video or query, for notices.
        notice: Told where the rows are not what the pack says.
    """
    norms = np.sqrt(np.einsum("rc,rc->r", rows, rows))
    zero = norms < _EPS
    if zero.any():
        notice(
            "warning",
            f"{name} has rows of zeros",
            subject,
            f"{int(zero.sum())} of {len(rows)} rows of {name} are zeros, the first is row "
            f"{int(np.argmax(zero))}; a failed extraction leaves such rows; extract again",
        )
    if how == "none":
        return rows
    unit = (np.abs(norms - 1) < _UNIT) | zero
    if how == "l2":
        if unit.all() and not zero.all():
            notice(
                "note",
                f"{name} has unit rows",
                subject,
                f"rows of {name} have length 1 already and are normalised again; no harm",
            )
        rows /= (norms + np.float32(_EPS))[:, None]
    elif not unit.all():
        row = int(np.argmin(unit))
        notice(
            "warning",
            f"{name} not normalised",
            subject,
            f"the pack says that rows of {name} are normalised already, and row {row} has length "
            f"{norms[row]:.4g}; set `normalise: l2` for {name}, or `none` to take them as they are",
        )
    return rows


def tef(rows: int) -> Rows:
    """The temporal end points of each row, as parts of the whole: [rows, 2]."""
    begin = np.arange(rows, dtype=np.float32) / np.float32(rows)
    return np.stack([begin, begin + np.float32(1 / rows)], axis=1)


def pool(rows: Array, most: int) -> npt.NDArray[Any]:
    """At most so many rows: means over neighbours, as EMB and VSLNet form them.

    The borders are evenly spaced, rounded and kept below the last row, so that the last row itself is
    seen only where a group would be empty. The mean is taken in the file's own type.

    Args:
        rows: [rows, columns].
        most: Rows to keep.
    """
    count = len(rows)
    if count <= most:
        return rows
    borders = np.minimum(
        np.round(np.arange(most + 1) / most * count).astype(int), count - 1
    ).tolist()
    return np.stack(
        [
            rows[begin:end].mean(axis=0) if begin < end else rows[begin]
            for begin, end in pairwise(borders)
        ]
    )
