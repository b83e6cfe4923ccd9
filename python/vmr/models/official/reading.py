"""Checkpoints as authors release them: a pickle of torch, read without running what it asks for."""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import re
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vmr.errors import InputError

_OPTIONS = "opt.json"


@dataclass(frozen=True, slots=True)
class Released:
    """What a released file holds.

    Attributes:
        path: The file.
        sha256: Of its bytes, in hexadecimal.
        tensors: Its state dict, without the prefix of DataParallel.
        options: The options of the run that made it, by name.
        said_by: Where these stand, for messages.
        epoch: Of that run, from 0; None where the file does not say.
    """

    path: Path
    sha256: str
    tensors: dict[str, Tensor]
    options: dict[str, Any]
    said_by: str
    epoch: int | None


class _AnyDict:
    """Stands in for EasyDict, whose package need not be there: what it is made as is a plain mapping."""

    def __new__(cls, *entries: Any) -> OrderedDict[str, Any]:  # type: ignore[misc]
        return OrderedDict(*entries)


def read_released(
    path: str | os.PathLike[str], opt: str | os.PathLike[str] | Mapping[str, Any] | None = None
) -> Released:
    """A released checkpoint.

    The file is {"model": state dict, "opt": options, ...}, or a state dict alone. Of its pickle nothing
    runs but what makes tensors, plain containers, ``argparse.Namespace`` and ``EasyDict``.

    Args:
        path: The file.
        opt: The options of its run, as a JSON file or a mapping; None takes those in the file, or else
            opt.json beside it.

    Raises:
        InputError: There is no such file; it is damaged, asks for something else to be run, or holds no
            state dict; or there are no options.
    """
    place = Path(path)
    if not place.is_file():
        raise InputError(_no_file(place))
    content = _unpickled(place)
    whole = isinstance(content, dict) and isinstance(content.get("model"), Mapping)
    tensors = content["model"] if whole else content
    if (
        not isinstance(tensors, Mapping)
        or not tensors
        or not all(isinstance(value, Tensor) for value in tensors.values())
    ):
        raise InputError(
            f"{place}: expected a released checkpoint, {{'model': state dict, 'opt': ...}}, or a state "
            f"dict, got {_shape(content)}"
        )
    own = content.get("opt") if whole else None
    options, said_by = _options(place, opt, own)
    epoch = content.get("epoch") if whole else None
    return Released(
        path=place,
        sha256=_sha256(place),
        tensors=_bare(tensors),
        options=options,
        said_by=said_by,
        epoch=epoch if isinstance(epoch, int) else None,
    )


def _no_file(place: Path) -> str:
    if not place.is_dir():
        return f"{place}: expected a released checkpoint, there is no such file"
    if (place / "config.json").is_file():
        return f"{place}: is a checkpoint of vmr already; from_pretrained reads it"
    inside = sorted(
        file.name for file in place.iterdir() if file.suffix in (".ckpt", ".pt", ".pth")
    )
    some = f", such as {inside[0]} in it" if inside else ""
    return f"{place}: expected the file of a released checkpoint{some}, got a folder"


def _unpickled(place: Path) -> Any:
    allowed: list[Any] = [argparse.Namespace, (_AnyDict, "easydict.EasyDict")]
    try:
        with torch.serialization.safe_globals(allowed):
            return torch.load(place, map_location="cpu", weights_only=True)
    # What is damaged makes the reader fail in any way.
    except Exception as error:
        refused = re.search(r"GLOBAL (\S+) (?:was not|whose module)", str(error))
        if refused is not None:
            raise InputError(
                f"{place}: refused: to read it would run {refused[1]}; expected tensors, plain "
                "containers, argparse.Namespace or EasyDict alone (or the file is damaged)"
            ) from None
        raise InputError(
            f"{place}: is no checkpoint of torch, or is damaged or cut off: {_reason(error)}"
        ) from None


def _reason(error: Exception) -> str:
    """The part of torch's message that says what was found, and not how to trust the file."""
    said = str(error).partition("WeightsUnpickler error:")[2] or str(error)
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__


def _options(
    place: Path, given: str | os.PathLike[str] | Mapping[str, Any] | None, own: Any
) -> tuple[dict[str, Any], str]:
    """The options, and where they stand."""
    if isinstance(given, Mapping):
        return dict(given), "opt"
    if given is not None:
        return _json(Path(given)), os.fspath(given)
    if isinstance(own, argparse.Namespace):
        return vars(own), f"opt of {place}"
    if isinstance(own, Mapping):
        return dict(own), f"opt of {place}"
    beside = place.with_name(_OPTIONS)
    if beside.is_file():
        return _json(beside), str(beside)
    raise InputError(
        f"{place}: holds no options of its run, and there is no {_OPTIONS} beside it; opt (--opt FILE) "
        "names it: the weights alone do not say how many heads the attentions have"
    )


def _json(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_bytes())
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror or error}") from None
    except ValueError as error:
        raise InputError(f"{path}: is not JSON: {error}") from None
    if not isinstance(found, dict):
        raise InputError(f"{path}: expected options by name, got {_shape(found)}")
    return found


def _bare(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Names without the "module." of DataParallel."""
    prefix = "module."
    if all(name.startswith(prefix) for name in tensors):
        return {name.removeprefix(prefix): value for name, value in tensors.items()}
    return dict(tensors)


def _sha256(path: Path) -> str:
    found = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(2**20):
            found.update(block)
    return found.hexdigest()


def _shape(value: Any) -> str:
    if isinstance(value, Mapping):
        names = ", ".join(repr(name) for name in list(value)[:5])
        return f"a mapping with {names}" if names else "an empty mapping"
    return f"a {type(value).__name__}"
