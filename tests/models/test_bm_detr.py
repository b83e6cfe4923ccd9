"""BM-DETR: the official numbers, what negatives and copies do, every switch, and that it learns."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

import vmr
from tests.models import bm_detr_case, detr_case
from tests.models.bm_detr_case import OFFICIAL, PAPER, batch
from tests.models.detr_case import item
from tests.models.test_moment_detr import ODD, told
from vmr.data.dataset import Batch, collate
from vmr.errors import InputError
from vmr.models.bm_detr import BMDETR, BMDETROutput
from vmr.models.bm_detr_config import BMDETRConfig

GOLDEN = Path(__file__).parents[1] / "golden" / "bm_detr.npz"
TERMS = {
    "span": "span",
    "giou": "giou",
    "label": "label",
    "class": "class",
    "saliency": "margin",
    "prob_guidance": "probability",
    "contrastive_align": "semantic",
}
"""The official terms, and vmr's."""


def drawn(config: BMDETRConfig, **changes: Any) -> BMDETR:
    """A model with weights that depend on their names alone."""
    model = BMDETR(msgspec.structs.replace(config, **changes))
    detr_case.draw_weights(model)
    return model


def with_negatives(of: Batch) -> Batch:
    tokens, lengths = bm_detr_case.negatives()
    object.__setattr__(of, "negative_text", tokens[: len(of)])
    object.__setattr__(of, "negative_lengths", lengths[: len(of)])
    return of


def loss_of(model: BMDETR, of: Batch) -> Any:
    return model.loss(model(**model.inputs(of)), of)


def gradients(model: BMDETR) -> Tensor:
    grads = (torch.zeros_like(p) if p.grad is None else p.grad for p in model.parameters())
    return torch.cat([grad.flatten() for grad in grads])


# ---- the official numbers ---------------------------------------------------------------------------


@pytest.fixture(scope="module")
def golden() -> dict[str, Tensor]:
    with np.load(GOLDEN) as file:
        numbers = (name for name in file.files if "." in name)
        return {name: torch.from_numpy(file[name]) for name in numbers}


def official_pass(model: BMDETR, of: Batch, name: str) -> BMDETROutput:
    """Without, or with, negatives and copies; what is drawn is what the golden numbers had."""
    inputs = model.inputs(of)
    inputs["pairs"] = bm_detr_case.PAIRS
    if name == "all":
        inputs = model.inputs(with_negatives(of))
        inputs["shift"] = bm_detr_case.shift(of)
        inputs["pairs"] = torch.cat((bm_detr_case.PAIRS, bm_detr_case.SHIFTED_PAIRS))
    outputs: BMDETROutput = model(**inputs)
    return outputs


@pytest.mark.parametrize("name", ["plain", "all"])
@pytest.mark.parametrize("training", [False, True])
def test_outputs_are_the_official_ones(
    golden: dict[str, Tensor], name: str, training: bool
) -> None:
    of = batch()
    model = drawn(OFFICIAL, shifting="published" if name == "all" else "none").train(training)
    outputs = official_pass(model, of, name)

    def close(found: Tensor, key: str) -> None:
        torch.testing.assert_close(found, golden[f"{name}.{key}"], atol=1e-5, rtol=0)

    close(outputs.spans[-1, :3], "spans")
    close(outputs.logits[-1, :3], "logits")
    assert outputs.joint is not None
    close(outputs.joint[:3], "joint")
    videos, sentences = model.pooled(outputs, of)
    close(F.normalize(videos[:3], dim=-1), "videos")
    close(F.normalize(sentences[:3], dim=-1), "sentences")
    for row, length in enumerate(of.video_lengths.tolist()):
        expected = golden[f"{name}.saliency"][row, :length]
        torch.testing.assert_close(outputs.saliency[row, :length], expected, atol=1e-5, rtol=0)
    if name == "all":
        close(outputs.spans[-1, 3:], "shifted spans")


