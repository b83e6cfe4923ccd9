"""The parts of a simulation, each by itself; and what is refused."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import vmr
from tests.simulation import corpora
from vmr.errors import BackendError, InputError, VmrWarning
from vmr.simulation import Inputs, Simulation, parse, simulate
from vmr.simulation.calibration import inside
from vmr.simulation.corpus import make_corpus, permuted_windows
from vmr.simulation.randomness import generator
from vmr.simulation.scenes import count_rows, row_shares
from vmr.simulation.statistics import measure
from vmr.simulation.vectors import View, k_means, ridge, unit

SMALL = Simulation(classes=6, dim=64, word_dim=20)


def query(qid: int | str, video: str, *windows: tuple[float, float], **more: Any) -> vmr.Query:
    return vmr.Query(
        qid=qid, video=video, text=f"text {qid}", duration=more.pop("duration", 20.0),
        windows=windows, **more,
    )  # fmt: skip


# ---- vectors ------------------------------------------------------------------------------------------


def test_k_means_finds_clusters_and_gives_the_same_by_the_same_seed() -> None:
    rng = np.random.default_rng(0)
    truth = np.repeat(np.arange(4), 25)
    rows = unit(np.eye(4, 16)[truth] + 0.1 * rng.standard_normal((100, 16)))
    centres, labels = k_means(rows, 4, seed=3)
    assert len({(int(a), int(b)) for a, b in zip(truth, labels, strict=True)}) == 4
    assert np.array_equal((rows @ centres.T).argmax(axis=1), labels)
    again = k_means(rows, 4, seed=3)
    assert np.array_equal(again[0], centres)
    assert np.array_equal(again[1], labels)


def test_k_means_leaves_no_cluster_empty() -> None:
    rows = unit(np.array([[1, 0], [1, 0], [1, 0], [0, 1]], dtype=np.float32))
    assert set(k_means(rows, 4, seed=0)[1]) == {0, 1, 2, 3}


def test_ridge_finds_a_linear_map() -> None:
    rng = np.random.default_rng(0)
    rows = unit(rng.standard_normal((500, 12)))
    there = rows @ np.linalg.qr(rng.standard_normal((12, 12)))[0].astype(np.float32)
    assert (unit(rows @ ridge(rows, there)) * there).sum(axis=1).min() > 0.99


def test_views_of_one_space_keep_angles_and_have_a_gap_between_them() -> None:
    rows = unit(np.random.default_rng(0).standard_normal((200, 32)))
    frames, text = (View(0, name, "shared", 32, 64, 0.3, 1.0) for name in ("frames", "text"))
    other = View(0, "words", "own", 32, 64, 0.3, 1.0)
    seen, read = unit(frames(rows)), unit(text(rows))
    assert (seen @ read.T).argmax(axis=1).tolist() == list(range(200))
    assert np.mean((unit(other(rows)) @ read.T).argmax(axis=1) == np.arange(200)) < 0.1
    # Frames are nearer to any frame than to what they mean.
    assert (seen @ seen.T).mean() > (seen * read).sum(axis=1).mean() - 0.1
    assert (seen @ seen.T).mean() > (seen @ read.T).mean() + 0.3
    bent = View(0, "frames", "shared", 32, 64, 0.3, 0.0)
    both = bent(unit(rows[:1] + rows[1:2]))
    assert not np.allclose(both, unit(bent(rows[:1]) + bent(rows[1:2])), atol=0.01)


def test_random_numbers_depend_on_their_purpose_alone() -> None:
    first = generator(1, "scenes", "a").random()
    generator(1, "scenes", "b").random(100)
    assert generator(1, "scenes", "a").random() == first
    others = [(2, "scenes", "a"), (1, "frames", "a"), (1, "scenes", "b"), (1, "scene", "sa")]
    assert first not in [generator(*other).random() for other in others]


# ---- rows ---------------------------------------------------------------------------------------------


def test_rows_cover_the_video_and_know_how_much_of_them_is_inside() -> None:
    assert [count_rows(duration, 2.0) for duration in (0.3, 2.0, 2.1, 150.0)] == [1, 1, 2, 75]
    shares = row_shares(np.array([(1.0, 4.5), (4.5, 5.0)]), 3, 2.0, 5.0)
    assert shares == pytest.approx(np.array([[0.5, 1.0, 0.5], [0.0, 0.0, 0.5]]))
    assert inside(query(1, "a", (1, 4.5), duration=5.0), 3, 2.0).tolist() == [True, True, True]
    assert inside(query(1, "a", (6.5, 7.1)), 10, 2.0).nonzero()[0].tolist() == [3]
    assert inside(query(1, "a", (9, 3)), 10, 2.0).nonzero()[0].tolist() == [1, 2, 3, 4]
    assert not inside(query(1, "a", (30, 40)), 10, 2.0).any()


def test_the_statistics_of_a_known_pack(tmp_path: Path) -> None:
    """Two videos: in one every frame inside is like the query, in the other none is."""
    frames = np.eye(4, dtype=np.float32)
    for name, order in (
        ("a", [1, 1, 0, 0, 0, 1, 1, 1, 1, 1]),
        ("b", [1, 1, 2, 2, 2, 0, 0, 0, 0, 0]),
    ):
        np.savez(tmp_path / f"{name}.npz", features=frames[order])
    for qid in (1, 2):
        np.savez(tmp_path / f"qid{qid}.npz", pooler_output=frames[0])
    (tmp_path / "pack.yaml").write_text(
        "columns: [x]\nsources: {x: {files: '{vid}.npz'}}\nseconds_per_row: 2\n"
        "text: {files: 'qid{qid}.npz', key: null}\n"
    )
    queries = [query(1, "a", (4, 10)), query(2, "b", (4, 10))]
    found = measure(
        queries, "train", vmr.load_pack(tmp_path), Simulation(dim=4), lambda *told: None
    )
    assert (found.queries, found.videos, found.queries_a_video, found.measured) == (2, 2, 1.0, 2)
    assert (found.hit, found.chance) == (0.5, 0.3)
    assert found.auc == pytest.approx((1 + (2 / 7) / 2) / 2, abs=1e-4)
    assert found.overlap == pytest.approx(0.5 + 5 / 14, abs=1e-4)
    assert (found.within, found.across, found.boundary_offset) == (
        pytest.approx(1.0, abs=1e-3),
        0,
        0,
    )
    assert len(found.bins) == len(found.inside) + 1 == len(found.outside) + 1


# ---- corpora ------------------------------------------------------------------------------------------


def test_qids_that_stand_in_two_splits_get_the_name_of_the_later(tmp_path: Path) -> None:
    files = {"train": [query(1, "a", (0, 5))], "val": [query("1", "b", (0, 5))]}
    with pytest.warns(VmrWarning, match="val: some of its qids .* written as val-1 and so on"):
        corpus = make_corpus(files, SMALL)
    assert [found.qid for part in corpus.splits.values() for found in part] == [1, "val-1"]
    with pytest.raises(InputError, match="train: the qid '1' stands there twice"):
        make_corpus({"train": [query(1, "a", (0, 5)), query("1", "b", (0, 5))]}, SMALL)


def test_permuted_windows_are_stretched_and_bring_their_saliency() -> None:
    saliency = vmr.Saliency((2, 3), ((4.0,), (1.0,)), 10, 2.0)
    here = query(1, "a", (4, 8), saliency=saliency)
    there = query(2, "b", (0, 2), duration=40.0)
    first, second = permuted_windows([here, there], 0, "train")
    assert (first.windows, first.saliency) == (((0.0, 1.0),), None)
    assert second.windows == ((8.0, 16.0),)
    assert second.saliency == vmr.Saliency((4, 5, 6, 7), ((4.0,), (4.0,), (1.0,), (1.0,)), 20, 2.0)


def test_timelines_tell_the_scenes(tmp_path: Path) -> None:
    records = corpora.rows("t", 30)
    actions = {
        row["vid"]: {"duration": 60, "actions": [[f"c{number % 5}", *row["relevant_windows"][0]]]}
        for number, row in enumerate(records)
    }
    (tmp_path / "charades.json").write_text(json.dumps(actions))
    lines = [
        f"{row['vid']} {row['relevant_windows'][0][0]} {row['relevant_windows'][0][1]}##{row['query']}"
        for row in records
    ]
    train = tmp_path / "train.txt"
    train.write_text("\n".join(lines))
    # They are found where the durations are.
    assert Inputs(train=train).found_timelines() == tmp_path / "charades.json"
    with pytest.warns(VmrWarning, match="out of reach"):
        simulate(Inputs(train=train), tmp_path / "out", SMALL, encoders=corpora.encoders())
    claim = (tmp_path / "out" / "simulation.yaml").read_text()
    assert "timelines" in claim
    del actions["t3"]
    (tmp_path / "charades.json").write_text(json.dumps({**actions, "t4": {"actions": []}}))
    lacking = Inputs(train=train, timelines=tmp_path / "other.json", durations=tmp_path / "d.json")
    (tmp_path / "d.json").write_text(json.dumps({row["vid"]: 60 for row in records}))
    (tmp_path / "other.json").write_text(json.dumps(actions))
    assert Inputs(train=train, durations=tmp_path / "d.json").found_timelines() is None
    with pytest.raises(InputError, match=r"actions of 30 videos; 1 are not there: t3"):
        simulate(lacking, tmp_path / "no", SMALL, encoders=corpora.encoders())


# ---- what is refused ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["hits=0.8"], "unknown key hits; did you mean 'hit'"),
        (["hit"], "expected KEY=VALUE"),
        (["hit=often"], "hit: expected `float`, got `str`"),
        (["hit=1.5"], "`hit` must be from 0 to 1, got 1.5"),
        (["classes=0"], "`classes` must be >= 1"),
        (["coherence=1"], "`coherence` must be >= 0 and < 1"),
        (["row_seconds=0"], "`row_seconds` must be > 0"),
        (["gap=-1"], "`gap` must be >= 0"),
        (["null=everything"], "null: expected one of .*windows; got 'everything'"),
        (["generic=0.6", "hallucinated=0.6"], "together must be <= 1"),
    ],
)
def test_wrong_parameters_are_named(settings: list[str], message: str) -> None:
    with pytest.raises(InputError, match=message):
        parse(settings)


def test_parameters_are_set_by_name() -> None:
    found = parse(["hit=0.8", "null=windows", "seed=3", "gap=2"])
    assert (found.hit, found.null, found.seed, found.gap) == (0.8, "windows", 3, 2.0)
    assert parse([]) == Simulation()


def test_annotations_without_windows_words_or_names_for_files(tmp_path: Path) -> None:
    records = corpora.rows("t", 20)

    def attempt(**change: Any) -> None:
        rows = [dict(records[0], **change), *records[1:]]
        train = corpora.write(tmp_path / "train.jsonl", rows)
        simulate(Inputs(train=train), tmp_path / "out", SMALL, encoders=corpora.encoders())

    with pytest.raises(InputError, match=r"train\.jsonl: qid 0: expected a window, got none"):
        attempt(relevant_windows=None)
    with pytest.raises(InputError, match="video 'x/y': cannot be the name of a file"):
        attempt(vid="x/y")
    with pytest.raises(InputError, match="qid 'x/y': cannot be the name of a file"):
        attempt(qid="x/y")
    assert not (tmp_path / "out").exists()
    with pytest.warns(VmrWarning, match="1 queries have no words"):
        attempt(query=" ")
    assert len(vmr.read_queries(tmp_path / "out" / "train.jsonl")) == 19


def test_folders_of_something_else(tmp_path: Path) -> None:
    train = corpora.write(tmp_path / "train.jsonl", corpora.rows("t", 20))
    inputs = Inputs(train=train)
    other = tmp_path / "other"
    other.mkdir()
    (other / "notes.txt").write_text("mine")
    with pytest.raises(InputError, match=r"is not empty and holds no simulation\.yaml"):
        simulate(inputs, other, SMALL, encoders=corpora.encoders())
    with pytest.raises(InputError, match="expected a folder, got a file"):
        simulate(inputs, train, SMALL, encoders=corpora.encoders())
    out = tmp_path / "out"
    simulate(
        inputs,
        out,
        parse(["classes=6", "dim=64", "word_dim=20", "hit=0.4"]),
        encoders=corpora.encoders(),
    )
    before = corpora.files(out)
    with pytest.raises(InputError, match=r"parameters\.hit is 0\.4 there, and 0\.5 is asked for"):
        simulate(
            inputs,
            out,
            parse(["classes=6", "dim=64", "word_dim=20", "hit=0.5"]),
            encoders=corpora.encoders(),
        )
    corpora.write(train, corpora.rows("t", 21))
    with pytest.raises(InputError, match="holds another simulation: about"):
        simulate(
            inputs,
            out,
            parse(["classes=6", "dim=64", "word_dim=20", "hit=0.4"]),
            encoders=corpora.encoders(),
        )
    assert corpora.files(out) == before


def test_more_classes_than_sentences_and_splits_of_one_name(tmp_path: Path) -> None:
    train = corpora.write(tmp_path / "train.jsonl", corpora.rows("t", 20))
    with pytest.raises(
        InputError, match=r"at most one a different training sentence \(\d+\), got 100"
    ):
        simulate(Inputs(train=train), tmp_path / "out", encoders=corpora.encoders())
    assert not (tmp_path / "out").exists()
    with pytest.raises(InputError, match="named after its file, and 'train' is taken"):
        simulate(Inputs(train=train, tests=(train, train)), tmp_path / "out", SMALL)


def test_models_that_are_not_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from vmr.backends import packages

    train = corpora.write(tmp_path / "train.jsonl", corpora.rows("t", 20))
    monkeypatch.setattr(packages, "installed_version", lambda package: None)
    with pytest.raises(BackendError, match="is not installed; run `vmr models install`"):
        simulate(Inputs(train=train), tmp_path / "out", SMALL)
    assert not (tmp_path / "out").exists()


def test_the_command_line_says_what_is_wrong_with_exit_code_3(tmp_path: Path) -> None:
    train = corpora.write(tmp_path / "train.jsonl", corpora.rows("t", 5))
    command = [sys.executable, "-m", "vmr", "data", "simulate", "--train", str(train)]
    command += ["--out", str(tmp_path / "out"), "hitt=0.8"]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (run.returncode, run.stdout) == (3, "")
    assert "unknown key hitt; did you mean 'hit'?" in run.stderr
