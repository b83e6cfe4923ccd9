"""The trainable models, by name."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from vmr.errors import InputError
from vmr.settings import nearest

if TYPE_CHECKING:
    from vmr.models.base import MomentModel

# A model's module is imported when it is asked for.
_MODELS = {
    "moment-detr": ("vmr.models.moment_detr", "MomentDETR"),
    "qd-detr": ("vmr.models.qd_detr", "QDDETR"),
    "bm-detr": ("vmr.models.bm_detr", "BMDETR"),
    "afa-fsgd": ("vmr.models.afa_fsgd", "A2FAF2SGD"),
    "host": ("vmr.models.host", "PluginHost"),
    "window-prior": ("vmr.models.window_prior", "WindowPrior"),
    "similarity": ("vmr.models.similarity", "RawSimilarity"),
}

TRAINED = tuple(_MODELS)
"""Their names."""


def model_type(kind: str, where: str = "model") -> type[MomentModel]:
    """The class of a model.

    Args:
        kind: Its name.
        where: For the message.

    Raises:
        InputError: There is no such model.
    """
    if kind not in _MODELS:
        raise InputError(
            f"{where}: expected the kind of a model, one of {', '.join(_MODELS)}; got {kind!r}"
            f"{nearest(kind, _MODELS)}"
        )
    module, name = _MODELS[kind]
    found: type[MomentModel] = getattr(importlib.import_module(module), name)
    return found
