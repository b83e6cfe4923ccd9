"""Training with negative queries, and with one query a video in every batch."""

from __future__ import annotations

import itertools
import json
import math
import os
import signal
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import vmr
from tests.training.corpus import PACK, write_config, write_corpus
from tests.training.runs import run, weights
from vmr.cli import main
from vmr.data.negatives import NegativeQueries
from vmr.data.records import Query
from vmr.errors import InputError, VmrWarning
from vmr.models.layers.padding import masked_mean, row_mask
from vmr.training import EpochBatches, load_config, set_up, setup

SAME_VIDEO = "data.negatives={rule: same_video}"

# ---- batches ------------------------------------------------------------------------------------------


def videos_of(*counts: int) -> list[str]:
    """Names of as many videos, each as often as its count says, shuffled."""
    names = [f"v{place}" for place, count in enumerate(counts) for _ in range(count)]
    return [names[place] for place in np.random.default_rng(0).permutation(len(names))]


CORPORA = {
    "one each": videos_of(*[1] * 37),
    "two each": videos_of(*[2] * 18, 1),
    "one with many": videos_of(9, 1, 1, 1, 2, 3, 1),
    "as many as batches": videos_of(5, 5, 5, 5, 5, 5, 5, 5),
    "nothing else": videos_of(6),
}


@pytest.mark.parametrize("name", CORPORA)
def test_a_video_never_meets_itself_and_nothing_is_dropped(name: str) -> None:
    videos = CORPORA[name]
    count, most = len(videos), max(Counter(videos).values())
    batches = EpochBatches(count, 8, 3, seed=2, videos=videos)
    drawn: list[Any] = list(batches)
    assert batches.per_epoch == max(math.ceil(count / 8), most)
    assert len(drawn) == len(batches) == batches.steps == 3 * batches.per_epoch
    epochs = [
        drawn[first : first + batches.per_epoch]
        for first in range(0, len(drawn), batches.per_epoch)
    ]
    for epoch in epochs:
        assert sorted(itertools.chain(*epoch)) == list(range(count))
        sizes = [len(batch) for batch in epoch]
        assert max(sizes) - min(sizes) <= 1
        assert max(sizes) == batches.largest <= 8
        for batch in epoch:
            assert len({videos[place] for place in batch}) == len(batch)
    assert epochs[0] != epochs[1]
    for start in (1, batches.per_epoch, batches.steps - 1):
        assert list(EpochBatches(count, 8, 3, seed=2, start=start, videos=videos)) == drawn[start:]


def test_videos_are_dealt_at_random() -> None:
    # Two videos with as many queries as there are batches: their queries meet in any pairs.
    videos = ["a"] * 4 + ["b"] * 4
    met = Counter(
        tuple(sorted(batch))
        for seed in range(300)
        for batch in EpochBatches(8, 2, 1, seed=seed, videos=videos)
    )
    assert len(met) == 16
    assert min(met.values()) > 40
    # The larger batches come anywhere.
    first = Counter(
        len(next(iter(EpochBatches(7, 2, 1, seed=seed, videos=videos[:7])))) for seed in range(200)
    )
    assert first[1] > 20


