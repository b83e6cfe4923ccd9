"""Names of models on the Hugging Face hub."""

from __future__ import annotations

import os
from pathlib import Path

from vmr.settings import nearest


def slip(given: str | os.PathLike[str]) -> str | None:
    """What a name that is no folder here was meant to be, where it cannot be ``owner/name`` on the hub.

    A folder beside it is no owner on the hub: then the name is a slip.

    Returns:
        None for a name that may be on the hub, else a hint to add to a message, "" without one.
    """
    name, path = os.fspath(given), Path(given)
    beside = list(path.parent.iterdir()) if path.parent.is_dir() else []
    local = beside and path.parent != Path()
    if path.is_file():
        return f"; did you mean its folder, {str(path.parent)!r}?"
    if path.exists() or local or name.count("/") != 1 or name.startswith((".", "/", "~")):
        return nearest(path.name, [entry.name for entry in beside if entry.is_dir()])
    return None
