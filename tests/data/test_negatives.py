"""Which queries stand against a query, and how one of them is drawn."""

from __future__ import annotations

import itertools
import pickle
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import torch
from numpy.typing import NDArray

import vmr
from vmr.cache import Cache
from vmr.data.negatives import (
    NegativeQueries,
    Rule,
    apart,
    sentence_embeddings,
    token_embeddings,
)
from vmr.errors import InputError

RULES: tuple[Rule, ...] = ("paper", "same_video", "other_video")


def query(qid: int | str, video: str, *windows: tuple[float, float], **more: Any) -> vmr.Query:
    values = {"qid": qid, "video": video, "text": f"query {qid}", "duration": 20.0}
    return vmr.Query(**{**values, "windows": windows or None, **more})


QUERIES = [
    query(0, "a", (0, 4)),
    query(10, "b", (0, 5)),
    query(1, "a", (0, 5)),  # IoU 0.8 with query 0
    query(2, "a", (10, 14), (0, 1)),  # 0.25 with query 0, and 0.2 with query 1
    query(3, "a", (2, 4)),  # 0.5 with query 0, 0.4 with query 1, 0 with query 2
    query(20, "c", (0, 5)),
    query(11, "b", (0, 5)),
]
PLACES = {each.qid: place for place, each in enumerate(QUERIES)}


def pools(
    negatives: NegativeQueries, queries: Sequence[vmr.Query] = QUERIES
) -> dict[Any, set[Any]]:
    """Qids by qid."""
    return {
        each.qid: {queries[other].qid for other in negatives.pool(place)}
        for place, each in enumerate(queries)
    }


# ---- pools --------------------------------------------------------------------------------------------


def test_pools_by_rule() -> None:
    none: dict[Any, set[Any]] = {each.qid: set() for each in QUERIES}
    in_a = {0: {1, 2, 3}, 1: {0, 2, 3}, 2: {0, 1, 3}, 3: {0, 1, 2}}
    paper = NegativeQueries(QUERIES, "paper", similarity=None)
    assert pools(paper) == {**none, 0: {2}, 1: {2, 3}, 2: {0, 1, 3}, 3: {1, 2}}
    looser = NegativeQueries(QUERIES, "paper", iou=0.51, similarity=None)
    assert pools(looser) == {**none, 0: {2, 3}, 1: {2, 3}, 2: {0, 1, 3}, 3: {0, 1, 2}}
    same = NegativeQueries(QUERIES, "same_video")
    assert pools(same) == {**none, **in_a, 10: {11}, 11: {10}}
    other = NegativeQueries(QUERIES, "other_video")
    assert pools(other) == none
    assert [each.share() for each in (paper, same, other)] == [4 / 7, 6 / 7, 0]
    assert paper.describe() == (
        "negative queries (rule paper): 4 of 7 queries (57%) have a pool of their own, 2.0 on "
        "average; the others, those of other videos"
    )
    assert other.describe().endswith("those of other videos for all 7 queries")


def test_apart_is_every_window_against_every_other() -> None:
    rng = np.random.default_rng(0)
    # Whole numbers meet the threshold itself often; some windows are reversed or late.
    queries = [
        query(qid, "v", *[tuple(map(float, rng.integers(-2, 24, 2))) for _ in range(qid % 4)])
        for qid in range(40)
    ]

    def overlap(one: tuple[float, float], other: tuple[float, float]) -> float:
        (a, b), (c, d) = ((max(min(each), 0), min(max(each), 20.0)) for each in (one, other))
        shared = max(0.0, min(b, d) - max(a, c))
        union = b - a + d - c - shared
        return shared / union if b > a and d > c else 0.0

    for threshold in (0.3, 0.5):
        found = apart(queries, threshold)
        for i, j in itertools.product(range(40), repeat=2):
            pairs = itertools.product(queries[i].windows or (), queries[j].windows or ())
            assert found[i, j] == (i != j and all(overlap(*pair) < threshold for pair in pairs))


@pytest.mark.parametrize("form", ["array", "tensor", "callable"])
def test_similar_sentences_are_no_negatives(form: str) -> None:
    angles = {0: 0.0, 2: 0.1, 3: 1.0, 1: 3.0, 10: 0, 11: 0, 20: 0}
    vectors = np.array(
        [[np.cos(angles[each.qid]), np.sin(angles[each.qid])] for each in QUERIES], dtype=np.float32
    )
    asked: list[list[int]] = []

    def embed(places: Sequence[int]) -> NDArray[np.float32]:
        asked.append(list(places))
        return vectors[list(places)]

    forms = {"array": vectors, "tensor": torch.from_numpy(vectors), "callable": embed}
    found = pools(NegativeQueries(QUERIES, "paper", similarity=0.7, embeddings=forms[form]))
    # cos 0.1 = 0.995, cos 1 = 0.54, cos 0.9 = 0.62, cos 2 and cos 3 are below 0.
    assert found == {0: set(), 1: {2, 3}, 2: {1, 3}, 3: {1, 2}, 10: set(), 11: set(), 20: set()}
    if form == "callable":
        # Videos b and c have nobody to compare.
        assert asked == [[PLACES[0], PLACES[1], PLACES[2], PLACES[3]]]


