"""What is scored, what is refused, and what the report says about it."""

from __future__ import annotations

import json
import math
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import vmr
from tests.evaluation import cases
from vmr import InputError, Prediction, Query, VmrError
from vmr.evaluation import PROTOCOLS

Record = dict[str, Any]


def query(qid: int | str = 1, **more: Any) -> Query:
    return Query(
        **{
            "qid": qid,
            "video": f"v{qid}",
            "text": "a man runs",
            "duration": 20.0,
            "windows": ((0.0, 10.0),),
            "line": 7,
            **more,
        }
    )


def answer(qid: int | str = 1, *windows: tuple[float, float, float], **more: Any) -> Prediction:
    found = list(windows) or [(0.0, 10.0, 0.9)]
    return Prediction(qid=qid, pred_relevant_windows=found, **more)


def annotated(**more: Any) -> Query:
    saliency = vmr.Saliency((0, 1), ((4, 2, 0), (4, 4, 4)), 10, 2.0)
    return query(saliency=saliency, **more)


def kinds(found: vmr.Evaluation) -> dict[str, int]:
    return {oddity.kind: oddity.count for oddity in found.oddities}


def test_a_query_without_a_prediction_counts_as_zero() -> None:
    found = vmr.evaluate([answer(1)], [query(1), query(2)])
    assert found.brief["MR-full-R1@0.5"] == 50.0
    assert found.brief["MR-full-mAP"] == 50.0
    assert kinds(found) == {"no-prediction": 1, "empty-range": 2}


def test_a_prediction_without_windows_counts_as_zero() -> None:
    for empty in ([], None):
        found = vmr.evaluate(
            [answer(1), Prediction(qid=2, pred_relevant_windows=empty)], [query(1), query(2)]
        )
        assert found.brief["MR-full-R1@0.7"] == 50.0
        assert kinds(found)["no-window"] == 1


def test_a_prediction_without_saliency_counts_as_zero() -> None:
    saliency = [0.5] * 10
    found = vmr.evaluate(
        [answer(1, pred_saliency_scores=saliency), answer(2)], [annotated(qid=1), annotated(qid=2)]
    )
    assert found.brief["HL-min-Fair-Hit1"] == 50.0
    assert kinds(found)["no-saliency"] == 1


def test_a_range_without_ground_truth_has_no_number() -> None:
    found = vmr.evaluate([answer(1)], [query(1)])
    assert found.brief["MR-long-mAP"] is None
    assert found.metrics["long"]["MR-R1"]["0.5"] is None
    assert "long" in str(found)
    assert json.loads(json.dumps(found.to_dict()))["measures"]["MR-long-mAP"] is None


@pytest.mark.parametrize(
    ("prediction", "kind", "message"),
    [
        (
            answer(1, (math.nan, 3, 1)),
            "window-not-finite",
            r"finite seconds, got \[nan, 3.0, 1.0\]",
        ),
        (
            answer(1, (0, 3, 1), (9, 3, 1)),
            "window-reversed",
            r"start <= end, got \[9.0, 3.0, 1.0\]",
        ),
        (answer(1, (0, 3, math.inf)), "score-not-finite", r"finite score, got \[0.0, 3.0, inf\]"),
        (
            answer(1, pred_saliency_scores=[0.0] * 3),
            "saliency-length",
            "one saliency score a clip, got 3 for 10 clips",
        ),
    ],
)
def test_accidents_are_refused_or_scored_as_published(
    prediction: Prediction, kind: str, message: str
) -> None:
    prediction.line = 3
    with pytest.raises(
        InputError, match=rf"^predictions, line 3 \(qid 1\): .*{message}.*as-published"
    ):
        vmr.evaluate([prediction], [annotated()])
    found = vmr.evaluate([prediction], [annotated()], as_published=True)
    assert kinds(found)[kind] == 1


def test_a_nan_window_is_a_hit_only_as_published() -> None:
    found = vmr.evaluate([answer(1, (math.nan, 3, 1))], [query()], as_published=True)
    assert found.brief["MR-full-mAP"] == 100.0
    assert found.brief["MR-full-R1@0.5"] == 0.0


