"""Simulated corpora, on made-up sentences and encoders that answer at once."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from numpy.typing import NDArray

import vmr
from tests.simulation import corpora
from vmr.cache import Cache
from vmr.errors import InputError, VmrWarning
from vmr.simulation import Inputs, Report, Simulation, simulate

SMALL = Simulation(classes=6, dim=64, word_dim=20, hit=0.85)


@pytest.fixture
def inputs(tmp_path: Path) -> Inputs:
    return Inputs(
        train=corpora.write(tmp_path / "a.jsonl", corpora.rows("t", 40, queries=2)),
        val=corpora.write(tmp_path / "b.jsonl", corpora.rows("v", 12, queries=2, first_qid=500)),
        tests=(corpora.write(tmp_path / "far.jsonl", corpora.rows("f", 6, first_qid=900)),),
    )


def made(inputs: Inputs, out: Path, simulation: Simulation = SMALL, **options: Any) -> Report:
    """Simulates; of so few queries the share of hits may be off."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*out of reach")
        return simulate(inputs, out, simulation, encoders=corpora.encoders(), **options)


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def features(out: Path, vid: str) -> NDArray[np.float32]:
    return np.asarray(np.load(out / "video_features" / f"{vid}.npz")["features"])


def with_parameters(**changes: Any) -> Simulation:
    return msgspec.structs.replace(SMALL, **changes)


def test_the_folder_is_a_pack_like_any_other(inputs: Inputs, tmp_path: Path) -> None:
    out = tmp_path / "out"
    made(inputs, out)
    pack = vmr.load_pack(out)
    for split, count in (("train", 80), ("val", 24), ("test", 6)):
        queries = vmr.read_queries(out / f"{split}.jsonl")
        assert len(queries) == count
        check = pack.check(list(queries))
        assert not [finding for finding in check.findings if finding.level != "note"]
        data = vmr.MomentDataset(queries, pack, pooled=True)
        assert data[0].video.shape == (30, 64 + 2)
    query = vmr.read_queries(out / "val.jsonl")[0]
    assert pack.text(query).shape == (len(query.text.split()), 64)
    assert pack.pooled_text(query).shape == (64,)
    glove = vmr.load_pack(out / "pack-glove.yaml")
    glove.prepare([query])
    assert glove.text(query).shape == (len(query.text.split()), 20)
    assert np.linalg.norm(glove.text(query), axis=1).min() > 0
    told = lines(out / "narrations.jsonl")
    assert {line["video"] for line in told} == {
        path.stem for path in (out / "narration_features").iterdir()
    }
    stored = np.load(out / "narration_features" / "t0.npz")
    assert stored["features"].shape == (15, 64)
    assert stored["times"].tolist() == [line["time"] for line in told if line["video"] == "t0"]


def test_the_same_seed_gives_the_same_bytes_and_another_seed_others(
    inputs: Inputs, tmp_path: Path
) -> None:
    for name in ("one", "two"):
        made(inputs, tmp_path / name)
    made(inputs, tmp_path / "three", with_parameters(seed=1))
    one, two = corpora.files(tmp_path / "one"), corpora.files(tmp_path / "two")
    assert one == two
    three = corpora.files(tmp_path / "three")
    assert one["video_features/t0.npz"] != three["video_features/t0.npz"]
    assert one["train.jsonl"] == three["train.jsonl"]


def reworded(inputs: Inputs, folder: Path, text: str, simulation: Simulation) -> set[str]:
    """What changes, but for text features, when the first validation query has other words."""
    assert inputs.val is not None
    made(inputs, folder / "before", simulation)
    query = vmr.read_queries(folder / "before" / "val.jsonl")[0]
    changed = [
        {**row, "query": text.format(row["query"])} if row["qid"] == query.qid else row
        for row in lines(inputs.val)
    ]
    other = msgspec.structs.replace(inputs, val=corpora.write(folder / "changed.jsonl", changed))
    made(other, folder / "after", simulation)
    before, after = (corpora.files(folder / name) for name in ("before", "after"))
    assert before.keys() == after.keys()
    different = {name for name in before if before[name] != after[name]}
    of_text = {
        f"text_features/qid{query.qid}.npz", "val.jsonl", "glove.txt", "simulation.yaml",
        "pack.yaml", "pack-glove.yaml", "report.json",
    }  # fmt: skip
    assert {f"text_features/qid{query.qid}.npz", "val.jsonl"} <= different
    return different - of_text