@pytest.mark.parametrize("world", [1, 2])
@pytest.mark.parametrize("accumulate", [1, 3])
def test_shares_are_of_the_same_batches_and_the_same_negatives(world: int, accumulate: int) -> None:
    videos = CORPORA["two each"]
    queries = [
        Query(qid=place, video=video, text="", duration=9.0) for place, video in enumerate(videos)
    ]
    negatives = NegativeQueries(queries, "other_video")
    made: dict[str, Any] = {"seed": 4, "videos": videos, "negatives": negatives}
    whole: list[Any] = list(EpochBatches(37, 8, 4, **made))
    for start in (0, 7):
        shares: list[Any] = [
            list(
                EpochBatches(
                    37, 8, 4, start=start, rank=rank, world=world, accumulate=accumulate, **made
                )
            )
            for rank in range(world)
        ]
        for step, batch in enumerate(whole[start:]):
            parts = [
                share[step * accumulate + part] for share in shares for part in range(accumulate)
            ]
            assert Counter(itertools.chain(*parts)) == Counter(batch)
            assert all(parts)
    # The order of the queries is another matter: each has its own draw in each epoch.
    plain: list[Any] = list(EpochBatches(37, 8, 4, seed=4, negatives=negatives))
    epochs = [dict(itertools.chain(*plain[first : first + 5])) for first in (0, 5, 10, 15)]
    assert epochs == [dict(itertools.chain(*whole[first : first + 5])) for first in (0, 5, 10, 15)]
    assert all(epochs[0][place] != place for place in range(37))
    moved = sum(epochs[0][place] != epochs[1][place] for place in range(37))
    assert moved > 30
    other: list[Any] = list(EpochBatches(37, 8, 1, seed=5, negatives=negatives))
    assert dict(itertools.chain(*other)) != epochs[0]


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(InputError, match="videos: expected one for each of 9 queries, got 3"):
        EpochBatches(9, 6, 1, videos=["a", "b", "c"])
    with pytest.raises(
        InputError,
        match="9 queries in batches of 6 with one query a video, of which one has 5, make batches of 1, "
        "too few for 2 processes with 1 parts each; take fewer processes or",
    ):
        EpochBatches(9, 6, 1, world=2, videos=videos_of(5, 1, 1, 1, 1))


# ---- runs ---------------------------------------------------------------------------------------------


class Against(vmr.MomentDETR):
    """Reads a sentence less what stands against it."""

    reads_negatives = True
    seen: list[tuple[bool, bool]]  # of each batch: training, whether there are negatives

    def inputs(self, batch: Any) -> dict[str, Any]:
        given = super().inputs(batch)
        self.seen.append((self.training, batch.negative_text is not None))
        if batch.negative_text is not None:
            text: Tensor = batch.negative_text
            words = row_mask(batch.negative_lengths, text.shape[1])
            given["text"] = given["text"] - masked_mean(text, words)[:, None]
        return given


@pytest.fixture
def against(monkeypatch: pytest.MonkeyPatch) -> type[Against]:
    """The model of the config takes negatives."""
    monkeypatch.setattr(setup, "model_type", lambda *_: Against)
    Against.seen = []
    return Against


def test_a_run_with_negatives_goes_on_as_one_left_alone(
    config: str, tmp_path: Path, against: type[Against]
) -> None:
    settings = [SAME_VIDEO, "training.one_query_a_video=true", "training.accumulate=2"]
    run(config, tmp_path / "alone", *settings)
    # Validation has none.
    assert set(against.seen) == {(True, True), (False, False)}

    def interrupt(status: Any) -> None:
        if status.step == 1:
            os.kill(os.getpid(), signal.SIGTERM)

    out = tmp_path / "stopped"
    with pytest.raises(KeyboardInterrupt, match="step 2 of 10 is saved"):
        run(config, out, *settings, watch=interrupt)
    run(config, out, *settings, "data.workers=1")
    first, second = weights(tmp_path / "alone"), weights(out)
    assert all(torch.equal(value, second[name]) for name, value in first.items())
    run(config, out.with_name("other"), *settings, "data.negatives.rule=other_video")
    other = weights(out.with_name("other"))
    assert any(not torch.equal(value, other[name]) for name, value in first.items())


def test_bm_detr_trains_and_goes_on_as_one_left_alone(config: str, tmp_path: Path) -> None:
    """With negatives, dropout, shifts, and what it takes from the pack: all drawn by step."""
    settings = [
        SAME_VIDEO,
        "model.kind=bm-detr",
        "training.one_query_a_video=true",
        "training.accumulate=2",
    ]
    said: list[str] = []
    run(config, tmp_path / "alone", *settings, tell=said.append)
    assert any("negative queries (rule same_video)" in line for line in said)
    stored = json.loads((tmp_path / "alone" / "best" / "config.json").read_text())
    assert stored["config"]["still_columns"] == 2  # the pack has a TEF

    def interrupt(status: Any) -> None:
        if status.step == 1:
            os.kill(os.getpid(), signal.SIGTERM)

    out = tmp_path / "stopped"
    with pytest.raises(KeyboardInterrupt):
        run(config, out, *settings, watch=interrupt)
    run(config, out, *settings)
    first, second = weights(tmp_path / "alone"), weights(out)
    assert all(torch.equal(value, second[name]) for name, value in first.items())
    run(config, tmp_path / "none", "model.kind=bm-detr", "data.negatives=null", tell=said.append)
    assert said[-1] == "negative queries: none, since data.negatives is not set"