def test_duplicate_lines_are_refused_or_scored_as_published() -> None:
    first, second = answer(1, (12, 20, 0.5), line=4), answer(1, (0, 10, 0.9), line=9)
    with pytest.raises(InputError, match=r"line 9 \(qid 1\): expected one line a query"):
        vmr.evaluate([first, second], [query()])
    found = vmr.evaluate([first, second], [query()], as_published=True)
    assert found.brief["MR-full-R1@0.5"] == 100.0  # the last line
    assert found.measures["MR-full-mAP"][0] == 1.0  # the windows of both, by score


def test_an_unknown_query_is_refused_or_left_out() -> None:
    stranger = answer("1", line=5)
    with pytest.raises(
        InputError, match=r"line 5 \(qid '1'\).*query of the ground truth \(1 is there, a number"
    ):
        vmr.evaluate([answer(1), stranger], [query()])
    found = vmr.evaluate([answer(1), stranger], [query()], as_published=True)
    assert found.brief["MR-full-R1@0.5"] == 100.0
    assert kinds(found)["unknown-query"] == 1


def test_scores_that_are_not_numbers_are_never_scored() -> None:
    prediction = answer(1, pred_saliency_scores=[0.0] * 9 + [math.nan], line=2)
    for as_published in (False, True):
        with pytest.raises(InputError, match=r"line 2 \(qid 1\): expected finite saliency scores"):
            vmr.evaluate([prediction], [annotated()], as_published=as_published)


def test_ground_truth_is_looked_over_too() -> None:
    with pytest.raises(InputError, match=r"the ground truth, line 7 \(qid 1\): .*start <= end"):
        vmr.evaluate([answer()], [query(windows=((9.0, 3.0),))])
    with pytest.raises(InputError, match=r"line 7 \(qid 2\): expected at least one window"):
        vmr.evaluate([answer()], [query(), query(2, windows=())])
    found = vmr.evaluate([answer()], [query(), query(2, windows=())], as_published=True)
    assert found.brief["MR-full-R1@0.5"] == 100.0
    with pytest.raises(InputError, match="qid 1 again"):
        vmr.evaluate([answer()], [query(), query()])
    with pytest.raises(InputError, match="expected at least one query"):
        vmr.evaluate([answer()], [])
    with pytest.raises(InputError, match="has no relevant_windows"):
        vmr.evaluate([answer()], [query(windows=None)])


def test_windows_past_the_end_and_unsorted_ones_are_noticed() -> None:
    found = vmr.evaluate([answer(1, (0, 25, 0.1), (0, 10, 0.9), (3, 3, 0.05))], [query()])
    assert kinds(found) == {"window-empty": 1, "window-late": 1, "not-sorted": 1, "empty-range": 2}
    assert found.measures["MR-full-R1@0.5"][0] == 0.0
    assert found.measures["MR-full-mAP"][0] == 1.0


def test_scores_of_a_clip_or_two_too_few_are_noticed() -> None:
    found = vmr.evaluate([answer(pred_saliency_scores=[0.5, 1.0] + [0.0] * 6)], [annotated()])
    assert kinds(found)["saliency-rows"] == 1


def test_windows_of_no_length_overlap_with_nothing() -> None:
    truth = query(windows=((5.0, 5.0),))
    assert vmr.evaluate([answer(1, (3, 3, 1))], [truth]).brief["MR-full-mAP"] == 0.0
    assert (
        vmr.evaluate([answer(1, (3, 3, 1))], [truth], as_published=True).brief["MR-full-mAP"] == 100
    )


def test_numbers_that_are_not_finite_are_no_ground_truth() -> None:
    for windows in (((math.nan, 4.0),), ((0.0, math.inf),)):
        for as_published in (False, True):
            with pytest.raises(InputError, match=r"\(qid 1\): expected windows of finite seconds"):
                vmr.evaluate([answer()], [query(windows=windows)], as_published=as_published)
    record = {"qid": 1, "query": "a", "vid": "v", "duration": 10}
    with pytest.raises(InputError, match="qid 1: expected windows of finite seconds"):
        vmr.evaluate([answer()], [{**record, "relevant_windows": [[math.nan, 4]]}])
    scores = {
        "relevant_clip_ids": [0],
        "saliency_scores": [[math.nan]],
        "relevant_windows": [[0, 4]],
    }
    with pytest.raises(InputError, match="qid 1: expected finite saliency scores in the ground"):
        vmr.evaluate([answer(pred_saliency_scores=[0.5] * 5)], [{**record, **scores}])
    for duration in (math.nan, math.inf, 0.0, 1e300):
        with pytest.raises(InputError, match="expected a duration in seconds above 0"):
            vmr.evaluate([answer()], [query(duration=duration)])


