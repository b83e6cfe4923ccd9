"""The systems, by name."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from vmr.errors import InputError
from vmr.models.granalign import GranAlign
from vmr.models.presets import options_of
from vmr.models.registry import TRAINED
from vmr.settings import nearest

if TYPE_CHECKING:
    from vmr.models.base import MomentModel

_SYSTEMS = {"granalign": GranAlign}


def load(system: str, *, preset: str | None = None, **options: Any) -> GranAlign:
    """A system that is ready to retrieve.

    Args:
        system: ``"granalign"``.
        preset: Whose models are taken where none are given: "granalign-paper"
            (:data:`vmr.models.presets.PRESETS`); None for the embedded ones.
        options: Passed on to the system's constructor (see :class:`vmr.GranAlign`).

    Raises:
        InputError: For a name that is not a system or not a preset.
        BackendError: Where a model is not installed.
    """
    if system in TRAINED:
        raise InputError(
            f"load: {system} is a model that is trained; vmr.Retriever.from_pretrained(CHECKPOINT) "
            "opens one that was"
        )
    if system not in _SYSTEMS:
        raise InputError(
            f"load: expected the name of a system, one of {', '.join(_SYSTEMS)}; got {system!r}"
            f"{nearest(system, _SYSTEMS)}"
        )
    ready = options_of(preset) if preset is not None else {}
    return _SYSTEMS[system](**{**ready, **options})


def from_official(
    path: str | os.PathLike[str],
    opt: str | os.PathLike[str] | Mapping[str, Any] | None = None,
) -> MomentModel:
    """A model from a checkpoint that the authors of a system released, whichever it is.

    Arguments, result and errors are those of :func:`vmr.models.official.from_official`.
    """
    from vmr.models.base import MomentModel

    return MomentModel.from_official(path, opt)
