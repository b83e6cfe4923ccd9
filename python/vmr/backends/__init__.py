"""Model backends: encoders, sentence encoders, rewriters and captioners, chosen by a string.

``embedded`` are the small models of :mod:`vmr.backends.embedded` and :mod:`vmr.backends.smollm2`;
``transformers:MODEL`` takes a folder or an id on the hub (:mod:`vmr.backends.transformers`); a URL is an
OpenAI-compatible endpoint (:mod:`vmr.backends.http`); ``recorded:FILE`` repeats a recording
(:mod:`vmr.backends.recorded`); ``none`` leaves a rewriter out. An object with the members of a protocol
of :mod:`vmr.backends.base` is taken as it is.
"""

from __future__ import annotations

from typing import NoReturn

from vmr.backends.base import (
    Captioner,
    Concurrent,
    Encoder,
    Focus,
    Reopenable,
    Rewrite,
    Rewriter,
    SentenceEncoder,
    TokenEncoder,
    calls_at_once,
)
from vmr.backends.focus import focus_of
from vmr.backends.spec import Spec, parse
from vmr.errors import InputError

__all__ = [
    "Captioner",
    "Concurrent",
    "Encoder",
    "Focus",
    "Reopenable",
    "Rewrite",
    "Rewriter",
    "SentenceEncoder",
    "TokenEncoder",
    "calls_at_once",
    "focus_of",
    "load_captioner",
    "load_encoder",
    "load_rewriter",
    "load_sentence_encoder",
]


def load_encoder(spec: str | Encoder) -> Encoder:
    """The image-text encoder that a string names.

    Args:
        spec: "embedded", "transformers:MODEL" (CLIP or SigLIP), or an encoder.

    Raises:
        InputError: The string names none, or the object is no encoder.
        BackendError: A package or the model is not there.
    """
    if isinstance(spec, Encoder):
        return spec
    named = _parsed(spec)
    if named.text == "embedded":
        from vmr.backends import embedded

        return embedded.ConseEncoder(embedded.tagger(), embedded.label_space())
    if named.kind == "transformers" and named.target:
        from vmr.backends.transformers.encoders import ImageTextEncoder

        return ImageTextEncoder(named)
    _refuse("encoder", spec, "embedded, transformers:MODEL")


def load_sentence_encoder(spec: str | SentenceEncoder) -> SentenceEncoder:
    """The sentence encoder that a string names.

    Args:
        spec: "embedded", "transformers:MODEL" (a SentenceTransformer), or a sentence encoder.

    Raises:
        InputError: The string names none, or the object is no sentence encoder.
        BackendError: A package or the model is not there.
    """
    if isinstance(spec, SentenceEncoder):
        return spec
    named = _parsed(spec)
    if named.text == "embedded":
        from vmr.backends import embedded

        return embedded.sentence_encoder()
    if named.kind == "transformers" and named.target:
        from vmr.backends.transformers.encoders import SentenceTransformerEncoder

        return SentenceTransformerEncoder(named)
    _refuse("sentence encoder", spec, "embedded, transformers:MODEL")


def load_rewriter(spec: str | Rewriter) -> Rewriter | None:
    """The rewriter that a string names; None for "none".

    Args:
        spec: "embedded", "transformers:MODEL" (a causal language model), "http://...", "recorded:FILE",
            "none", or a rewriter.

    Raises:
        InputError: The string names none, the object is no rewriter, or the recording is not valid.
        BackendError: A package, the model or the endpoint is not there.
    """
    if isinstance(spec, Rewriter):
        return spec
    named = _parsed(spec)
    if named.text == "none":
        return None
    if named.text == "embedded":
        from vmr.backends.rewriting import LlmRewriter
        from vmr.backends.smollm2 import SmolLM2

        return LlmRewriter(SmolLM2())
    if named.kind == "transformers" and named.target:
        from vmr.backends.rewriting import LlmRewriter
        from vmr.backends.transformers.generation import ChatModel

        return LlmRewriter(ChatModel(named))
    if named.kind == "http":
        from vmr.backends.http.endpoint import Endpoint
        from vmr.backends.rewriting import LlmRewriter

        return LlmRewriter(Endpoint.from_spec(named))
    if named.kind == "recorded" and named.target:
        from vmr.backends.recorded import Recording

        return Recording(named.target)
    _refuse("rewriter", spec, "embedded, transformers:MODEL, http://..., recorded:FILE, none")


def load_captioner(spec: str | Captioner) -> Captioner:
    """The captioner that a string names.

    Args:
        spec: "embedded", "transformers:MODEL" (a vision-language model), "http://...",
            "recorded:FILE", or a captioner.

    Raises:
        InputError: The string names none, the object is no captioner, or the recording is not valid.
        BackendError: A package, the model or the endpoint is not there, or it cannot see images.
    """
    if isinstance(spec, Captioner):
        return spec
    named = _parsed(spec)
    if named.text == "embedded":
        from vmr.backends import embedded

        return embedded.TagCaptioner(embedded.tagger(), embedded.label_space())
    if named.kind == "transformers" and named.target:
        from vmr.backends.captioning import VlmCaptioner
        from vmr.backends.transformers.vision import VisionLanguageModel

        return VlmCaptioner(VisionLanguageModel(named))
    if named.kind == "http":
        from vmr.backends.captioning import VlmCaptioner
        from vmr.backends.http.endpoint import Endpoint

        return VlmCaptioner(Endpoint.from_spec(named))
    if named.kind == "recorded" and named.target:
        from vmr.backends.recorded import Recording

        return Recording(named.target)
    _refuse("captioner", spec, "embedded, transformers:MODEL, http://..., recorded:FILE")


def _parsed(spec: object) -> Spec:
    if isinstance(spec, str):
        return parse(spec)
    return Spec("", type(spec).__name__, "", {})


def _refuse(part: str, spec: object, choices: str) -> NoReturn:
    came = repr(spec) if isinstance(spec, str) else type(spec).__name__
    members = "an object with the members of vmr.backends.base"
    raise InputError(f"{part}: expected {choices} or {members}, got {came}")