def test_arrays_and_tensors_are_taken() -> None:
    windows = torch.tensor([[0.0, 10.0, 0.9], [4.0, 6.0, 0.5]])
    expected = vmr.evaluate([answer(1, *map(tuple, windows.tolist()))], [query()]).metrics
    for form in (windows, windows.numpy(), list(windows), [list(row) for row in windows]):
        record = {"qid": np.int64(1), "pred_relevant_windows": form}
        assert vmr.evaluate([record], [query()]).metrics == expected
        made = Prediction(qid=1, pred_relevant_windows=form)  # type: ignore[arg-type]
        assert vmr.evaluate([made], [query()]).metrics == expected


@pytest.mark.parametrize("windows", [[(5, 6, 1, 0)], [(4, 1)], [[0, 4]], "no", 3, [("a", 1, 2)]])
def test_records_that_are_not_right_are_refused(windows: Any) -> None:
    with pytest.raises(InputError, match=r"^predictions(, record 1)?: .*[Ee]xpected|could not"):
        vmr.evaluate([Prediction(qid=1, pred_relevant_windows=windows)], [query()])


def test_clips_may_be_annotated_for_some_queries() -> None:
    scores = [1.0] + [0.0] * 9
    predictions = [answer(qid, pred_saliency_scores=scores) for qid in (1, 2)]
    found = vmr.evaluate(predictions, [annotated(), query(2)])
    assert found.count("HL-min-Fair-mAP") == 1
    assert found.brief["HL-min-Fair-Hit1"] == 100.0
    assert kinds(found)["no-truth-saliency"] == 1


def test_annotators_are_the_same_for_all() -> None:
    other = vmr.Saliency((0, 1), ((4, 2), (4, 4)), 10, 2.0)
    predictions = [answer(qid, pred_saliency_scores=[0.0] * 10) for qid in (1, 2)]
    with pytest.raises(
        InputError, match=r"\(qid 2\): expected saliency scores of 3 annotators.*got 2"
    ):
        vmr.evaluate(predictions, [annotated(), query(2, saliency=other)])
    fewer = vmr.Saliency((0, 1), ((4, 2, 1),), 10, 2.0)
    with pytest.raises(InputError, match=r"a row of saliency scores for each of 2 clips, got 1"):
        vmr.evaluate(predictions, [annotated(), query(2, saliency=fewer)])


def test_highlights_alone_are_scored_by_what_they_are() -> None:
    scores = [Prediction(qid=1, pred_saliency_scores=[1.0] + [0.0] * 9)]
    found = vmr.evaluate(scores, [annotated(windows=None)])
    assert found.protocol == "qvhighlights"
    assert found.brief == {
        f"HL-min-{level}-{key}": found.brief[f"HL-min-{level}-{key}"]
        for level in ("Fair", "Good", "VeryGood")
        for key in ("mAP", "Hit1")
    }
    with pytest.raises(InputError, match="no ground truth for the protocol tvsum"):
        vmr.evaluate(scores, [annotated()], protocol="tvsum")
    labels = vmr.Saliency((0, 1), ((1.0,) * 20, (5.0,) * 20), 2, 2.0)
    tvsum = query(windows=None, saliency=labels, duration=4.0)
    with pytest.raises(
        InputError, match="expected the protocol tvsum, univtg or lighthouse, got emb"
    ):
        vmr.evaluate(scores, [tvsum], protocol="emb")


@pytest.mark.parametrize("qid", ["²", "9" * 5000, -1, "1"])
def test_no_query_of_the_ground_truth(qid: int | str) -> None:
    with pytest.raises(InputError, match="none of the 1 predictions is for a query"):
        vmr.evaluate([answer(qid)], [query()], as_published=True)


