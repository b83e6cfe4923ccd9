"""The exceptions and the warning category of vmr.

Every error that a user can cause is a :class:`VmrError`, so that a caller who wants to go on with the
next video catches one class. The command line maps each class to its own exit code.
"""

from __future__ import annotations

from collections.abc import Mapping


class VmrError(Exception):
    """Base class of all errors that vmr raises on purpose."""

    exit_code = 1


class InputError(VmrError):
    """An argument or an input file other than a video is not what was expected."""

    exit_code = 3


class VideoError(VmrError):
    """A video is missing, unreadable or holds no frames."""

    exit_code = 4


class BackendError(VmrError):
    """A model or the package that runs it is missing, or failed to answer."""

    exit_code = 5


class NoCaptionsError(BackendError):
    """A captioner had nothing to say of any frame of a video."""


class CacheError(VmrError):
    """The cache or a result could not be written or read."""

    exit_code = 6


class TrainingError(VmrError):
    """A training run cannot go on: its loss is no number any more."""

    exit_code = 7


class VmrWarning(UserWarning):
    """Something that a user should know, but that did not stop the work."""


def require(what: str, values: Mapping[str, object], rules: Mapping[str, tuple[bool, str]]) -> None:
    """Refuses settings that do not hold.

    Args:
        what: Whose settings they are, for the message.
        values: Them, by name.
        rules: Of each that is looked at: whether it holds, and what is expected.

    Raises:
        InputError: With the name of the first that does not.
    """
    for name, (holds, expected) in rules.items():
        if not holds:
            raise InputError(f"{what}: {name}: expected {expected}, got {values[name]!r}")
