"""Language models of the transformers library that go on with a chat."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from vmr.backends.rewriting import Message, Messages
from vmr.backends.transformers.loading import AtLeastOne, Options, Part, batches, here


class GeneratorOptions(Options, frozen=True, kw_only=True):
    """Options of a language model.

    Attributes:
        batch_size: Chats at once.
        max_tokens: Length at which an answer counts as cut off.
    """

    batch_size: AtLeastOne = 8
    max_tokens: AtLeastOne = 48


@dataclass(frozen=True, slots=True)
class _Chat:
    model: Any
    tokenizer: Any
    settings: Any
    room: int  # tokens of a chat that leave enough for an answer


class ChatModel(Part[GeneratorOptions, _Chat]):
    """A causal language model with a chat template; decoding is greedy.

    Of the checkpoint's own generation settings those remain that are not about sampling.
    """

    part = "rewriter"
    expected = "a causal language model with a chat template"
    options_type = GeneratorOptions
    packages = ("transformers",)

    def generate(self, prompts: Sequence[Messages]) -> list[str]:
        """The answer to each chat; an empty string where it was cut off or the chat is too long."""
        answers = [""] * len(prompts)
        with self._using() as chat:
            tokens = [
                chat.tokenizer(_written(chat.tokenizer, prompt), add_special_tokens=False)[
                    "input_ids"
                ]
                for prompt in prompts
            ]
            # By length, so that a batch has little padding.
            order = [place for place in range(len(tokens)) if len(tokens[place]) <= chat.room]
            order.sort(key=lambda place: len(tokens[place]))
            for batch in batches(len(order), self.options.batch_size):
                places = order[batch]
                inputs = chat.tokenizer.pad(
                    {"input_ids": [tokens[place] for place in places]},
                    padding_side="left",
                    return_tensors="pt",
                ).to(self.device)
                rows = chat.model.generate(**inputs, generation_config=chat.settings)
                new = rows[:, inputs["input_ids"].shape[1] :]
                for place, row in zip(places, finished(new, chat.settings), strict=True):
                    if row is not None:
                        answers[place] = chat.tokenizer.decode(
                            row, skip_special_tokens=True
                        ).strip()
        return answers

    def _said(self) -> str:
        return f"{self.dtype}, {self.options.max_tokens} tokens"

    def _check(self) -> None:
        from transformers.models.auto import modeling_auto

        self._check_kind(list(modeling_auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES))
        self._check_files(images=False)
        if not self.checkpoint.has_chat_template:
            self._refuse("has no chat template: it goes on with texts, and answers no instructions")

    def _load(self) -> _Chat:
        from transformers import AutoModelForCausalLM, AutoTokenizer

        model = self._pretrained(AutoModelForCausalLM)
        tokenizer = AutoTokenizer.from_pretrained(self.checkpoint.folder, **here())
        if tokenizer.pad_token_id is None:
            tokenizer.pad_token = tokenizer.eos_token
        settings = greedy(model, tokenizer, self.options.max_tokens)
        config = model.config.get_text_config()
        # A model without a table of positions (ALiBi) has no such number.
        room = getattr(config, "max_position_embeddings", tokenizer.model_max_length)
        return _Chat(model, tokenizer, settings, room - self.options.max_tokens)


def _written(tokenizer: Any, messages: Messages) -> str:
    """The chat as the model's template writes it, up to where the answer begins."""
    from jinja2 import TemplateError

    def write(chat: Sequence[Message]) -> str:
        text = tokenizer.apply_chat_template(list(chat), tokenize=False, add_generation_prompt=True)
        return str(text)

    try:
        return write(messages)
    except TemplateError:
        folded = _without_system(messages)
        if folded == list(messages):
            raise
        return write(folded)


def _without_system(messages: Messages) -> list[Message]:
    """The chat with the system's text at the head of the first user's turn (Gemma, Mistral)."""
    system = [message["content"] for message in messages if message["role"] == "system"]
    turns = [message for message in messages if message["role"] != "system"]
    if not system or not turns:
        return turns
    first: Message = {"role": "user", "content": "\n\n".join([*system, turns[0]["content"]])}
    return [first, *turns[1:]]


def greedy(model: Any, tokenizer: Any, max_tokens: int) -> Any:
    """A model's generation settings without sampling and beams."""
    settings = copy.deepcopy(model.generation_config)
    ends = settings.eos_token_id
    ends = ends if isinstance(ends, list) else [ends]
    # The tokenizer's end may be that of a turn where the model's is that of a text.
    ends = dict.fromkeys(end for end in (*ends, tokenizer.eos_token_id) if end is not None)
    padding = tokenizer.pad_token_id
    settings.update(
        do_sample=False,
        num_beams=1,
        temperature=None,
        top_k=None,
        top_p=None,
        min_p=None,
        typical_p=None,
        max_length=None,
        max_new_tokens=max_tokens,
        eos_token_id=list(ends) or None,
        pad_token_id=padding if padding is not None else settings.pad_token_id,
    )
    return settings


def finished(rows: Tensor, settings: Any) -> list[list[int] | None]:
    """The new tokens of each answer before its end; None for one that was cut off."""
    ends = set(settings.eos_token_id or [])
    found: list[list[int] | None] = []
    for row in rows.tolist():
        end = next((place for place, token in enumerate(row) if token in ends), None)
        found.append(None if end is None else row[:end])
    return found