@pytest.mark.parametrize("kept", [0, 1])
def test_of_an_evaluated_sentence_only_the_number_of_its_class_reaches_frames_and_narrations(
    inputs: Inputs, tmp_path: Path, kept: int
) -> None:
    (tmp_path / "near").mkdir()
    (tmp_path / "far").mkdir()
    parameters = with_parameters(kept=kept)
    # A word more does not move it to another class.
    assert not reworded(inputs, tmp_path / "near", "{} slowly", parameters)
    far = reworded(inputs, tmp_path / "far", "tourists board a ferry in town", parameters)
    assert far == {"video_features/v0.npz", "narration_features/v0.npz", "narrations.jsonl"}


def test_with_timelines_nothing_of_an_evaluated_sentence_reaches_frames_and_narrations(
    inputs: Inputs, tmp_path: Path
) -> None:
    assert inputs.val is not None
    actions: dict[str, Any] = {}
    for path in (inputs.train, inputs.val, *inputs.tests):
        for number, row in enumerate(lines(path)):
            action = [f"c{number % 5}", *row["relevant_windows"][0]]
            actions.setdefault(row["vid"], {"actions": []})["actions"].append(action)
    timelines = tmp_path / "timelines.json"
    timelines.write_text(json.dumps(actions))
    timed = msgspec.structs.replace(inputs, timelines=timelines)
    for number, text in enumerate(("{} slowly", "tourists board a ferry in town", "no")):
        folder = tmp_path / str(number)
        folder.mkdir()
        assert not reworded(timed, folder, text, SMALL)


def test_no_narration_repeats_a_query_of_its_video(inputs: Inputs, tmp_path: Path) -> None:
    def letters(text: str) -> str:
        return "".join(filter(str.isalnum, text.lower()))

    assert inputs.val is not None
    known = sorted({row["query"] for row in lines(inputs.train)})
    row = lines(inputs.val)[0]
    # All that v0 could be told is asked of it; v1 is asked a third, and in other letters.
    asked = [
        *({**row, "qid": 700 + number, "query": text} for number, text in enumerate(known)),
        *(
            {**row, "qid": 800 + number, "vid": "v1", "query": f" {text.title()}!"}
            for number, text in enumerate(known[::3])
        ),
    ]
    said = [
        {**row, "qid": number, "vid": "v1", "query": text}
        for number, text in enumerate((known[0], "a witness"))
    ]
    inputs = msgspec.structs.replace(
        inputs,
        val=corpora.write(tmp_path / "val.jsonl", asked),
        narrations=corpora.write(tmp_path / "said.jsonl", said),
    )
    for dropped in (0.0, 0.3):
        out = tmp_path / str(dropped)
        made(
            inputs,
            out,
            with_parameters(classes=24, hallucinated=0.3, dropped=dropped, narration_seconds=1),
        )
        queries = {
            (query.video, letters(query.text))
            for split in ("train", "val", "test")
            for query in vmr.read_queries(out / f"{split}.jsonl")
        }
        told = lines(out / "narrations.jsonl")
        assert not [line for line in told if (line["video"], letters(line["text"])) in queries]
        of = {
            video: {line["source"] for line in told if line["video"] == video}
            for video in ("v0", "v1")
        }
        assert of == {"v0": {"generic"}, "v1": {"class", "generic", "hallucinated", "witness"}}


def test_a_class_is_known_by_sentences_of_other_videos_alone(
    inputs: Inputs, tmp_path: Path
) -> None:
    from vmr.simulation.classes import Classes, Scene
    from vmr.simulation.vectors import unit

    rng = np.random.default_rng(0)
    latents = unit(rng.standard_normal((5, 8)))
    videos = ["a", "a", "b", "c", "a"]
    members = [(0, 0), (0, 1), (0, 2), (0, 3), (1, 4)]
    classes = Classes(
        2, members, latents, list("vwxyz"), videos, {"a": (Scene(0, 0, 1),)}, filled=False
    )
    assert classes.latent(0, "a") == pytest.approx(unit(latents[2] + latents[3]), abs=1e-6)
    assert classes.latent(0, "new") == pytest.approx(unit(latents[:4].sum(0)), abs=1e-6)
    # Nobody else speaks of the second class: the next that is known stands in.
    assert classes.latent(1, "a") == pytest.approx(classes.latent(0, "a"), abs=1e-6)
    drawn = {classes.sentence(0, "a", rng, lambda text: True) for _ in range(50)}
    assert drawn == {"x", "y"}
    assert {classes.sentence(0, "a", rng, lambda text: text != "x") for _ in range(50)} == {"y"}
    assert classes.sentence(0, "a", rng, lambda text: text not in "xy") is None
    alone = Classes(1, [(0, 0)], latents[:1], ["v"], ["a"], {"a": ()}, filled=False)
    with pytest.raises(InputError, match="about several videos"):
        alone.latent(0, "a")