def test_other_negatives_are_another_run(config: str, corpus: Path, tmp_path: Path) -> None:
    settings = ["training.epochs=1", "data.negatives={rule: paper, encoder: features}"]
    out = tmp_path / "run"
    with pytest.warns(VmrWarning, match="moment-detr reads no negative queries"):
        run(config, out, *settings)
    inputs = json.loads((out / "run.json").read_text())["inputs"]
    assert len(inputs["negatives"]) == 64
    with pytest.raises(InputError, match=r"data\.negatives\.iou was 0\.5 and is 0\.4"):
        run(config, out, *settings, "data.negatives.iou=0.4")
    with pytest.raises(InputError, match=r"holds another run \(data.negatives"):
        run(config, out, settings[0])
    # The same config, and sentences that all mean one thing: features are not compared, pools are.
    moved = write_corpus(tmp_path / "moved")
    for qid in range(37):
        tokens = np.zeros((4, 16), dtype=np.float32)
        tokens[:, 0] = 1
        np.savez(moved / "text" / f"qid{qid}.npz", last_hidden_state=tokens)
    with pytest.raises(InputError, match="negatives has changed"):
        run(config, out, *settings, f"data.root={moved}")


def test_what_the_command_says(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    config = write_config(write_corpus(tmp_path / "data", train=7, val=6))
    # A third query of a video: more than ceil(7 / 8) batches.
    settings = [SAME_VIDEO, "training.one_query_a_video=true", "training.epochs=1"]
    command = ["train", config, *settings, "--out", str(tmp_path / "run"), "--device", "cpu"]
    assert main(command) == 0
    said = capsys.readouterr().err
    assert (
        said.count("tiny: negative queries (rule same_video): 6 of 7 queries (86%) have a pool")
        == 1
    )
    assert said.count(
        "tiny: one query a video: batches of 4 at most instead of 8, since a video has 2 queries"
    ) == 1  # fmt: skip
    assert main(command) == 0
    assert "one query a video" not in capsys.readouterr().err


def test_sentences_are_read_by_the_encoder_of_the_config(
    config: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    class Encoder:
        name = "numbers"

        def encode(self, texts: list[str]) -> Any:
            # Sentences "topic 0", "topic 1", ...: 2 and 3 say the same, all others nothing alike.
            numbers = [int(text.split()[1]) for text in texts]
            return np.eye(64, dtype=np.float32)[
                [2 if number == 3 else number for number in numbers]
            ]

    def load(spec: str) -> Encoder:
        asked.append(spec)
        return Encoder()

    monkeypatch.setattr(setup, "load_sentence_encoder", load)
    found = []
    for encoder in ("transformers:some/model", "features"):
        made = set_up(load_config(config, [f"data.negatives={{encoder: {encoder}, iou: 1.0}}"]))
        assert made.negatives is not None
        found.append(made.negatives)
    assert asked == ["transformers:some/model"]
    assert [found[0].pool(place).tolist() for place in range(6)] == [[1], [0], [], [], [5], [4]]
    monkeypatch.undo()
    with pytest.raises(InputError, match="sentence encoder: expected embedded, transformers:MODEL"):
        set_up(load_config(config, ["data.negatives={encoder: best}"]))


def test_a_pack_without_tokens_is_refused(tmp_path: Path) -> None:
    config = write_config(write_corpus(tmp_path))
    (tmp_path / "pack.yaml").write_text(PACK.replace("dim: 16}\n", "dim: 16, key: null}\n"))
    with pytest.raises(
        InputError, match=r"data\.negatives: .*pack\.yaml: has no tokens of sentences"
    ):
        set_up(load_config(config, ["data.negatives={}"]))


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("data.negatives={rule: random}", r"data.negatives.rule.*'random'"),
        ("data.negatives={iou: 1.5}", "data.negatives.iou: expected 0 to 1, got 1.5"),
        ("data.negatives={similarity: 2}", "data.negatives.similarity: expected -1 to 1, got 2"),
        ("data.negatives={smilarity: 0.5}", "smilarity.*similarity"),
    ],
)
def test_bad_settings(config: str, setting: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        load_config(config, [setting])