def test_every_duplicate_line_is_looked_at() -> None:
    predictions = [answer(1, (math.nan, 3, 1), line=4), answer(1, (0, 10, 0.9), line=9)]
    found = vmr.evaluate(predictions, [query()], as_published=True)
    assert kinds(found)["window-not-finite"] == 1
    assert "not-sorted" not in kinds(found)
    unsorted = answer(1, (0, 10, 0.1), (0, 9, 0.5), (0, 8, math.nan))
    assert kinds(vmr.evaluate([unsorted], [query()], as_published=True))["not-sorted"] == 1


def test_shares_instead_of_seconds_are_noticed() -> None:
    assert "not-seconds" in kinds(vmr.evaluate([answer(1, (0.1, 0.5, 1))], [query()]))


def test_ground_truth_after_the_end_is_a_miss_for_emb() -> None:
    late = query(windows=((23.0, 38.0),))
    assert vmr.evaluate([answer(1, (10, 20, 1))], [late], protocol="emb").brief["mIoU"] == 0


def test_recall_at_more_than_one() -> None:
    windows = [(12.0, 14.0, 0.9)] * 5 + [(0.0, 10.0, 0.1)]
    found = vmr.evaluate([answer(1, *windows)], [query()])
    assert [found.mean(f"MR-full-R{top}@0.5") for top in ("1", "5", "any")] == [0, 0, 1]
    assert found.mean("MR-full-mIoU") == 0


def test_official_mappings_are_taken() -> None:
    truth = {"qid": 1, "query": "a", "vid": "v", "duration": 20, "relevant_windows": [[0, 10]]}
    found = vmr.evaluate([{"qid": 1, "pred_relevant_windows": [[0, 10, 1]]}], [truth])
    assert found.brief["MR-full-R1@0.7"] == 100.0
    with pytest.raises(InputError, match=r"predictions, record 1: .*array.*length 3"):
        vmr.evaluate([{"qid": 1, "pred_relevant_windows": [[0, 10]]}], [truth])
    with pytest.raises(InputError, match=r"the ground truth, record 1: .*duration"):
        vmr.evaluate([answer()], [{**truth, "duration": "long"}])


def test_protocols_are_told_apart() -> None:
    with pytest.raises(InputError, match=r"protocol must be one of qvhighlights, .*, got 'best'"):
        vmr.evaluate([answer()], [query()], protocol="best")
    with pytest.raises(InputError, match="limit is for the protocol bm-detr"):
        vmr.evaluate([answer()], [query()], limit=75)
    with pytest.raises(InputError, match="nothing that the protocol emb scores"):
        vmr.evaluate([Prediction(qid=1)], [query()], protocol="emb")
    assert vmr.evaluate([answer()], [query()], protocol="emb").brief == {
        "r1i3": 100.0,
        "r1i5": 100.0,
        "r1i7": 100.0,
        "mIoU": 100.0,
    }


def test_emb_cuts_the_ground_truth_to_the_video() -> None:
    late = query(windows=((10.0, 40.0),))
    found = vmr.evaluate([answer(1, (10, 20, 1))], [late], protocol="emb")
    assert found.brief["mIoU"] == 100.0
    assert vmr.evaluate([answer(1, (10, 20, 1))], [late]).measures["MR-full-mIoU"][0] < 0.5


def scored(seed: int = 0, **how: Any) -> tuple[list[Record], list[Record]]:
    rng = random.Random(seed)
    truth = cases.ground_truth(rng, 60, **how)
    return [cases.prediction(rng, record) for record in truth], truth


def test_groups_hold_every_query_once() -> None:
    predictions, truth = scored()
    found = vmr.evaluate(predictions, truth)
    for what in ("length", "duration", "words"):
        groups = found.by(what)
        assert sum(group.queries for group in groups) == 60
        total = sum((group.values["MR-full-mAP"] or 0) * group.queries for group in groups)
        mean = found.mean("MR-full-mAP")
        assert mean is not None
        assert total / 60 == pytest.approx(100 * mean)
    with pytest.raises(InputError, match="expected one of length, duration, words, domain"):
        found.by("colour")


