"""Model backends: encoders, sentence encoders, rewriters and captioners, chosen by a string.

``embedded`` are the small models of :mod:`vmr.backends.embedded` and :mod:`vmr.backends.smollm2`,
``recorded:FILE`` repeats a recording (:mod:`vmr.backends.recorded`), ``none`` leaves a rewriter out. An
object with the members of a protocol of :mod:`vmr.backends.base` is taken as it is.
"""

from __future__ import annotations

from typing import NoReturn

from vmr.backends.base import (
    Captioner,
    Encoder,
    Focus,
    Rewrite,
    Rewriter,
    SentenceEncoder,
    TokenEncoder,
)
from vmr.backends.focus import focus_of
from vmr.errors import InputError

__all__ = [
    "Captioner",
    "Encoder",
    "Focus",
    "Rewrite",
    "Rewriter",
    "SentenceEncoder",
    "TokenEncoder",
    "focus_of",
    "load_captioner",
    "load_encoder",
    "load_rewriter",
    "load_sentence_encoder",
]


def load_encoder(spec: str | Encoder) -> Encoder:
    """The image-text encoder that a string names.

    Args:
        spec: "embedded", or an encoder.

    Raises:
        InputError: The string names none, or the object is no encoder.
        BackendError: A package is not installed.
    """
    if isinstance(spec, Encoder):
        return spec
    if spec == "embedded":
        from vmr.backends import embedded

        return embedded.ConseEncoder(embedded.tagger(), embedded.label_space())
    _refuse("encoder", spec, "embedded")


def load_sentence_encoder(spec: str | SentenceEncoder) -> SentenceEncoder:
    """The sentence encoder that a string names.

    Args:
        spec: "embedded", or a sentence encoder.

    Raises:
        InputError: The string names none, or the object is no sentence encoder.
        BackendError: A package is not installed.
    """
    if isinstance(spec, SentenceEncoder):
        return spec
    if spec == "embedded":
        from vmr.backends import embedded

        return embedded.sentence_encoder()
    _refuse("sentence encoder", spec, "embedded")


def load_rewriter(spec: str | Rewriter) -> Rewriter | None:
    """The rewriter that a string names; None for "none".

    Args:
        spec: "embedded", "recorded:FILE", "none", or a rewriter.

    Raises:
        InputError: The string names none, the object is no rewriter, or the recording is not valid.
        BackendError: A package is not installed.
    """
    if isinstance(spec, Rewriter):
        return spec
    if spec == "none":
        return None
    if spec == "embedded":
        from vmr.backends.rewriting import LlmRewriter
        from vmr.backends.smollm2 import SmolLM2

        return LlmRewriter(SmolLM2())
    if (file := _recording(spec)) is not None:
        from vmr.backends.recorded import Recording

        return Recording(file)
    _refuse("rewriter", spec, "embedded, recorded:FILE, none")


def load_captioner(spec: str | Captioner) -> Captioner:
    """The captioner that a string names.

    Args:
        spec: "embedded", "recorded:FILE", or a captioner.

    Raises:
        InputError: The string names none, the object is no captioner, or the recording is not valid.
        BackendError: A package is not installed.
    """
    if isinstance(spec, Captioner):
        return spec
    if spec == "embedded":
        from vmr.backends import embedded

        return embedded.TagCaptioner(embedded.tagger(), embedded.label_space())
    if (file := _recording(spec)) is not None:
        from vmr.backends.recorded import Recording

        return Recording(file)
    _refuse("captioner", spec, "embedded, recorded:FILE")


def _recording(spec: object) -> str | None:
    """The FILE of "recorded:FILE"."""
    if isinstance(spec, str) and spec.startswith("recorded:") and len(spec) > len("recorded:"):
        return spec.removeprefix("recorded:")
    return None


def _refuse(part: str, spec: object, choices: str) -> NoReturn:
    came = repr(spec) if isinstance(spec, str) else type(spec).__name__
    members = "an object with the members of vmr.backends.base"
    raise InputError(f"{part}: expected {choices} or {members}, got {came}")