@pytest.mark.parametrize("name", ["plain", "all"])
def test_losses_and_gradients_are_the_official_ones(golden: dict[str, Tensor], name: str) -> None:
    of = batch()
    model = drawn(OFFICIAL, shifting="published" if name == "all" else "none")
    loss = model.loss(official_pass(model, of, name), of)
    weights = model.loss_weights()
    for theirs, ours in TERMS.items():
        expected = golden[f"{name}.term.{theirs}"]
        found = weights[ours] * loss.terms[ours]
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
    assert loss.terms.keys() == set(TERMS.values())
    torch.testing.assert_close(loss.total, golden[f"{name}.total"], atol=1e-5, rtol=1e-5)
    loss.total.backward()
    torch.testing.assert_close(gradients(model), golden[f"{name}.gradients"], atol=2e-5, rtol=1e-4)


# ---- negatives and copies ---------------------------------------------------------------------------


def answers(model: BMDETR, of: Batch) -> BMDETROutput:
    with torch.no_grad():
        outputs: BMDETROutput = model.eval()(**model.inputs(of))
    return outputs


def test_a_negative_query_lowers_what_it_matches() -> None:
    model = drawn(PAPER)
    without, having = answers(model, batch()), answers(model, with_negatives(batch()))
    assert without.joint is not None
    assert having.joint is not None
    assert having.positive is not None
    torch.testing.assert_close(having.positive, without.joint)
    rows = torch.arange(12) < batch().video_lengths[:, None]
    assert bool((having.joint < having.positive)[rows].all())
    assert bool((having.joint == 0)[~rows].all())
    # By the paper the decoder reads the attended frames; by the code it does not.
    assert not torch.allclose(having.spans, without.spans, atol=1e-4)
    code = drawn(OFFICIAL)
    spans = [answers(code, of).spans for of in (batch(), with_negatives(batch()))]
    torch.testing.assert_close(*spans)


def test_the_negative_pass_is_a_pass_of_its_own() -> None:
    """What sharing saves changes nothing: P(f | Q-) is what the sentence would have as its own."""
    model = drawn(PAPER)
    of = with_negatives(batch())
    shared = answers(model, of)
    assert of.negative_text is not None
    inputs = model.inputs(of)
    inputs |= {"text": of.negative_text, "text_lengths": of.negative_lengths}
    inputs |= {"negative_text": None, "negative_lengths": None}
    with torch.no_grad():
        alone = model(**inputs)
    assert shared.positive is not None
    torch.testing.assert_close(shared.joint, shared.positive * (1 - alone.joint))


def test_copies_are_passes_of_their_own() -> None:
    """A batch with copies has the mean of the losses that queries and copies have alone."""
    model = drawn(PAPER, semantic_against="all", auxiliary=True, still_columns=2)
    of = with_negatives(batch())
    torch.manual_seed(1)
    inputs = model.inputs(of)
    shift = inputs["shift"]
    outputs = model(**inputs)
    both = model.loss(outputs, of)
    assert outputs.spans.shape == (2, 6, 4, 2)
    copies = collate(bm_detr_case.items())
    order = shift.order[..., None].expand_as(of.video)
    moved = of.video.gather(1, order)
    moved[..., -2:] = of.video[..., -2:]
    object.__setattr__(copies, "video", moved)
    seconds = (of.video_lengths * of.row_seconds)[:, None]
    object.__setattr__(copies, "windows", (shift.spans * seconds)[:, None])
    alone = drawn(PAPER, semantic_against="all", auxiliary=True, shifting="none")
    parts = [loss_of(alone, of), loss_of(alone, with_negatives(copies))]
    for name, term in both.terms.items():
        expected = (parts[0].terms[name] + parts[1].terms[name]) / 2
        torch.testing.assert_close(term, expected, atol=1e-5, rtol=1e-4)


def test_an_answer_draws_nothing() -> None:
    model = drawn(OFFICIAL).eval()
    state = torch.get_rng_state()
    assert not {"shift", "pairs"} & model.inputs(batch()).keys()
    assert torch.equal(torch.get_rng_state(), state)
    assert {"shift", "pairs"} <= model.train().inputs(batch()).keys()