def test_intervals_hold_the_value_and_follow_the_seed() -> None:
    predictions, truth = scored()
    found = vmr.evaluate(predictions, truth)
    intervals = found.bootstrap(500, seed=1)
    for key, measure in found.headline.items():
        value = found.mean(measure)
        assert value is not None
        assert intervals[key].low <= 100 * value <= intervals[key].high
    assert intervals == found.bootstrap(500, seed=1)
    assert intervals != found.bootstrap(500, seed=2)
    with pytest.raises(InputError, match="at least 100, got 3"):
        found.bootstrap(3)


def test_intervals_are_those_of_whole_videos() -> None:
    # Ten queries of one video that all succeed or all fail are one observation, not ten.
    truth = [query(qid, video=f"v{qid // 10}") for qid in range(200)]
    alike = [answer(qid, (0, 10, 1) if qid // 10 % 2 else (15, 20, 1)) for qid in range(200)]
    apart = [answer(qid, (0, 10, 1) if qid % 2 else (15, 20, 1)) for qid in range(200)]
    wide = vmr.evaluate(alike, truth).bootstrap(500)["MR-full-R1@0.5"]
    narrow = vmr.evaluate(apart, truth).bootstrap(500)["MR-full-R1@0.5"]
    assert wide.high - wide.low > 30
    assert narrow.high - narrow.low == pytest.approx(0)


def test_a_comparison_finds_what_differs() -> None:
    predictions, truth = scored()
    first = vmr.evaluate(predictions, truth)
    same = {found.key: found for found in first.compare(first, 500)}
    assert all(found.p_value == 1 for found in same.values())
    worse = vmr.evaluate(
        [{**record, "pred_relevant_windows": [[0, 1, 1]]} for record in predictions], truth
    )
    found = {difference.key: difference for difference in first.compare(worse, 500)}
    mean = found["MR-full-mAP"]
    assert mean.second < mean.first
    assert mean.interval.high < 0
    assert mean.p_value < 0.01
    assert found["HL-min-Fair-mAP"].p_value == 1
    assert found["HL-min-Fair-mAP"].interval.low == 0
    with pytest.raises(InputError, match="by one protocol"):
        first.compare(vmr.evaluate(predictions, truth, protocol="univtg"))
    with pytest.raises(InputError, match="on the same queries"):
        first.compare(vmr.evaluate(predictions[:30], truth[:30]))


def test_predictions_go_out_and_come_back(tmp_path: Path) -> None:
    predictions = [
        answer(1, (0.0, 1.5, 0.25), query="é", vid="v", pred_saliency_scores=[-1.0]),
        Prediction(qid="two"),
    ]
    path = tmp_path / "out.jsonl"
    vmr.write_predictions(path, predictions)
    read = vmr.read_predictions(path)
    assert [found.line for found in read] == [1, 2]
    for found in read:
        found.line = 0
    assert read == predictions
    assert set(json.loads(path.read_text(encoding="utf-8").splitlines()[0])) == {
        "qid",
        "query",
        "vid",
        "pred_relevant_windows",
        "pred_saliency_scores",
    }
    with pytest.raises(InputError, match="qid 3: a window or score is not a finite number"):
        vmr.write_predictions(path, [answer(3, (0, math.nan, 1))])
    assert len(vmr.read_predictions(path)) == 2


LINE = b'{"qid": 1, "pred_relevant_windows": [[0, 1, 0.5]]}'


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (LINE + b'\n{"qid": 1, "pred', r"line 2: is not JSON: .*column"),
        (LINE + b"\n[1]", "line 2: expected `object`, got `array`"),
        (b'{"query": "a"}', "line 1: object missing required field `qid`"),
        (b'{"qid": 1.5}', "line 1: expected `int | str`, got `float`"),
        (b'{"qid": 1, "pred_relevant_windows": [[0, 1]]}', "line 1: expected `array` of length 3"),
        (b'{"qid": 1, "pred_relevant_windows": [[0, "a", 1]]}', r"`str` - at `\$.pred_relevant"),
        (b'{"qid": 1, "pred_saliency_scores": [null]}', r"`null` - at `\$.pred_saliency"),
        (b'{"qid": 1, "query": "caf\xe9"}', r"line 1: is not UTF-8 \(byte 0xe9"),
        (b"", "is empty"),
        (b"\n \r\n", "is empty"),
        (b"\x1f\x8b\x08\x00", "is gzip-compressed"),
        (b"\x80\x04\x95", "looks like a Python pickle"),
        (b"PK\x03\x04", "is a zip archive"),
        (b"{" * 100_000, "line 1: "),
    ],
)
def test_bad_prediction_files(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "bad.jsonl"
    path.write_bytes(content)
    with pytest.raises(InputError, match=message) as error:
        vmr.evaluate(path, [query()])
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


def test_marks_and_line_ends_of_other_systems_are_read(tmp_path: Path) -> None:
    path = tmp_path / "windows.jsonl"
    path.write_bytes(b"\xef\xbb\xbf" + LINE + b"\r\n\r\n" + LINE.replace(b"1,", b"2,", 1))
    assert [(found.qid, found.line) for found in vmr.read_predictions(path)] == [(1, 1), (2, 3)]


def test_a_file_without_line_ends_is_not_taken_into_memory(tmp_path: Path) -> None:
    path = tmp_path / "huge.jsonl"
    with path.open("wb") as file:
        file.write(b"[")
        file.truncate(2 * 2**30)
    with pytest.raises(InputError, match="line 1: is longer than 64 MiB"):
        vmr.read_predictions(path)


NUMBERS = st.one_of(
    st.floats(), st.integers(-5, 200), st.sampled_from([0.0, math.nan, math.inf, 1e308, -1e308])
)
RECORDS = st.lists(
    st.fixed_dictionaries(
        {"qid": st.integers(0, 4)},
        optional={
            "pred_relevant_windows": st.lists(st.tuples(NUMBERS, NUMBERS, NUMBERS), max_size=4),
            "pred_saliency_scores": st.lists(NUMBERS, max_size=12),
        },
    ),
    max_size=6,
)


TRUTHS = st.lists(
    st.builds(
        Query,
        qid=st.one_of(st.integers(0, 4), st.sampled_from(["0", "²", "a"])),
        video=st.sampled_from(["v", "w"]),
        text=st.text(max_size=3),
        duration=st.one_of(st.floats(0.1, 40), NUMBERS),
        windows=st.one_of(st.none(), st.lists(st.tuples(NUMBERS, NUMBERS), max_size=4).map(tuple)),
        saliency=st.one_of(
            st.none(),
            st.builds(
                vmr.Saliency,
                clip_ids=st.sampled_from([(), (0,), (0, 3)]),
                scores=st.lists(
                    st.lists(st.integers(0, 4), min_size=1, max_size=3).map(tuple), max_size=2
                ).map(tuple),
                clips=st.integers(4, 12),
                clip_seconds=st.just(2.0),
            ),
        ),
    ),
    max_size=4,
)


@settings(max_examples=300, deadline=None)
@given(
    records=RECORDS,
    truth=st.one_of(TRUTHS, st.just([annotated(qid=qid) for qid in range(4)])),
    protocol=st.sampled_from([None, *PROTOCOLS]),
    as_published=st.booleans(),
)
def test_anything_is_scored_or_refused(
    records: list[Record], truth: list[Query], protocol: str | None, as_published: bool
) -> None:
    try:
        with np.errstate(all="ignore"):
            found = vmr.evaluate(records, truth, protocol=protocol, as_published=as_published)
    except VmrError:
        return
    for measure in found.measures:
        value = found.mean(measure)
        # Windows that are not windows overlap with anything, as published.
        assert value is None or as_published or 0 <= value <= 1 + 1e-9
    json.dumps(found.to_dict(), allow_nan=as_published)
    assert str(found)


MUTATED = LINE + b'\n{"qid": 2, "query": "a", "pred_saliency_scores": [0.5, -1e9]}\n'


@settings(
    max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    cut=st.integers(0, len(MUTATED)),
    put=st.binary(max_size=4),
    drop=st.integers(0, 3),
)
def test_any_bytes_are_read_or_refused(tmp_path: Path, cut: int, put: bytes, drop: int) -> None:
    path = tmp_path / "mutated.jsonl"
    path.write_bytes(MUTATED[:cut] + put + MUTATED[cut + drop :])
    try:
        found = vmr.read_predictions(path)
    except InputError as error:
        refusal = str(error)
        found = []
    else:
        refusal = str(path)
    assert str(path) in refusal
    assert all(isinstance(prediction, Prediction) for prediction in found)