@pytest.mark.parametrize("asked", [0.5, 0.7, 0.85])
def test_the_share_of_hits_is_as_asked(inputs: Inputs, tmp_path: Path, asked: float) -> None:
    train = corpora.write(tmp_path / "many.jsonl", corpora.rows("m", 150))
    report = simulate(
        Inputs(train=train), tmp_path / "out", with_parameters(hit=asked, classes=16),
        encoders=corpora.encoders(),
    )  # fmt: skip
    assert report.calibration.hit == pytest.approx(asked, abs=0.02)
    # Measured anew on what was written.
    assert report.splits["train"].hit == pytest.approx(asked, abs=0.03)


def test_a_share_out_of_reach_is_said_with_what_was_reached(inputs: Inputs, tmp_path: Path) -> None:
    with pytest.warns(VmrWarning, match=r"hit=0.05 is out of reach: of 80 training queries 0\.\d+"):
        report = simulate(
            inputs, tmp_path / "out", with_parameters(hit=0.05), encoders=corpora.encoders()
        )
    assert not report.calibration.in_reach


def test_each_knob_moves_what_it_is_for(inputs: Inputs, tmp_path: Path) -> None:
    train = Inputs(train=inputs.train)

    def measured(name: str, **changes: Any) -> Any:
        return made(train, tmp_path / name, with_parameters(hit=1, **changes)).splits["train"]

    plain = measured("plain", faint=0)
    assert measured("faint", faint=0.6).overlap > plain.overlap + 0.05
    assert measured("rough", faint=0, coherence=0.1).within < plain.within - 0.02
    assert measured("vague", faint=0, boundary_noise=4.0).across > plain.across + 0.02
    assert plain.boundary_offset < measured("far", faint=0, boundary_noise=4.0).boundary_offset
    assert measured("one", kept=1).queries_a_video == 1


def test_null_windows_belong_to_other_videos_and_nothing_is_left_to_find(
    inputs: Inputs, tmp_path: Path
) -> None:
    report = made(inputs, tmp_path / "out")
    null = made(inputs, tmp_path / "null", with_parameters(null="windows"))
    here, there = (vmr.read_queries(tmp_path / name / "train.jsonl") for name in ("out", "null"))
    assert [query.text for query in here] == [query.text for query in there]
    assert sorted(query.windows for query in here) == sorted(query.windows for query in there)
    moved = [one.windows != other.windows for one, other in zip(here, there, strict=True)]
    assert np.mean(moved) > 0.8
    assert np.array_equal(features(tmp_path / "out", "t0"), features(tmp_path / "null", "t0"))
    found, lost = report.splits["train"], null.splits["train"]
    assert found.hit is not None
    assert lost.hit is not None
    assert lost.chance is not None
    assert lost.auc is not None
    assert lost.hit < lost.chance + 0.15 < found.hit
    assert abs(lost.auc - 0.5) < 0.1


def test_null_narrations_are_the_same_lines_at_other_times(inputs: Inputs, tmp_path: Path) -> None:
    plain = with_parameters(dropped=0)
    made(inputs, tmp_path / "out", plain)
    made(inputs, tmp_path / "null", msgspec.structs.replace(plain, null="narrations"))
    here, there = (lines(tmp_path / name / "narrations.jsonl") for name in ("out", "null"))
    assert here != there
    for video in ("t0", "v3"):
        one, other = ([row for row in rows if row["video"] == video] for rows in (here, there))
        assert sorted(row["text"] for row in one) == sorted(row["text"] for row in other)
        assert [row["time"] for row in one] == [row["time"] for row in other]
    assert np.array_equal(features(tmp_path / "out", "t0"), features(tmp_path / "null", "t0"))


