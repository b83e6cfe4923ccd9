"""Moment-DETR: the official numbers, shapes, padding, losses in every odd case, and that it learns."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import torch
from torch import Tensor

import vmr
from tests.models import detr_case
from tests.models.detr_case import CONFIG, batch, item
from vmr.data.dataset import Batch, Item, collate
from vmr.errors import InputError
from vmr.models.layers.set_prediction import assign
from vmr.models.layers.targets import ranked_clips, relative_windows, rows_inside
from vmr.models.moment_detr import MomentDETR, MomentDETRConfig, MomentDETROutput

GOLDEN = Path(__file__).parents[1] / "golden" / "moment_detr.npz"
FULL = msgspec.structs.replace(CONFIG, batch_contrastive=0.1)


@pytest.fixture
def model() -> MomentDETR:
    made = MomentDETR(CONFIG)
    detr_case.draw_weights(made)
    return made


def loss_of(model: MomentDETR, of: Batch) -> Any:
    return model.loss(model(**model.inputs(of)), of)


# ---- the official numbers ---------------------------------------------------------------------------


@pytest.fixture(scope="module")
def golden() -> dict[str, Tensor]:
    with np.load(GOLDEN) as file:
        return {name: torch.from_numpy(file[name]) for name in file.files}


def test_outputs_are_the_official_ones(model: MomentDETR, golden: dict[str, Tensor]) -> None:
    of = batch()
    outputs = model(**model.inputs(of))
    torch.testing.assert_close(outputs.spans, golden["spans"], atol=1e-5, rtol=0)
    torch.testing.assert_close(outputs.logits, golden["logits"], atol=1e-5, rtol=0)
    for row, length in enumerate(of.video_lengths.tolist()):
        torch.testing.assert_close(
            outputs.saliency[row, :length], golden["saliency"][row, :length], atol=1e-5, rtol=0
        )


def test_losses_and_gradients_are_the_official_ones(
    model: MomentDETR, golden: dict[str, Tensor]
) -> None:
    loss = loss_of(model, batch())
    loss.total.backward()
    for name, term in loss.terms.items():
        torch.testing.assert_close(term, golden[f"term.{name}"], atol=1e-5, rtol=1e-5)
    assert {f"term.{name}" for name in loss.terms} == {k for k in golden if k.startswith("term")}
    torch.testing.assert_close(loss.total, golden["total"], atol=1e-5, rtol=1e-5)
    gradients = torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])
    torch.testing.assert_close(gradients, golden["gradients"], atol=2e-5, rtol=1e-5)


# ---- outputs ----------------------------------------------------------------------------------------


def test_shapes() -> None:
    outputs = MomentDETR(FULL)(**MomentDETR(FULL).inputs(batch()))
    shapes = [list(value.shape) for value in outputs]
    assert shapes == [
        [2, 3, 4, 2],
        [2, 3, 4, 2],
        [3, 12],
        [2, 3, 4, 8],
        [3, 4, 8],
        [3, 12, 8],
        [3, 8],
    ]
    plain = MomentDETR(MomentDETRConfig(video_dim=6, text_dim=5))
    assert sum(parameter.numel() for parameter in plain.parameters()) == 3_958_299
    assert plain(**plain.inputs(batch()))[3:] == (None,) * 4


@pytest.mark.parametrize("value", [torch.nan, torch.inf, 3.0])
def test_padding_changes_nothing(value: float) -> None:
    model = MomentDETR(FULL)
    detr_case.draw_weights(model)
    items = [item("a", 9, 4, [(2, 8)], {1: 1, 2: 3}), item("b", 5, 2, [(0, 2), (4, 10)])]
    of = batch(items)
    expected = loss_of(model, of)
    expected.total.backward()
    gradients = [p.grad.clone() for p in model.parameters() if p.grad is not None]
    changes: dict[str, Tensor] = {}
    for name, lengths in (
        ("video", of.video_lengths),
        ("text", of.text_lengths),
        ("windows", of.window_counts),
        ("saliency", of.video_lengths),
    ):
        padded = torch.nn.functional.pad(
            getattr(of, name), (0, 0, 0, 2) if name != "saliency" else (0, 2)
        )
        for row, length in enumerate(lengths.tolist()):
            padded[row, length:] = value
        changes[name] = padded
    changes["saliency"][~of.has_saliency] = value
    model.zero_grad()
    padded_batch = batch(items, **changes)
    found = loss_of(model, padded_batch)
    found.total.backward()
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(
        [p.grad for p in model.parameters() if p.grad is not None], gradients, atol=1e-4, rtol=1e-4
    )
    with torch.no_grad():
        answers = [
            model.decode(model(**model.inputs(given)), given) for given in (of, padded_batch)
        ]
    for one, other in zip(*answers, strict=True):
        assert one.pred_saliency_scores == pytest.approx(other.pred_saliency_scores, abs=1e-5)


def test_works_under_autocast(model: MomentDETR) -> None:
    with torch.autocast("cpu", torch.bfloat16):
        loss = loss_of(model, batch())
    loss.total.backward()
    assert loss.total.dtype == torch.float32
    torch.testing.assert_close(loss.total, loss_of(model, batch()).total, rtol=0.05, atol=0.05)
    assert all(p.grad.isfinite().all() for p in model.parameters() if p.grad is not None)


def test_exports(model: MomentDETR) -> None:
    inputs = model.inputs(batch())
    program = torch.export.export(model.eval(), (), inputs)
    expected = model(**inputs)
    torch.testing.assert_close(program.module()(**inputs).spans, expected.spans)


@pytest.mark.slow
def test_compiles_whole(model: MomentDETR) -> None:
    inputs = model.inputs(batch())
    compiled = torch.compile(model, fullgraph=True)
    torch.testing.assert_close(compiled(**inputs).spans, model(**inputs).spans)


# ---- the loss ---------------------------------------------------------------------------------------


ODD = {
    "no window": item("n", 6, 3, None),
    "the whole video": item("w", 6, 3, [(0, 12)]),
    "the whole video, scored": item("s", 4, 3, [(0, 8)], dict.fromkeys(range(4), 3.0)),
    "one row": item("o", 1, 3, [(0, 2)]),
    "one row, scored": item("p", 1, 1, [(0, 2)], {0: 4.0}),
    "beyond the features": item("b", 6, 3, [(20, 30)]),
    "reversed": item("r", 6, 3, [(8, 2)]),
    "empty": item("e", 6, 3, [(4, 4)]),
    "shorter than a row": item("h", 6, 3, [(4.1, 4.3)]),
    "more windows than slots": item("m", 20, 3, [(4 * k, 4 * k + 2) for k in range(7)]),
    "scores alone": item("a", 6, 3, None, {1: 2.0, 2: 1.0}),
    "all scores zero": item("z", 6, 3, None, {1: 0.0}),
}


@pytest.mark.parametrize("name", ODD)
def test_odd_queries_have_a_finite_loss(name: str) -> None:
    model = MomentDETR(FULL)
    of = collate([ODD[name]])
    loss = loss_of(model, of)
    loss.total.backward()
    assert loss.total.isfinite()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
    without_pairs = (
        "whole video",
        "no window",
        "one row",
        "beyond",
        "reversed",
        "empty",
        "all scores",
    )
    if any(part in name for part in without_pairs):
        assert model.loss_counts(of)["saliency"] == 0
        assert loss.terms["saliency"] == 0
    assert len(model.decode(model(**model.inputs(of)), of)) == 1


def test_parts_of_a_batch_add_up(model: MomentDETR) -> None:
    items = [*detr_case.items(), *ODD.values()]
    whole = collate(items)
    counts = model.loss_counts(whole)
    expected = loss_of(model, whole)
    parts = [collate(items[:4]), collate(items[4:5]), collate(items[5:])]
    for name, count in counts.items():
        assert count == sum(model.loss_counts(part)[name] for part in parts)
    found = [model.loss(model(**model.inputs(part)), part, counts) for part in parts]
    for name, term in expected.terms.items():
        torch.testing.assert_close(sum(part.terms[name] for part in found), term)
    torch.testing.assert_close(sum(part.total for part in found), expected.total)


def test_terms_have_their_weights(model: MomentDETR) -> None:
    loss = loss_of(model, batch())
    weights = model.loss_weights()
    assert weights["span"] == weights["span_0"] == 10
    assert weights["label"] == 4
    assert weights["contrastive_align_0"] == 0.02
    expected = sum(weights[name] * loss.terms[name].item() for name in weights)
    assert loss.total.item() == pytest.approx(expected)
    alone = MomentDETR(msgspec.structs.replace(CONFIG, auxiliary=False, contrastive_align=0.0))
    assert list(alone.loss_weights()) == ["span", "giou", "label", "saliency"]
    assert loss_of(alone, batch()).terms.keys() == alone.loss_weights().keys()


def test_windows_are_cut_to_the_rows() -> None:
    of = collate([item("a", 5, 1, [(8, 30), (12, 14), (6, 2), (0, 1)]), ODD["no window"]])
    windows = relative_windows(of)
    assert windows.counts.tolist() == [2, 0]
    torch.testing.assert_close(windows.spans[0, :2], torch.tensor([[0.8, 1.0], [0.0, 0.1]]))
    assert windows.spans[0, 2:].eq(0).all()
    inside = rows_inside(windows, of.video_lengths, of.video.shape[1])
    assert inside.tolist() == [[True, False, False, False, True, False], [False] * 6]


def test_pairs_of_rows_by_hand() -> None:
    of = collate([item("a", 5, 1, [(2, 8)], {1: 1, 2: 3, 3: 3}), item("b", 4, 1, [(2, 4)])])
    inside = rows_inside(relative_windows(of), of.video_lengths, 5)
    clips = ranked_clips(of, inside)
    graded, easy = clips.better.int().tolist(), clips.worse.int().tolist()
    assert graded == [[[0, 0, 1, 1, 0], [0] * 5], [[0, 1, 1, 1, 0], [0, 1, 0, 0, 0]]]
    assert easy == [[[0, 1, 0, 0, 0], [0] * 5], [[1, 0, 0, 0, 1], [1, 0, 1, 1, 0]]]


def test_saliency_loss_by_hand(model: MomentDETR) -> None:
    of = collate([item("b", 4, 1, [(2, 4)])])
    scores = torch.tensor([[0.5, 0.4, -1.0, 0.3]])
    outputs = model(**model.inputs(of))._replace(saliency=scores)
    # 2 times the mean of max(0, 0.2 + s_j - 0.4) over the three rows outside.
    assert model.loss(outputs, of).terms["saliency"].item() == pytest.approx(
        2 * (0.3 + 0 + 0.1) / 3
    )


def test_matching_is_the_cheapest() -> None:
    costs = torch.tensor([[[[1.0, 2], [0, 5], [3, 3]], [[9.0, 9], [1, 9], [torch.nan, 9]]]])
    match = assign(costs, torch.tensor([2, 1]))
    assert match.slots.tolist() == [[[1, 0], [1, -1]]]
    assert match.matched_slots(3).tolist() == [[[True, True, False], [False, True, False]]]


def test_a_model_that_diverged_says_nan(model: MomentDETR) -> None:
    torch.nn.init.constant_(model.label_head.weight, torch.nan)
    assert loss_of(model, batch()).total.isnan()


# ---- answers ----------------------------------------------------------------------------------------


def outputs(spans: list[list[float]], scores: list[float], saliency: list[float]) -> Any:
    chances = torch.tensor(scores)
    logits = torch.stack((chances, 1 - chances), dim=-1).log()
    return MomentDETROutput(
        torch.tensor(spans)[None, None], logits[None, None], torch.tensor([saliency])
    )


def test_answers_are_rounded_cut_and_sorted(model: MomentDETR) -> None:
    of = collate([item("a", 5, 1, None)])
    said = outputs([[0.5, 0.5], [0.1, 0.5], [0.8, 0.8]], [0.2, 0.9, 0.5], [1.0, 2, 3, 4, 5])
    (found,) = model.decode(said, of)
    windows = found.pred_relevant_windows
    assert windows is not None
    assert [window[:2] for window in windows] == [(0, 4), (4, 10), (2, 8)]
    assert [window[2] for window in windows] == pytest.approx([0.9, 0.5, 0.2])
    assert found.pred_saliency_scores == [1, 2, 3, 4, 5]
    exact = MomentDETR(msgspec.structs.replace(CONFIG, round_to=None))
    (found,) = exact.decode(said, of)
    assert found.pred_relevant_windows is not None
    assert found.pred_relevant_windows[2][:2] == pytest.approx((2.5, 7.5))


@pytest.mark.parametrize(
    ("row_seconds", "scores", "expected"),
    [
        (1.0, [1.0, 3, 5, 7], [2, 6]),
        (2.0, [1.0, 3, 5], [1, 3, 5]),
        (4.0, [1.0, 3], [1, 1, 3, 3]),
    ],
)
def test_there_is_a_score_a_clip(
    row_seconds: float, scores: list[float], expected: list[float], model: MomentDETR
) -> None:
    of = collate([item("a", len(scores), 1, [(0, 2)], {0: 1}, row_seconds=row_seconds)])
    (found,) = model.decode(outputs([[0.5, 0.5]], [0.5], scores), of)
    assert found.pred_saliency_scores == expected


# ---- that it learns ---------------------------------------------------------------------------------


def told(place: int) -> Item:
    """A query whose sentence says which rows are meant."""
    generator = np.random.default_rng(place)
    rows, length = 16, int(generator.integers(3, 7))
    start = int(generator.integers(0, rows - length))
    made = item(str(place), rows, 1, [(2.0 * start, 2.0 * (start + length))])
    sentence = torch.nn.functional.one_hot(torch.tensor(place % 4), 5).float()
    video = 0.1 * made.video
    video[start : start + length, :5] += 2 * sentence
    video[:, 5] = torch.arange(rows) / rows
    return Item(
        **{**{k: getattr(made, k) for k in Item.__slots__}, "video": video, "text": sentence[None]}
    )


def test_learns_a_small_set_by_heart() -> None:
    torch.manual_seed(0)
    smaller = {"encoder_layers": 1, "decoder_layers": 1, "contrastive_align": 0.0}
    model = MomentDETR(msgspec.structs.replace(CONFIG, hidden=32, feed_forward=64, **smaller))
    of = collate([told(place) for place in range(16)])
    optimiser = torch.optim.AdamW(model.parameters(), lr=4e-3)
    for _ in range(110):
        optimiser.zero_grad()
        loss_of(model, of).total.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
    with torch.no_grad():
        answers = model.eval().decode(model(**model.inputs(of)), of)
    assert vmr.evaluate(answers, of.queries).brief["MR-full-R1@0.7"] >= 85


# ---- what is refused --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"video_dim": None}, "expected video_dim and text_dim"),
        ({"hidden": 10}, "hidden: expected an even multiple of heads"),
        ({"heads": 0}, "heads: expected at least 1, got 0"),
        ({"dropout": 1.0}, "dropout: expected from 0 to below 1"),
        ({"temperature": 0.0}, "temperature: expected above 0"),
        ({"round_to": 0.0}, "round_to: expected seconds above 0"),
        ({"batch_contrastive": -1.0}, "batch_contrastive: expected at least 0"),
    ],
)
def test_bad_settings_are_named(change: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        MomentDETR(msgspec.structs.replace(CONFIG, **change))


def test_other_features_are_named(model: MomentDETR) -> None:
    of = batch()
    with pytest.raises(InputError, match="video features of 6 columns, got 8"):
        model.inputs(batch(video=torch.zeros(3, 12, 8)))
    with pytest.raises(InputError, match="expected the tokens of sentences"):
        model.inputs(batch(text=None))
    assert model.inputs(of).keys() == {"video", "video_lengths", "text", "text_lengths"}
