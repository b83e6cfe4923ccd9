"""Ready choices of models for the training-free systems."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from vmr.errors import InputError
from vmr.settings import nearest


@dataclass(frozen=True, slots=True)
class Preset:
    """A system with its models.

    Attributes:
        system: Its name.
        about: What it is, in a line.
        options: Of the system's constructor.
    """

    system: str
    about: str
    options: Mapping[str, Any] = field(default_factory=dict)


PRESETS = {
    "granalign-paper": Preset(
        "granalign",
        "the paper's models: CLIP ViT-B/32, LLaMA-3-8B-Instruct, Qwen2.5-VL-7B-Instruct",
        {
            # Its main branch has pickled weights only; this is the hub's own conversion of them.
            "encoder": "transformers:openai/clip-vit-base-patch32,"
            "revision=c237dc49a33fc61debc9276459120b7eac67e7ef",
            "sentence_encoder": "transformers:sentence-transformers/all-MiniLM-L6-v2,"
            "revision=c9745ed1d9f207416be6d2e6f8de32d1f16199bf",
            "rewriter": "transformers:meta-llama/Meta-Llama-3-8B-Instruct,"
            "revision=8afb486c1db24fe5011ec46dfbe5b5dccdb575c2",
            "captioner": "transformers:Qwen/Qwen2.5-VL-7B-Instruct,"
            "revision=cc594898137f460bfe9f0759e9844b3ce807cfb5",
        },
    ),
}
"""By name. The paper does not say which SentenceTransformer it uses: that one is ours. Its m and lambda
are the defaults of :class:`vmr.GranAlignConfig`."""


def options_of(preset: str, system: str) -> dict[str, Any]:
    """What a preset sets of a system.

    Raises:
        InputError: There is none of that name, or it belongs to another system.
    """
    if preset not in PRESETS:
        raise InputError(
            f"preset: expected one of {', '.join(PRESETS)}; got {preset!r}{nearest(preset, PRESETS)}"
        )
    if PRESETS[preset].system != system:
        raise InputError(
            f"preset {preset!r}: belongs to {PRESETS[preset].system!r}, not to {system!r}"
        )
    return dict(PRESETS[preset].options)
