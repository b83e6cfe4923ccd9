"""The metric that a training loop feeds, in one process and in two."""

from __future__ import annotations

import json
import pickle
import random
import subprocess
import sys
from pathlib import Path

import pytest

import vmr
from tests.evaluation import cases
from vmr.evaluation.scoring import as_query


def pairs(count: int) -> tuple[list[vmr.Prediction], list[vmr.Query]]:
    rng = random.Random(5)
    truth = cases.ground_truth(rng, count)
    predictions = [vmr.Prediction(**cases.prediction(rng, record)) for record in truth]
    return predictions, [as_query(record) for record in truth]


def test_batches_add_up() -> None:
    predictions, queries = pairs(30)
    metric = vmr.MomentMetric("qvhighlights")
    for begin in range(0, 30, 7):
        metric.update(predictions[begin : begin + 7], queries[begin : begin + 7])
    assert len(metric) == 30
    assert metric.compute() == vmr.evaluate(predictions, queries).brief
    assert metric.evaluate().queries[0].qid == 0
    metric.update(predictions[:3], queries[:3])  # a sampler's repeats
    assert len(metric) == 30
    metric.reset()
    assert len(metric) == 0
    with pytest.raises(vmr.InputError, match="call update first"):
        metric.compute()


def test_a_new_answer_replaces_the_old() -> None:
    _, queries = pairs(2)
    start, end = queries[0].windows[0]  # type: ignore[index]
    miss = vmr.Prediction(qid=0, pred_relevant_windows=[(59.0, 60.0, 1.0)])
    hit = vmr.Prediction(qid=0, pred_relevant_windows=[(start, end, 1.0)])
    metric = vmr.MomentMetric()
    metric.update([miss], queries[:1])
    assert metric.compute()["MR-full-R1@0.7"] == 0
    metric.update([hit], queries[:1])
    assert metric.compute()["MR-full-R1@0.7"] == 100


def test_a_call_scores_the_batch_and_keeps_it() -> None:
    predictions, queries = pairs(8)
    metric = vmr.MomentMetric()
    metric.update(predictions[:4], queries[:4])
    assert metric(predictions[4:], queries[4:]) == vmr.evaluate(predictions[4:], queries[4:]).brief
    assert len(metric) == 8


def test_accidents_are_refused_at_once() -> None:
    predictions, queries = pairs(3)
    wrong = vmr.Prediction(qid=2, pred_relevant_windows=[(9.0, 3.0, 1.0)])
    metric = vmr.MomentMetric()
    with pytest.raises(vmr.InputError, match="predictions, qid 2: expected a window with start"):
        metric.update([*predictions[:2], wrong], queries)
    assert len(metric) == 0
    published = vmr.MomentMetric(as_published=True)
    published.update([*predictions[:2], wrong], queries)
    assert len(published) == 3


def test_it_can_be_pickled() -> None:
    predictions, queries = pairs(4)
    metric = vmr.MomentMetric("univtg")
    metric.update(predictions, queries)
    assert pickle.loads(pickle.dumps(metric)).compute() == metric.compute()


def test_predictions_must_go_with_the_queries() -> None:
    predictions, queries = pairs(3)
    metric = vmr.MomentMetric()
    with pytest.raises(vmr.InputError, match="one prediction a query, got 2 for 3"):
        metric.update(predictions[:2], queries)
    with pytest.raises(vmr.InputError, match="in the order of the queries, got 1 for 0"):
        metric.update(predictions[1:], queries[:2])
    assert len(metric) == 0
    with pytest.raises(vmr.InputError, match="protocol must be one of"):
        vmr.MomentMetric("best")


WORKER = """
import json, os, sys
import torch.distributed as dist
import vmr
from tests.evaluation.test_metric import pairs

dist.init_process_group("gloo", init_method="file://" + sys.argv[2], rank=int(sys.argv[1]), world_size=2)
predictions, queries = pairs(31)
rank = int(sys.argv[1])
mine = [place % 31 for place in range(rank, 32, 2)]  # the last one is a repeat of the first
metric = vmr.MomentMetric("qvhighlights")
metric.update([predictions[i] for i in mine], [queries[i] for i in mine])
print(json.dumps([len(metric), len(metric.evaluate().queries), metric.compute()]))
dist.destroy_process_group()
"""


def test_two_processes_score_every_query_once(tmp_path: Path) -> None:
    meeting = tmp_path / "meeting"
    workers = [
        subprocess.Popen(
            [sys.executable, "-c", WORKER, str(rank), str(meeting)],
            stdout=subprocess.PIPE,
            text=True,
            cwd=Path(__file__).parents[2],
        )
        for rank in range(2)
    ]
    answers = [json.loads(worker.communicate(timeout=120)[0]) for worker in workers]
    assert all(worker.returncode == 0 for worker in workers)
    predictions, queries = pairs(31)
    expected = vmr.evaluate(predictions, queries).brief
    assert [answer[:2] for answer in answers] == [[16, 31], [16, 31]]
    for _, _, brief in answers:
        assert brief == pytest.approx(expected)
