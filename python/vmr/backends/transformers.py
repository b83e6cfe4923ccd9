"""Models of the transformers and sentence-transformers libraries: a folder, or an id on the hub.

``transformers:MODEL,option=value,...``; the options are those of the part that the model plays. The
libraries are imported by what needs them, the weights loaded when a model is first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from vmr.backends.encoders import ImageTextEncoder, SentenceTransformerEncoder
    from vmr.backends.generation import ChatModel
    from vmr.backends.spec import Spec
    from vmr.backends.vision import VisionLanguageModel


def encoder(spec: Spec) -> ImageTextEncoder:
    """CLIP, SigLIP or SigLIP2.

    Raises:
        InputError: An option is not right.
        BackendError: A package is missing, or the model is not there or another kind of model.
    """
    from vmr.backends.encoders import ImageTextEncoder

    return ImageTextEncoder(spec)


def sentence_encoder(spec: Spec) -> SentenceTransformerEncoder:
    """A SentenceTransformer; raises what :func:`encoder` raises."""
    from vmr.backends.encoders import SentenceTransformerEncoder

    return SentenceTransformerEncoder(spec)


def text_generator(spec: Spec) -> ChatModel:
    """A causal language model with a chat template; raises what :func:`encoder` raises."""
    from vmr.backends.generation import ChatModel

    return ChatModel(spec)


def vision_model(spec: Spec) -> VisionLanguageModel:
    """A vision-language model or a plain captioner; raises what :func:`encoder` raises."""
    from vmr.backends.vision import VisionLanguageModel

    return VisionLanguageModel(spec)