def test_annotations_may_name_them() -> None:
    named = {0: (20, 10), 2: (), 10: (11,)}
    queries = [msgspec.structs.replace(each, neg_query_ids=named.get(each.qid)) for each in QUERIES]
    for rule in RULES:
        found = NegativeQueries(queries, rule, similarity=None)
        plain = pools(NegativeQueries(QUERIES, rule, similarity=None))
        assert pools(found) == {**plain, 0: {20, 10}, 2: set(), 10: {11}}
        assert f"(rule {rule}; neg_query_ids of 3)" in found.describe()
    rng = np.random.default_rng(0)
    drawn = {found.draw(PLACES[2], rng) for _ in range(200)}
    assert drawn == {PLACES[10], PLACES[11], PLACES[20]}


def test_a_name_that_is_none_is_told_with_its_place(tmp_path: Path) -> None:
    path = tmp_path / "train.jsonl"
    names: list[tuple[int | str, ...]] = [(2,), (3, 1)]
    listed = [query(qid + 1, "a", (0, 2), neg_query_ids=ids) for qid, ids in enumerate(names)]
    vmr.write_queries(path, [*listed, query(3, "b", (0, 1))])
    queries = vmr.read_queries(path)
    assert pools(NegativeQueries(queries, "same_video"), queries) == {1: {2}, 2: {3, 1}, 3: set()}
    # What has no features cannot be drawn, and may be named.
    found = NegativeQueries(queries[:2], "same_video", skipped=queries[2:])
    assert pools(found, queries[:2]) == {1: {2}, 2: {1}}
    for wrong, said in (("3", "no query of the file"), (4, "no query"), (2, "the query itself")):
        vmr.write_queries(path, [listed[0], query(2, "a", (0, 2), neg_query_ids=(1, wrong))])
        message = rf"train\.jsonl, line 2: neg_query_ids: expected .* got {wrong!r}: {said}"
        with pytest.raises(InputError, match=message):
            NegativeQueries(vmr.read_queries(path), "other_video")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"rule": "random"}, "rule: expected paper, same_video or other_video, got 'random'"),
        ({"iou": 1.5}, "iou: expected 0 to 1, got 1.5"),
        ({"similarity": float("nan")}, "similarity: expected -1 to 1, got nan"),
        ({}, "embeddings: expected the sentences' vectors, got None"),
        ({"embeddings": np.ones((6, 3))}, r"embeddings: expected \[7, D\].*got \[6, 3\]"),
        ({"embeddings": lambda places: np.ones(3)}, r"expected \[4, D\].*got \[3\]"),
        ({"embeddings": np.ones((7, 4))}, "expected vectors of length 1 .*, got length 2 in row 0"),
        ({"embeddings": np.full((7, 2), np.nan)}, "got length nan"),
    ],
)
def test_bad_arguments(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        NegativeQueries(QUERIES, **{"rule": "paper", **arguments})


def test_one_video_has_no_others() -> None:
    queries = [each for each in QUERIES if each.video == "a"]
    assert NegativeQueries(queries, "same_video").share() == 1
    with pytest.raises(InputError, match=r"query 0 has none in its video \(a\).*no other video"):
        NegativeQueries(queries, "other_video")


# ---- draws --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rule", RULES)
def test_draws_are_even_over_the_pool(rule: Rule) -> None:
    negatives = NegativeQueries(QUERIES, rule, similarity=None)
    rng = np.random.default_rng(1)
    for place, each in enumerate(QUERIES):
        expected = set(negatives.pool(place).tolist()) or {
            other for other, there in enumerate(QUERIES) if there.video != each.video
        }
        counts = Counter(negatives.draw(place, rng) for _ in range(1500))
        assert counts.keys() == expected
        mean = 1500 / len(expected)
        assert all(abs(count - mean) < 6 * mean**0.5 for count in counts.values())
    again = pickle.loads(pickle.dumps(negatives))
    for place in range(len(QUERIES)):
        seeds = [[7, place], [8, place]]
        first, second = (negatives.draw(place, np.random.default_rng(seed)) for seed in seeds)
        assert [again.draw(place, np.random.default_rng(seed)) for seed in seeds] == [first, second]
    with pytest.raises(InputError, match="expected 0 to 6, got -1"):
        negatives.draw(-1, rng)


def test_a_hash_tells_pools_apart() -> None:
    hashes = {
        NegativeQueries(QUERIES, rule, iou=iou, similarity=None).digest()
        for rule, iou in (
            ("paper", 0.5),
            ("paper", 0.51),
            ("same_video", 0.5),
            ("other_video", 0.5),
        )
    }
    assert len(hashes) == 4
    # What a pool holds counts, whatever thresholds led to it.
    assert NegativeQueries(QUERIES, "paper", iou=0.49, similarity=None).digest() in hashes


def test_queries_of_other_videos_are_not_listed() -> None:
    queries = [query(qid, f"v{qid // 3}", (qid % 3, qid % 3 + 1.0)) for qid in range(30_000)]
    negatives = NegativeQueries(queries, "other_video")
    assert len(pickle.dumps(negatives)) < 50 * len(queries)
    rng = np.random.default_rng(0)
    drawn = [negatives.draw(place, rng) for place in range(3000)]
    assert all(drawn[place] // 3 != place // 3 for place in range(3000))


# ---- sentences ----------------------------------------------------------------------------------------


class Encoder:
    name = "letters"

    def __init__(self) -> None:
        self.read: list[str] = []

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        self.read += texts
        rows = np.array([[text.count(letter) for letter in "abc"] for text in texts], dtype=float)
        return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def test_an_encoder_reads_what_is_compared_and_once(tmp_path: Path) -> None:
    windows = [(0.0, 2.0), (5.0, 7.0), (10.0, 12.0), (15.0, 17.0)]
    texts = ["aab", "aab", "abb", "c"]
    queries = [query(i, "v", windows[i], text=texts[i]) for i in range(4)]
    queries.append(query(4, "w", (0, 1), text="a"))
    encoder, told = Encoder(), []
    cache = Cache(tmp_path)
    for _ in range(2):
        embed = sentence_embeddings(
            queries, lambda: encoder, cache=cache, progress=lambda *place: told.append(place)
        )
        found = NegativeQueries(queries, "paper", embeddings=embed)
        assert pools(found, queries) == {0: {3}, 1: {3}, 2: {3}, 3: {0, 1, 2}, 4: set()}
    assert encoder.read == ["aab", "abb", "c"]
    assert told == [("encode sentences", 3, 3)] * 2

    def refuse() -> Encoder:
        raise AssertionError("nobody is to be compared")

    alone = [query(i, f"v{i}", (0, 1)) for i in range(3)]
    found = NegativeQueries(alone, "paper", embeddings=sentence_embeddings(alone, refuse))
    assert found.share() == 0


def test_a_pack_may_compare_sentences_by_its_tokens(tmp_path: Path) -> None:
    tokens = {0: [[1, 0], [3, 0]], 1: [[2, 0.1]], 2: [[0, 5]]}
    (tmp_path / "text").mkdir()
    np.savez(tmp_path / "v.npz", features=np.ones((10, 4), dtype=np.float32))
    for qid, rows in tokens.items():
        np.savez(tmp_path / "text" / f"{qid}.npz", last_hidden_state=np.array(rows, np.float32))
    (tmp_path / "pack.yaml").write_text(
        'columns: [v]\nsources: {v: {files: "{vid}.npz", dim: 4}}\nseconds_per_row: 2\n'
        'text: {files: "text/{qid}.npz", dim: 2, normalise: none}\n'
    )
    pack = vmr.load_pack(tmp_path)
    queries = [query(qid, "v", (6.0 * qid, 6.0 * qid + 5)) for qid in tokens]
    embeddings = token_embeddings(queries, pack)
    np.testing.assert_allclose(embeddings([0, 2]), [[1, 0], [0, 1]], atol=1e-6)
    found = NegativeQueries(queries, "paper", embeddings=embeddings)
    assert pools(found, queries) == {0: {2}, 1: {2}, 2: {0, 1}}
    # And the data set gives the tokens of the query that was drawn.
    data = vmr.MomentDataset(queries, pack)
    item = data[0, 2]
    assert item.query.qid == 0
    assert item.negative_text is not None
    assert item.negative_text.tolist() == [[0, 5]]
    assert data[0].negative_text is None
    batch = vmr.collate([data[1, 0], item], tokens=3)
    assert batch.negative_text is not None
    assert batch.negative_lengths is not None
    assert batch.negative_lengths.tolist() == [2, 1]
    assert batch.negative_text.tolist() == [[[1, 0], [3, 0], [0, 0]], [[0, 5], [0, 0], [0, 0]]]
    moved = batch.to("meta")
    assert moved.negative_text is not None
    assert moved.negative_text.device.type == "meta"
    with pytest.raises(InputError, match="for all items or for none"):
        vmr.collate([data[0], item])


# ---- the real data ------------------------------------------------------------------------------------


def test_real_shares_without_a_peer(real_data: Path) -> None:
    train = vmr.read_queries(real_data / "qvhighlights/highlight_train_release.jsonl")
    assert round(1 - NegativeQueries(train, "same_video").share(), 2) == 0.97
    charades = vmr.read_queries(real_data / "charades_sta/bm_detr/train.jsonl")
    assert round(1 - NegativeQueries(charades, "paper", similarity=None).share(), 2) == 0.37
    # Many queries a video: TACoS has up to 230.
    tacos = vmr.read_queries(real_data / "tacos/lighthouse/tacos_train_release.jsonl")
    assert NegativeQueries(tacos, "paper", similarity=None).share() == 1
