"""vmr: video moment retrieval.

A video and a sentence go in, the moments that the sentence describes come out::

    import vmr

    retriever = vmr.load("granalign")
    results = retriever.retrieve("video.mp4", ["a man opens the fridge"])
    print(results[0])

Importing this module is cheap: torch, OpenCV and matplotlib are loaded when they are first needed.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from vmr.errors import (
    BackendError,
    CacheError,
    InputError,
    TrainingError,
    VideoError,
    VmrError,
    VmrWarning,
)
from vmr.moments import Moment

if TYPE_CHECKING:
    from vmr.data.annotations import Queries, read_queries, write_queries
    from vmr.data.dataset import MomentDataset, collate
    from vmr.data.packs import FeaturePack, load_pack
    from vmr.data.records import Query, Saliency
    from vmr.doctor import build_config
    from vmr.evaluation import (
        Evaluation,
        MomentMetric,
        Prediction,
        evaluate,
        read_predictions,
        write_predictions,
    )
    from vmr.models import load
    from vmr.models.afa_fsgd import A2FAF2SGD, A2FAF2SGDConfig
    from vmr.models.base import MomentModel
    from vmr.models.bm_detr import BMDETR
    from vmr.models.bm_detr_config import BMDETRConfig
    from vmr.models.granalign import GranAlign
    from vmr.models.granalign_config import GranAlignConfig
    from vmr.models.host import HostConfig, PluginHost
    from vmr.models.layers.a2fa import A2FA
    from vmr.models.layers.background import FrameMatcher
    from vmr.models.layers.f2sgd import F2SGD
    from vmr.models.moment_detr import MomentDETR, MomentDETRConfig
    from vmr.models.qd_detr import QDDETR, QDDETRConfig
    from vmr.models.retriever import Retriever
    from vmr.results import FrameScores, Result, Results

__version__ = "0.1.0"

__all__ = [
    "A2FA",
    "A2FAF2SGD",
    "BMDETR",
    "F2SGD",
    "QDDETR",
    "A2FAF2SGDConfig",
    "BMDETRConfig",
    "BackendError",
    "CacheError",
    "Evaluation",
    "FeaturePack",
    "FrameMatcher",
    "FrameScores",
    "GranAlign",
    "GranAlignConfig",
    "HostConfig",
    "InputError",
    "Moment",
    "MomentDETR",
    "MomentDETRConfig",
    "MomentDataset",
    "MomentMetric",
    "MomentModel",
    "PluginHost",
    "Prediction",
    "QDDETRConfig",
    "Queries",
    "Query",
    "Result",
    "Results",
    "Retriever",
    "Saliency",
    "TrainingError",
    "VideoError",
    "VmrError",
    "VmrWarning",
    "__version__",
    "build_config",
    "collate",
    "evaluate",
    "load",
    "load_pack",
    "read_predictions",
    "read_queries",
    "write_predictions",
    "write_queries",
]

_LAZY = {
    "A2FA": "vmr.models.layers.a2fa",
    "A2FAF2SGD": "vmr.models.afa_fsgd",
    "A2FAF2SGDConfig": "vmr.models.afa_fsgd",
    "BMDETR": "vmr.models.bm_detr",
    "BMDETRConfig": "vmr.models.bm_detr_config",
    "Evaluation": "vmr.evaluation",
    "F2SGD": "vmr.models.layers.f2sgd",
    "FeaturePack": "vmr.data.packs",
    "FrameMatcher": "vmr.models.layers.background",
    "FrameScores": "vmr.results",
    "GranAlign": "vmr.models.granalign",
    "GranAlignConfig": "vmr.models.granalign_config",
    "HostConfig": "vmr.models.host",
    "MomentDETR": "vmr.models.moment_detr",
    "MomentDETRConfig": "vmr.models.moment_detr",
    "MomentDataset": "vmr.data.dataset",
    "MomentMetric": "vmr.evaluation",
    "MomentModel": "vmr.models.base",
    "PluginHost": "vmr.models.host",
    "Prediction": "vmr.evaluation",
    "QDDETR": "vmr.models.qd_detr",
    "QDDETRConfig": "vmr.models.qd_detr",
    "Queries": "vmr.data.annotations",
    "Query": "vmr.data.records",
    "Result": "vmr.results",
    "Results": "vmr.results",
    "Retriever": "vmr.models.retriever",
    "Saliency": "vmr.data.records",
    "build_config": "vmr.doctor",
    "collate": "vmr.data.dataset",
    "evaluate": "vmr.evaluation",
    "load": "vmr.models",
    "load_pack": "vmr.data.packs",
    "read_predictions": "vmr.evaluation",
    "read_queries": "vmr.data.annotations",
    "write_predictions": "vmr.evaluation",
    "write_queries": "vmr.data.annotations",
}


_SUBMODULES = (
    "data",
    "evaluation",
    "exports",
    "models",
    "ops",
    "simulation",
    "training",
    "video",
    "viz",
)


def __getattr__(name: str) -> Any:
    if name in _SUBMODULES:
        return importlib.import_module(f"vmr.{name}")
    if name not in _LAZY:
        raise AttributeError(f"module 'vmr' has no attribute {name!r}")
    value = getattr(importlib.import_module(_LAZY[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
