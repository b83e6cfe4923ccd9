"""Models of the transformers library that put an image into words."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from vmr.backends.captioning import whole_sentences
from vmr.backends.transformers.generation import greedy
from vmr.backends.transformers.loading import AtLeastOne, Options, Part, batches, here

if TYPE_CHECKING:
    from PIL.Image import Image

_CAPTIONERS = ("blip", "blip-2", "git", "vision-encoder-decoder")
"""Models that describe an image without being asked."""


class VisionOptions(Options, frozen=True, kw_only=True):
    """Options of a vision-language model.

    Attributes:
        batch_size: Pictures at once.
        max_tokens: Length at which a caption is cut off.
    """

    batch_size: AtLeastOne = 8
    max_tokens: AtLeastOne = 96


@dataclass(frozen=True, slots=True)
class _Vision:
    model: Any
    processor: Any
    """What makes a chat's inputs; of a plain captioner, its image processor."""
    tokenizer: Any
    settings: Any

    @property
    def ends(self) -> set[int | None]:
        """What an answer that is whole ends with. BLIP ends with the separator."""
        settings, words = self.settings, self.tokenizer
        return {*(settings.eos_token_id or ()), settings.pad_token_id, words.sep_token_id}


class VisionLanguageModel(Part[VisionOptions, _Vision]):
    """An image-text-to-text model with a chat template, or a plain captioner; decoding is greedy.

    Of the checkpoint's own generation settings those remain that are not about sampling.
    """

    part = "captioner"
    expected = (
        "a vision-language model with a chat template (Qwen2.5-VL, LLaVA), or a plain captioner (BLIP, "
        "BLIP-2, GIT)"
    )
    options_type = VisionOptions

    @property
    def takes_instructions(self) -> bool:
        """False for a plain captioner."""
        return self.checkpoint.has_chat_template

    def describe(self, jpegs: Sequence[bytes], instruction: str) -> list[str]:
        """What it says about each picture; of an answer cut off the whole sentences."""
        answers: list[str] = []
        with self._using() as parts:
            for batch in batches(len(jpegs), self.options.batch_size):
                pictures = [_picture(jpeg) for jpeg in jpegs[batch]]
                if self.takes_instructions:
                    rows = self._answer(parts, pictures, instruction)
                else:
                    rows = self._caption(parts, pictures)
                texts = parts.tokenizer.batch_decode(rows, skip_special_tokens=True)
                for text, row in zip(texts, rows, strict=True):
                    whole = not row or row[-1] in parts.ends
                    answers.append(text.strip() if whole else whole_sentences(text.strip()))
        return answers

    def _answer(
        self, parts: _Vision, pictures: Sequence[Image], instruction: str
    ) -> list[list[int]]:
        chats = [
            [
                {
                    "role": "user",
                    "content": [
                        {"type": "image", "image": picture},
                        {"type": "text", "text": instruction},
                    ],
                }
            ]
            for picture in pictures
        ]
        inputs = parts.processor.apply_chat_template(
            chats,
            add_generation_prompt=True,
            tokenize=True,
            return_dict=True,
            return_tensors="pt",
            processor_kwargs={"padding": True, "padding_side": "left"},
        ).to(self.device, parts.model.dtype)
        rows = parts.model.generate(**inputs, generation_config=parts.settings)
        new: list[list[int]] = rows[:, inputs["input_ids"].shape[1] :].tolist()
        return new

    def _caption(self, parts: _Vision, pictures: Sequence[Image]) -> list[list[int]]:
        inputs = parts.processor(list(pictures), return_tensors="pt")
        inputs = inputs.to(self.device, parts.model.dtype)
        rows = parts.model.generate(
            pixel_values=inputs["pixel_values"], generation_config=parts.settings
        )
        # What stands for the image in front of the words is no special token of every tokenizer.
        image = getattr(parts.model.config, "image_token_id", None)
        return [[token for token in row if token != image] for row in rows.tolist()]

    def _said(self) -> str:
        return f"{self.dtype}, whole sentences in {self.options.max_tokens} tokens"

    def _check(self) -> None:
        from transformers.models.auto import modeling_auto

        names = modeling_auto.MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES
        self._check_kind(list(names))
        self._check_files(images=True)
        kind = self.checkpoint.settings("config.json")["model_type"]
        if not self.takes_instructions and kind not in _CAPTIONERS:
            self._refuse(f"is a {names[kind]} without a chat template")

    def _load(self) -> _Vision:
        from transformers import AutoImageProcessor, AutoModelForImageTextToText, AutoTokenizer

        folder = self.checkpoint.folder
        model = self._pretrained(AutoModelForImageTextToText)
        tokenizer = AutoTokenizer.from_pretrained(folder, **here())
        if tokenizer.pad_token_id is None:
            tokenizer.pad_token = tokenizer.eos_token
        images = AutoImageProcessor.from_pretrained(folder, backend="pil", **here())
        settings = greedy(model, tokenizer, self.options.max_tokens)
        if not self.takes_instructions:
            return _Vision(model, images, tokenizer, settings)
        return _Vision(model, _processor(self, model, images, tokenizer), tokenizer, settings)


def _processor(part: VisionLanguageModel, model: Any, images: Any, tokenizer: Any) -> Any:
    """The model's processor, made without what is for videos.

    AutoProcessor loads that too, and it needs torchvision, which vmr does not.
    """
    from transformers.models.auto import processing_auto

    files = ("processor_config.json", "preprocessor_config.json", "tokenizer_config.json")
    named = [part.checkpoint.settings(file).get("processor_class") for file in files]
    kinds = [processing_auto.processor_class_from_name(name) for name in named if name]
    usual = processing_auto.PROCESSOR_MAPPING[type(model.config)]
    kind: Any = next((kind for kind in kinds if kind is not None), usual)
    mine: Any = type(kind.__name__, (_WithoutVideos, kind), {})
    given = {"image_processor": images, "tokenizer": tokenizer}
    settings, _ = kind.get_processor_dict(part.checkpoint.folder, **here())
    names = kind.get_attributes()
    made = mine.from_args_and_dict([given.get(name) for name in names], settings)
    made.chat_template = made.chat_template or tokenizer.chat_template
    return made


class _WithoutVideos:
    """Makes a processor take None for what it has no use for here."""

    def check_argument_for_proper_class(self, name: str, argument: Any) -> Any:
        check: Any = super()
        return None if argument is None else check.check_argument_for_proper_class(name, argument)


def _picture(jpeg: bytes) -> Image:
    from PIL import Image

    return Image.open(io.BytesIO(jpeg)).convert("RGB")