def test_negatives_are_of_the_same_video_and_unrelated_ones_of_others(
    inputs: Inputs, tmp_path: Path
) -> None:
    made(inputs, tmp_path / "out")
    made(inputs, tmp_path / "null", with_parameters(null="negatives"))
    queries = vmr.read_queries(tmp_path / "out" / "train.jsonl").by_qid
    related, unrelated = (
        {row["qid"]: row["neg_query_ids"] for row in lines(tmp_path / name / "negatives.jsonl")}
        for name in ("out", "null")
    )
    assert any(related.values())
    for qid, query in queries.items():
        assert all(queries[other].video == query.video for other in related[qid])
        assert all(queries[other].video != query.video for other in unrelated[qid])
        assert len(related[qid]) == len(unrelated[qid])


def test_narrators_are_other_annotators_and_queries_that_were_not_kept(
    inputs: Inputs, tmp_path: Path
) -> None:
    said = [
        {**row, "qid": 7000 + number, "query": f"a witness says line {number}"}
        for number, row in enumerate(corpora.rows("v", 12, queries=2))
    ]
    # This one is evaluated, whoever says it.
    assert inputs.val is not None
    said[0]["query"] = lines(inputs.val)[0]["query"]
    parameters = with_parameters(witness=1, generic=0, hallucinated=0, dropped=0)
    heard = msgspec.structs.replace(
        inputs, narrations=corpora.write(tmp_path / "others.jsonl", said)
    )
    report = made(heard, tmp_path / "heard", parameters)
    told = lines(tmp_path / "heard" / "narrations.jsonl")
    texts = {row["text"] for row in told if row["source"] == "witness"}
    assert texts <= {row["query"] for row in said[1:]}
    assert len(texts) > 12
    assert report.sources["generic"] == report.sources["hallucinated"] == 0
    made(inputs, tmp_path / "kept", msgspec.structs.replace(parameters, kept=1))
    kept = {query.text for query in vmr.read_queries(tmp_path / "kept" / "val.jsonl")}
    told = lines(tmp_path / "kept" / "narrations.jsonl")
    by_witnesses = [row for row in told if row["source"] == "witness" and row["video"][0] == "v"]
    left = {row["query"] for row in lines(inputs.val)} - kept
    assert by_witnesses
    assert {row["text"] for row in by_witnesses} & left


def test_a_subset_is_whole_videos_and_the_larger_holds_the_smaller(
    inputs: Inputs, tmp_path: Path
) -> None:
    found = {}
    for wanted in (20, 41):
        some = msgspec.structs.replace(inputs, queries=wanted)
        made(some, tmp_path / str(wanted))
        found[wanted] = vmr.read_queries(tmp_path / str(wanted) / "train.jsonl").by_qid
    assert [len(queries) for queries in found.values()] == [20, 42]
    assert set(found[20]) < set(found[41])
    assert len(vmr.read_queries(tmp_path / "20" / "val.jsonl")) == 6
    with pytest.raises(InputError, match="train: expected from 1 to 80 queries, got 81"):
        made(msgspec.structs.replace(inputs, queries=81), tmp_path / "more")


def test_a_run_that_was_stopped_goes_on(inputs: Inputs, tmp_path: Path) -> None:
    made(inputs, tmp_path / "whole")

    class StoppedError(Exception):
        pass

    def stop_at(stage: str, at: int) -> Callable[[str, int, int], None]:
        def progress(name: str, done: int, total: int) -> None:
            if name == stage and done >= at:
                raise StoppedError

        return progress

    out = tmp_path / "out"
    for stage, at in (("encode queries", 1), ("videos", 17), ("queries", 50), ("measure val", 2)):
        with pytest.raises(StoppedError):
            made(inputs, out, progress=stop_at(stage, at))
    (out / ".t0.left-by-a-kill.npz").touch()
    stamp = (out / "video_features" / "t3.npz").stat().st_mtime_ns
    made(inputs, out)
    assert (out / "video_features" / "t3.npz").stat().st_mtime_ns == stamp
    (out / ".t0.left-by-a-kill.npz").unlink()
    assert corpora.files(out) == corpora.files(tmp_path / "whole")


def test_sentences_are_encoded_once(inputs: Inputs, tmp_path: Path) -> None:
    cache = Cache(tmp_path / "cache")
    first, second = corpora.encoders(), corpora.encoders()
    for name, pair, seed in (("one", first, 0), ("two", second, 1)):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", VmrWarning)
            simulate(
                inputs, tmp_path / name, with_parameters(seed=seed), encoders=pair, cache=cache
            )
    for encoder in first:
        assert len(encoder.encoded) == len(set(encoder.encoded)) > 0
    assert not second[0].encoded
    assert not second[1].encoded
