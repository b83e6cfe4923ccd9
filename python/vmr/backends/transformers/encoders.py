"""Encoders of the transformers and sentence-transformers libraries."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from vmr.backends.transformers import checkpoints
from vmr.backends.transformers.loading import Options, Part, batches, here

if TYPE_CHECKING:
    from vmr.video import Frames


class EncoderOptions(Options, frozen=True, kw_only=True):
    """Options of an image-text encoder; ``batch_size`` counts frames or texts."""


@dataclass(frozen=True, slots=True)
class _ImageText:
    model: Any
    images: Any
    tokenizer: Any
    padding: bool | str
    tokens: int

    def words(self, texts: list[str], **options: Any) -> Any:
        """Texts as tokens, cut at the model's length."""
        return self.tokenizer(texts, truncation=True, max_length=self.tokens, **options)


class ImageTextEncoder(Part[EncoderOptions, _ImageText]):
    """CLIP or SigLIP: frames and texts in one space.

    A frame is what the checkpoint's own image processor makes of it. A text is cut at the model's
    length (CLIP: 77 tokens).
    """

    part = "encoder"
    expected = "CLIP, SigLIP or SigLIP2"
    options_type = EncoderOptions

    @property
    def short_side(self) -> int:
        """Pixels of the short side of the frames that the image processor works from."""
        return self._short_side

    def encode_frames(self, frames: Frames) -> NDArray[np.float32]:
        """Frames to L2-normalised vectors [n, d]."""
        pixels = frames.pixels

        def features(parts: _ImageText, batch: slice) -> Any:
            seen = parts.images(
                list(pixels[batch]), return_tensors="pt", input_data_format="channels_last"
            )
            return parts.model.get_image_features(**seen.to(self.device, parts.model.dtype))

        return self._vectors(len(pixels), range(len(pixels)), features)

    def encode_texts(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Texts to L2-normalised vectors [n, d]; [0, d] for none."""
        given = list(texts) or [""]
        order = _by_length(given)

        def features(parts: _ImageText, batch: slice) -> Any:
            return self._read(parts, [given[place] for place in order[batch]])

        return self._vectors(len(given), order, features)[: len(texts)]

    def encode_tokens(self, texts: Sequence[str]) -> list[NDArray[np.float32]]:
        """The text tower's last hidden states of each text [tokens, h], not normalised.

        They are what it makes of the tokens before its projection: not of the vectors' space, and of a
        width of their own.
        """
        states: list[NDArray[np.float32]] = [np.empty(0, np.float32)] * len(texts)
        order = _by_length(texts)
        with self._using() as parts:
            for batch in batches(len(texts), self.options.batch_size):
                given = [texts[place] for place in order[batch]]
                rows = self._read(parts, given).last_hidden_state.float().cpu().numpy()
                counts = map(len, parts.words(given).input_ids)
                left = parts.tokenizer.padding_side == "left"
                for place, row, count in zip(order[batch], rows, counts, strict=True):
                    states[place] = (row[-count:] if left else row[:count]).copy()
        return states

    def _read(self, parts: _ImageText, texts: list[str]) -> Any:
        tokens = parts.words(texts, padding=parts.padding, return_tensors="pt")
        return parts.model.get_text_features(**tokens.to(self.device))

    def _vectors(
        self, count: int, order: Sequence[int], features: Callable[[_ImageText, slice], Any]
    ) -> NDArray[np.float32]:
        """Unit vectors [count, d]: those of a batch belong at the places ``order[batch]``."""
        with self._using() as parts:
            rows = [
                functional.normalize(features(parts, batch).pooler_output.float(), dim=1)
                for batch in batches(count, self.options.batch_size)
            ]
            made = torch.cat(rows).cpu().numpy()
        vectors = np.empty_like(made)
        vectors[np.asarray(order)] = made
        return vectors

    def _check(self) -> None:
        self._check_kind(("clip", "siglip", "siglip2"))
        self._check_files(images=True)
        self._short_side = _short_side(self.checkpoint.image_settings)

    def _load(self) -> _ImageText:
        from transformers import AutoImageProcessor, AutoModel, AutoTokenizer

        folder = self.checkpoint.folder
        model = self._pretrained(AutoModel)
        tokenizer = AutoTokenizer.from_pretrained(folder, **here())
        clip = model.config.model_type == "clip"
        return _ImageText(
            model,
            AutoImageProcessor.from_pretrained(folder, backend="pil", **here()),
            tokenizer,
            # SigLIP was trained on texts padded to its length, and reads the padding.
            True if clip else "max_length",
            min(tokenizer.model_max_length, model.config.text_config.max_position_embeddings),
        )


def _by_length(texts: Sequence[str]) -> list[int]:
    """Places of texts, the short ones first, so that a batch has little padding."""
    return sorted(range(len(texts)), key=lambda place: len(texts[place]))


def _short_side(settings: dict[str, Any]) -> int:
    """The short side that an image processor scales to."""
    size = settings.get("size")
    if isinstance(size, dict):
        size = size.get("shortest_edge") or min(
            (side for side in (size.get("height"), size.get("width")) if side), default=None
        )
    if size is None and "max_num_patches" in settings:
        size = math.isqrt(int(settings["max_num_patches"])) * int(settings.get("patch_size", 16))
    return int(size or 224)


class SentenceOptions(Options, frozen=True, kw_only=True):
    """Options of a sentence encoder; ``batch_size`` counts sentences."""


class SentenceTransformerEncoder(Part[SentenceOptions, Any]):
    """A model of the sentence-transformers library."""

    part = "sentence encoder"
    expected = "a SentenceTransformer (a folder with modules.json)"
    options_type = SentenceOptions
    packages = ("transformers", "sentence_transformers")

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Sentences to L2-normalised vectors [n, d]; [0, d] for no sentence."""
        with self._using() as model:
            vectors = model.encode(
                list(texts) or [""],
                batch_size=self.options.batch_size,
                show_progress_bar=False,
                convert_to_numpy=False,
                convert_to_tensor=True,
            )
            unit = functional.normalize(vectors.float(), dim=1).cpu().numpy()
        return np.asarray(unit[: len(texts)], dtype=np.float32)

    def encode_tokens(self, texts: Sequence[str]) -> list[NDArray[np.float32]]:
        """The last hidden states of each sentence [tokens, d], not normalised."""
        if not texts:
            return []
        with self._using() as model:
            states = model.encode(
                list(texts),
                batch_size=self.options.batch_size,
                show_progress_bar=False,
                output_value="token_embeddings",
            )
            return [state.float().cpu().numpy() for state in states]

    def _check(self) -> None:
        found = checkpoints.modules(self.checkpoint)
        if not any(module.has_weights for module in found):
            self._refuse("has no modules.json" if not found else "has no module with weights")
        for module in found:
            if not module.kind.startswith("sentence_transformers."):
                self._refuse(
                    f"has a module {module.kind} with code of its own, which vmr never runs"
                )
        self._modules = found

    def _weight_folders(self) -> Sequence[str]:
        return [module.folder for module in self._modules if module.has_weights]

    def _load(self) -> Any:
        from sentence_transformers import SentenceTransformer

        model = SentenceTransformer(
            str(self.checkpoint.folder),
            device=str(self.device),
            model_kwargs={"dtype": getattr(torch, self.dtype), "use_safetensors": True},
            **here(),
        )
        return model.eval().requires_grad_(False)
