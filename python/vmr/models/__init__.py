"""The systems, by name."""

from __future__ import annotations

from typing import Any

from vmr.errors import InputError
from vmr.models.granalign import GranAlign

_SYSTEMS = {"granalign": GranAlign}


def load(system: str, **options: Any) -> GranAlign:
    """A system that is ready to retrieve.

    Args:
        system: ``"granalign"``.
        options: Passed on to the system's constructor (see :class:`vmr.GranAlign`).

    Raises:
        InputError: For a name that is not a system.
        BackendError: Where a model is not installed.
    """
    if system not in _SYSTEMS:
        raise InputError(
            f"load: expected the name of a system, one of {', '.join(_SYSTEMS)}; got {system!r}"
        )
    return _SYSTEMS[system](**options)
