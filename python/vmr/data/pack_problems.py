"""How what is wrong with a feature pack is told."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from vmr.errors import InputError

Level = Literal["error", "warning", "note"]
Notice = Callable[[Level, str, str, str], None]
"""Called as ``notice(level, kind, subject, message)`` about what does not stop a reading."""


class PackError(InputError):
    """An :class:`vmr.InputError` about a feature pack; ``kind`` groups them."""

    kind = "unreadable"

    # Not the constructor's argument: exceptions cross to other processes by their message alone.
    @classmethod
    def of(cls, kind: str, message: str) -> PackError:
        """An error of a kind."""
        error = cls(message)
        error.kind = kind
        return error
