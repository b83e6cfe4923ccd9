"""Ready choices of models for GranAlign."""

from __future__ import annotations

from collections.abc import Mapping

from vmr.errors import InputError
from vmr.settings import nearest

PRESETS: Mapping[str, Mapping[str, str]] = {
    "granalign-paper": {
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
}
"""Options of :class:`vmr.GranAlign`, by name. The paper does not say which SentenceTransformer it uses:
that one is ours. Its m and lambda are the defaults of :class:`vmr.GranAlignConfig`."""


def options_of(preset: str) -> dict[str, str]:
    """What a preset sets.

    Raises:
        InputError: There is none of that name.
    """
    if preset not in PRESETS:
        raise InputError(
            f"preset: expected one of {', '.join(PRESETS)}; got {preset!r}{nearest(preset, PRESETS)}"
        )
    return dict(PRESETS[preset])