def test_the_matcher_learns_from_spans_by_the_paper_alone() -> None:
    for config, learns in ((PAPER, True), (OFFICIAL, False)):
        model = drawn(config)
        outputs = model(**model.inputs(with_negatives(batch())))
        outputs.spans.sum().backward()
        gradient = model.matcher.hidden.weight.grad
        assert (gradient is not None and bool(gradient.abs().sum() > 0)) == learns


# ---- padding, parts, precision ----------------------------------------------------------------------


@pytest.mark.parametrize("value", [torch.nan, torch.inf, 3.0])
def test_padding_changes_nothing(value: float) -> None:
    model = drawn(PAPER, margin_pairs="all")

    def outcome(of: Batch) -> tuple[Any, Tensor, BMDETROutput]:
        torch.manual_seed(0)
        model.train().zero_grad()
        loss = loss_of(model, of)
        loss.total.backward()
        return loss, gradients(model), answers(model, of)

    of = with_negatives(batch())
    expected = outcome(of)
    padded = with_negatives(batch())
    for name, lengths in (
        ("video", of.video_lengths),
        ("text", of.text_lengths),
        ("negative_text", of.negative_lengths),
        ("windows", of.window_counts),
    ):
        longer = F.pad(getattr(of, name), (0, 0, 0, 2))
        assert lengths is not None
        for row, length in enumerate(lengths.tolist()):
            longer[row, length:] = value
        object.__setattr__(padded, name, longer)
    object.__setattr__(padded, "saliency", F.pad(of.saliency, (0, 2)))
    found = outcome(padded)
    torch.testing.assert_close(found[0], expected[0], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(found[1], expected[1], atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(found[2].spans, expected[2].spans, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(found[2].saliency[:, :12], expected[2].saliency)


def test_official_padding_changes_answers() -> None:
    """The published softmax goes over padding: what a query gets depends on its batch."""
    for official in (True, False):
        model = drawn(OFFICIAL, official_padding=official)
        alone, among = collate(bm_detr_case.items()[1:2]), batch()
        one, several = answers(model, alone).saliency[0], answers(model, among).saliency[1, :6]
        assert torch.allclose(one, several, atol=1e-5) != official


@pytest.mark.parametrize("name", ODD)
def test_odd_queries_have_a_finite_loss(name: str) -> None:
    for config in (PAPER, OFFICIAL):
        model = drawn(config)
        of = collate([ODD[name]])
        loss = loss_of(model, of)
        loss.total.backward()
        # 100 of them is the accuracy term's: no sum is divided by a count that is not its own.
        assert loss.total < 200
        assert gradients(model).isfinite().all()
        assert len(model.decode(model.eval()(**model.inputs(of)), of)) == 1


def test_parts_of_a_batch_add_up() -> None:
    items = [*bm_detr_case.items(), *ODD.values()]
    model = drawn(PAPER, semantic_weight=0.0, shifting="none")
    whole = collate(items)
    counts = model.loss_counts(whole)
    expected = loss_of(model, whole)
    parts = [collate(items[:4]), collate(items[4:5]), collate(items[5:])]
    found = [model.loss(model(**model.inputs(part)), part, counts) for part in parts]
    torch.testing.assert_close(sum(part.total for part in found), expected.total)


def test_counts_are_what_is_drawn() -> None:
    """Terms are divided by numbers that are known before anything is drawn."""
    items = [*bm_detr_case.items(), *ODD.values()]
    for config in (PAPER, OFFICIAL):
        model = drawn(config)
        of = collate(items)
        shift = model.inputs(of).get("shift")
        assert shift is not None
        counts, plain = (
            drawn(config, shifting=rule).loss_counts(of) for rule in (config.shifting, "none")
        )
        assert counts["label"] - plain["label"] == len(shift.of) * config.moment_queries
        assert counts["span"] - plain["span"] == len(shift.of)
        assert counts["probability"] - plain["probability"] == len(shift.of)


def test_works_under_autocast() -> None:
    model = drawn(PAPER, shifting="none")
    of = with_negatives(batch())
    with torch.autocast("cpu", torch.bfloat16):
        outputs = model(**model.inputs(of))
    loss = model.loss(outputs, of)
    loss.total.backward()
    torch.testing.assert_close(loss.total, loss_of(model, of).total, rtol=0.05, atol=0.05)
    assert gradients(model).isfinite().all()


@pytest.mark.parametrize("config", [PAPER, OFFICIAL])
def test_exports(config: BMDETRConfig) -> None:
    model = drawn(config).eval()
    inputs = model.inputs(with_negatives(batch()))
    program = torch.export.export(model, (), inputs)
    torch.testing.assert_close(program.module()(**inputs).spans, model(**inputs).spans)


@pytest.mark.slow
def test_compiles_whole() -> None:
    model = drawn(PAPER)
    inputs = model.inputs(with_negatives(batch()))
    compiled = torch.compile(model, fullgraph=True)
    torch.testing.assert_close(compiled(**inputs).spans, model(**inputs).spans)


# ---- the loss ---------------------------------------------------------------------------------------


def test_semantic_loss_by_hand() -> None:
    """Eq. 17: the pair itself is not in the denominator."""
    model = drawn(PAPER, shifting="none")
    of = batch()
    outputs = model(**model.inputs(of))
    videos, sentences = (F.normalize(part, dim=-1) for part in model.pooled(outputs, of))
    scores = (videos @ sentences.T / 0.07).double().tolist()
    expected = 0.0
    for i in range(3):
        others = sum(np.exp(scores[i][j]) for j in range(3) if j != i)
        expected -= np.log(np.exp(scores[i][i]) / others) / 3
    assert model.loss(outputs, of).terms["semantic"].item() == pytest.approx(expected, rel=1e-4)
    everyone = drawn(PAPER, shifting="none", semantic_against="all")
    expected = F.cross_entropy(torch.tensor(scores), torch.arange(3)).item()
    assert everyone.loss(outputs, of).terms["semantic"].item() == pytest.approx(expected, rel=1e-4)


def test_a_query_alone_has_no_semantic_loss() -> None:
    model = drawn(PAPER, shifting="none")
    assert loss_of(model, collate(bm_detr_case.items()[:1])).terms["semantic"] == 0


def test_frame_losses_by_hand() -> None:
    """Eqs. 15 and 16 on rows 2 and 3 of five."""
    model = drawn(PAPER, shifting="none")
    of = collate([item("a", 5, 2, [(2, 4)], row_seconds=1.0)])
    outputs = model(**model.inputs(of))._replace(
        saliency=torch.tensor([[0.0, 0.6, 1.0, 0.5, 0.9]]),
        joint=torch.tensor([[0.1, 0.2, 0.9, 0.7, 0.3]]),
    )
    terms = model.loss(outputs, of).terms
    hinges = [max(0.0, 0.2 + j - i) for i in (1.0, 0.5) for j in (0.0, 0.6, 0.9)]
    assert terms["margin"].item() == pytest.approx(sum(hinges) / 6)
    assert terms["probability"].item() == pytest.approx(1 - 0.8 + 0.2)


SWITCHES: list[dict[str, Any]] = [
    {},
    {"background": False, "semantic_weight": 0.0, "learnable_spans": False, "shifting": "none"},
    {"background": False},
    {"semantic_weight": 0.0},
    {"learnable_spans": False},
    {"shifting": "none"},
    {"margin_weight": 0.0},
    {"probability_weight": 0.0},
    {"auxiliary": True},
    {"decoder_layers": 1, "encoder_layers": 1},
    {"refine": False, "pooling": "tanh", "activation": "prelu", "margin_pairs": "sampled"},
    {"decoder_memory": "encoded", "moment_rows": "floor", "shifting": "published"},
]


@pytest.mark.parametrize("changes", SWITCHES, ids=lambda changes: ", ".join(changes) or "all")
def test_every_switch_trains(changes: dict[str, Any]) -> None:
    """Tables 7 and 8, and the code's ways: no parameter is left without a gradient."""
    model = drawn(PAPER, **changes)
    loss = loss_of(model, with_negatives(batch()))
    loss.total.backward()
    assert loss.terms.keys() == model.loss_weights().keys()
    assert [name for name, p in model.named_parameters() if p.grad is None] == []
    assert gradients(model).isfinite().all()


# ---- answers, and that it learns --------------------------------------------------------------------


def test_what_answers_are_scaled_by() -> None:
    of = collate([item("a", 5, 2, [(2, 4)], row_seconds=2.0)])
    object.__setattr__(of, "durations", torch.tensor([8.6]))
    said = answers(drawn(PAPER), of)
    said = said._replace(spans=torch.tensor([[[[0.5, 0.5]] * 4]]))

    def first(**changes: Any) -> tuple[float, ...]:
        windows = drawn(PAPER, **changes).decode(said, of)[0].pred_relevant_windows
        assert windows is not None
        return windows[0][:2]

    assert first() == pytest.approx((2.5, 7.5))
    assert first(answer_extent="duration") == pytest.approx((2.15, 6.45))
    assert first(answer_extent="duration", longest=6.0) == pytest.approx((1.5, 4.5))
    assert first(answer_extent="duration", round_to=2.0) == (2.0, 6.0)


@pytest.mark.parametrize(("memory", "steps"), [("attended", 300), ("encoded", 120)])
def test_learns_a_small_set_by_heart(memory: Any, steps: int) -> None:
    torch.manual_seed(0)
    config = msgspec.structs.replace(PAPER, hidden=32, feed_forward=64, decoder_memory=memory)
    model = BMDETR(config)
    of = collate([told(place) for place in range(16)])
    optimiser = torch.optim.AdamW(model.parameters(), lr=4e-3)
    for _ in range(steps):
        optimiser.zero_grad()
        loss_of(model, of).total.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
    with torch.no_grad():
        found = model.eval().decode(model(**model.inputs(of)), of)
    assert vmr.evaluate(found, of.queries).brief["MR-full-R1@0.7"] >= 75


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"text_dim": None}, "expected video_dim and text_dim"),
        ({"hidden": 18, "heads": 3}, "hidden: expected a multiple of heads"),
        ({"temperature": 0.0}, "temperature: expected above 0"),
        ({"reference_epsilon": 0.5}, "reference_epsilon: expected above 0 and below 0.5"),
        ({"shift_below": 0.0}, "shift_below: expected seconds above 0, or None"),
        ({"still_columns": -1}, "still_columns: expected from 0 to video_dim"),
        ({"still_columns": 7}, "still_columns: expected from 0 to video_dim .6., or None, got 7"),
        ({"probability_weight": -1.0}, "probability_weight: expected at least 0"),
        ({"giou_weight": float("inf")}, "giou_weight: expected at least 0 and finite"),
        ({"pooling": "mean"}, "pooling"),
    ],
)
def test_bad_settings_are_named(change: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        BMDETR(msgspec.structs.replace(PAPER, **change))


def test_arguments_that_do_not_fit_are_named() -> None:
    model, of = drawn(PAPER), with_negatives(batch())
    inputs = model.inputs(of)
    for change, message in (
        ({"negative_lengths": None}, "negative_text and negative_lengths go together, got one"),
        ({"negative_text": of.text[:, :, :3]}, "text features of 5 columns, got 3"),  # type: ignore[index]
        ({"negative_text": of.negative_text[:2]}, "expected 3 sentences, one a video, got 2"),  # type: ignore[index]
        ({"video_lengths": torch.ones(3, 12)}, r"bm-detr: video: lengths: expected \[3\] int64"),
        ({"text_lengths": [1, 2, 3]}, "bm-detr: text: lengths: expected"),
    ):
        with pytest.raises(InputError, match=message):
            model(**{**inputs, **change})


def test_other_features_are_named() -> None:
    of = batch()
    object.__setattr__(of, "video", torch.zeros(3, 12, 8))
    with pytest.raises(InputError, match="bm-detr: expected video features of 6 columns, got 8"):
        drawn(PAPER).inputs(of)
