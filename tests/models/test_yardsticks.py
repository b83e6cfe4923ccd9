"""The prior over windows and raw similarity: what they count, what they answer, what they refuse."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import vmr
from tests.pack_layouts import save, unit
from vmr.data.dataset import MomentDataset, collate
from vmr.data.records import Query, Saliency
from vmr.errors import InputError
from vmr.models.base import MomentModel
from vmr.models.similarity import RawSimilarity, RawSimilarityConfig, _proposals, _smoothed
from vmr.models.window_prior import WindowPrior, WindowPriorConfig

PACK = """
columns: [motion, clip, tef]
sources:
  motion: {files: "motion/{vid}.npz", dim: 6}
  clip: {files: "clip/{vid}.npz", dim: 4}
seconds_per_row: 2
text: {files: "text/{qid}.npz", dim: 4}
"""
WIDTHS = {"motion": 6, "clip": 4}
ROWS = 20


def queries(*windows: tuple[float, float], scored: bool = False) -> list[Query]:
    def saliency(window: tuple[float, float]) -> Saliency:
        clips = tuple(range(int(window[0] / 2), int(window[1] / 2)))
        return Saliency(clips, tuple((1.0, 3.0) for _ in clips), ROWS, 2.0)

    return [
        Query(
            qid=qid,
            video=f"v{qid}",
            text="a query",
            duration=ROWS * 2.0,
            windows=(window,),
            saliency=saliency(window) if scored else None,
        )
        for qid, window in enumerate(windows)
    ]


WINDOWS = [(8.0, 16.0), (0.0, 12.0), (30.0, 40.0), (8.0, 16.0), (8.0, 18.0)]


@pytest.fixture
def dataset(tmp_path: Path) -> MomentDataset:
    """Frames inside a window are near to the sentence in the columns of clip."""
    (tmp_path / "pack.yaml").write_text(PACK)
    generator = np.random.default_rng(0)
    listed = queries(*WINDOWS, scored=True)
    for query in listed:
        assert query.windows
        sentence = unit(generator.normal(size=4))
        middles = np.arange(ROWS) * 2 + 1
        inside = (middles > query.windows[0][0]) & (middles < query.windows[0][1])
        clip = unit(generator.normal(size=(ROWS, 4))) * 0.3 + np.outer(inside, sentence)
        save(tmp_path / "clip" / f"{query.video}.npz", clip)
        save(tmp_path / "motion" / f"{query.video}.npz", generator.normal(size=(ROWS, 6)))
        tokens = {"last_hidden_state": sentence[None], "pooler_output": sentence}
        (tmp_path / "text").mkdir(exist_ok=True)
        np.savez(tmp_path / "text" / f"{query.qid}.npz", **tokens)
    return MomentDataset(listed, vmr.load_pack(tmp_path), pooled=True)


def answers(model: MomentModel, dataset: MomentDataset) -> list[Any]:
    batch = collate([dataset[place] for place in range(len(dataset))])
    return model.decode(model(**model.inputs(batch)), batch)


# ---- the prior --------------------------------------------------------------------------------------


def test_prior_takes_what_most_queries_share(dataset: MomentDataset) -> None:
    prior = WindowPrior(WindowPriorConfig(grid=20, windows=3))
    prior.fit(dataset)
    (first, *_), *others = [found.pred_relevant_windows for found in answers(prior, dataset)]
    assert first[:2] == pytest.approx((6, 16))  # overlaps with four of the five
    assert first[2] == pytest.approx(_mean_hits((6, 16)))
    assert all(other[0] == first for other in others)
    scores = prior.scores.tolist()
    assert scores == sorted(scores, reverse=True)
    assert sum(scores) <= 1 + 1e-6
    # The first leaves (30, 40), which any window with an IoU of 0.7 hits as often as can be.
    assert any(26 <= start < end <= 40 for start, end in (prior.windows * 40).tolist())


def _mean_hits(window: tuple[float, float]) -> float:
    """Written out: the share of the thresholds, averaged over the queries."""
    shares = []
    for start, end in WINDOWS:
        both = max(0.0, min(end, window[1]) - max(start, window[0]))
        union = max(end, window[1]) - min(start, window[0])
        iou = both / union if both else 0.0
        shares.append(sum(iou >= level - 1e-9 for level in (0.3, 0.4, 0.5, 0.6, 0.7)) / 5)
    return float(np.mean(shares))


def test_greedy_gain_is_the_best_there_is_at_every_step(dataset: MomentDataset) -> None:
    prior = WindowPrior(WindowPriorConfig(grid=10, windows=1))
    prior.fit(dataset)
    best = max(
        _mean_hits((start * 4, end * 4)) for start in range(10) for end in range(start + 1, 11)
    )
    assert prior.scores[0].item() == pytest.approx(best)


def test_prior_saliency_is_the_mean_of_a_position(dataset: MomentDataset) -> None:
    prior = WindowPrior(WindowPriorConfig(positions=ROWS))
    prior.fit(dataset)
    rows = np.stack([query.saliency.dense().mean(axis=1) for query in dataset.queries])  # type: ignore[union-attr]
    found = answers(prior, dataset)
    assert found[0].pred_saliency_scores == pytest.approx(rows.mean(axis=0).tolist())


def test_prior_without_scores_counts_windows(dataset: MomentDataset) -> None:
    object.__setattr__(dataset, "queries", tuple(queries(*WINDOWS)))
    prior = WindowPrior(WindowPriorConfig(positions=ROWS))
    prior.fit(dataset)
    middles = np.arange(ROWS) * 2 + 1
    inside = np.mean([(middles > start) & (middles < end) for start, end in WINDOWS], axis=0)
    assert prior.saliency.tolist() == pytest.approx(inside.tolist())


def test_prior_scales_to_other_durations(dataset: MomentDataset) -> None:
    prior = WindowPrior(WindowPriorConfig(grid=20, windows=1))
    prior.fit(dataset)
    batch = collate([dataset[0]])
    longer = vmr.Query(qid="x", video="x", text="x", duration=100.0)
    object.__setattr__(batch, "queries", (longer,))
    (found,) = prior.decode(prior(**prior.inputs(batch)), batch)
    assert found.pred_relevant_windows is not None
    assert found.pred_relevant_windows[0][:2] == pytest.approx((15, 40))
    assert found.qid == "x"


# ---- similarity -------------------------------------------------------------------------------------


def test_similarity_finds_what_is_near_to_the_sentence(dataset: MomentDataset) -> None:
    model = RawSimilarity(RawSimilarityConfig())
    model.fit(dataset)
    assert model.columns.tolist() == [6, 4]
    found = answers(model, dataset)
    for answer, (start, end) in zip(found, WINDOWS, strict=True):
        first = answer.pred_relevant_windows[0]
        overlap = min(end, first[1]) - max(start, first[0])
        assert overlap / (max(end, first[1]) - min(start, first[0])) >= 0.7
        scores = [window[2] for window in answer.pred_relevant_windows]
        assert scores == sorted(scores, reverse=True)
        assert len(answer.pred_saliency_scores) == ROWS
        assert max(answer.pred_saliency_scores) <= 1 + 1e-6


def test_similarity_ignores_padding(dataset: MomentDataset) -> None:
    model = RawSimilarity(RawSimilarityConfig())
    model.fit(dataset)
    batch = collate([dataset[0]])
    alone = model(**model.inputs(batch)).similarity
    inputs = model.inputs(batch)
    inputs["video"] = torch.nn.functional.pad(inputs["video"], (0, 0, 0, 3), value=torch.nan)
    padded = model(**inputs).similarity
    torch.testing.assert_close(padded[:, :ROWS], alone)
    assert padded[:, ROWS:].eq(0).all()


@pytest.mark.parametrize(
    ("curve", "windows"),
    [
        ([0.0, 1, 1, 0], [(1, 3)]),
        ([0.5], [(0, 1)]),
        ([0.5, 0.5, 0.5], [(0, 3)]),
        ([1.0, 0, 0.5, 0], [(0, 1), (2, 3)]),
    ],
)
def test_proposals_are_runs_above_levels(
    curve: list[float], windows: list[tuple[int, int]]
) -> None:
    found, gains = _proposals(np.array(curve), 3)
    assert [tuple(window) for window in found.astype(int).tolist()] == windows
    assert np.isfinite(gains).all()


@pytest.mark.parametrize("rows", [1, 3, 9])
def test_smoothing_averages_what_is_there(rows: int) -> None:
    curve = np.array([3.0, 1, 2, 8])
    half = rows // 2
    expected = [curve[max(0, place - half) : place + half + 1].mean() for place in range(4)]
    assert _smoothed(curve, rows) == pytest.approx(np.array(expected))


# ---- both -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [WindowPrior, RawSimilarity])
def test_fitting_is_deterministic_and_kept(
    kind: type[MomentModel], dataset: MomentDataset, tmp_path: Path
) -> None:
    model, again = kind(kind.config_type()), kind(kind.config_type())
    model.fit(dataset)
    again.fit(dataset)
    assert answers(model, dataset) == answers(again, dataset)
    model.save_pretrained(tmp_path / "kept")
    loaded = MomentModel.from_pretrained(tmp_path / "kept")
    assert type(loaded) is kind
    assert answers(loaded, dataset) == answers(model, dataset)
    assert not [p for p in model.parameters() if p.requires_grad]


@pytest.mark.parametrize("kind", [WindowPrior, RawSimilarity])
def test_answers_are_what_the_evaluator_takes(
    kind: type[MomentModel], dataset: MomentDataset
) -> None:
    model = kind(kind.config_type())
    model.fit(dataset)
    found = vmr.evaluate(answers(model, dataset), dataset.queries)
    assert found.brief["MR-full-R1@0.5"] >= 40


@pytest.mark.parametrize("kind", [WindowPrior, RawSimilarity])
def test_before_fit_there_is_no_answer(kind: type[MomentModel], dataset: MomentDataset) -> None:
    with pytest.raises(InputError, match="call fit"):
        answers(kind(kind.config_type()), dataset)


@pytest.mark.parametrize("kind", [WindowPrior, RawSimilarity])
def test_training_queries_need_windows(kind: type[MomentModel], dataset: MomentDataset) -> None:
    bare = tuple(Query(qid=q.qid, video=q.video, text="x", duration=40) for q in dataset.queries)
    object.__setattr__(dataset, "queries", bare)
    with pytest.raises(InputError, match="training queries with windows, got none"):
        kind(kind.config_type()).fit(dataset)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (RawSimilarityConfig(source="motion"), "the source motion with the sentence's 4 columns"),
        (RawSimilarityConfig(source="slow"), "the pack has motion 6, clip 4, tef 2"),
    ],
)
def test_a_source_in_the_sentences_space_is_asked_for(
    config: RawSimilarityConfig, message: str, dataset: MomentDataset
) -> None:
    with pytest.raises(InputError, match=message):
        RawSimilarity(config).fit(dataset)


def test_similarity_asks_for_pooled_sentences(dataset: MomentDataset) -> None:
    dataset.pooled = False
    with pytest.raises(InputError, match="pooled=True"):
        RawSimilarity(RawSimilarityConfig()).fit(dataset)


@pytest.mark.parametrize(
    ("kind", "config"),
    [
        (WindowPrior, WindowPriorConfig(windows=0)),
        (WindowPrior, WindowPriorConfig(grid=2)),
        (RawSimilarity, RawSimilarityConfig(smoothing=(2,))),
        (RawSimilarity, RawSimilarityConfig(levels=0)),
    ],
)
def test_bad_settings_are_named(kind: Any, config: Any) -> None:
    with pytest.raises(InputError, match=r"expected|asked for"):
        kind(config)
