"""Comparisons: treated alike, chosen on validation, and differences with honest intervals."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import jsonschema
import msgspec
import numpy as np
import pytest
from scipy import stats

import vmr
from tests.training.corpus import write_corpus
from vmr.cli import main
from vmr.data.annotations import write_queries
from vmr.errors import InputError
from vmr.evaluation import evaluate
from vmr.training import Status, fairness, load_config
from vmr.training.comparison import compare
from vmr.training.comparison_report import Comparison, comparison_table
from vmr.training.fairness import check_fair, open_side
from vmr.viz import curves

CONFIG = """\
name: {name}
model:
  {{kind: moment-detr, hidden: 8, heads: 2, encoder_layers: 1, decoder_layers: 1, feed_forward: {width},
   moment_queries: 4}}
data:
  {{root: {root}, train: "{{root}}/train.jsonl", val: "{{root}}/val.jsonl", test: "{{root}}/test.jsonl"}}
training: {{epochs: 1, batch_size: 40, optimiser: {{lr: 1.0e-3}}, clip: 0.1, checkpoint_minutes: 0}}
"""
TRY = "training.optimiser.lr=1e-3,1e-2"


def make_quick(patch: pytest.MonkeyPatch) -> None:
    # A thousand queries a run would take minutes, and so would its pictures.
    patch.setattr(fairness, "MINIMUM_QUERIES", 150)
    patch.setattr(curves, "save_curves", lambda *arguments: None)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    make_quick(monkeypatch)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = write_corpus(tmp_path_factory.mktemp("corpus"), train=160, val=60)
    held = list(vmr.read_queries(root / "val.jsonl"))
    write_queries(root / "val.jsonl", held[:30])
    write_queries(root / "test.jsonl", held[30:])
    return root


@dataclass
class Sides:
    full: str
    rival: str
    similarity: str


@pytest.fixture(scope="module")
def sides(corpus: Path) -> Sides:
    paths = {}
    for name, width in (("full", 8), ("rival", 10)):
        paths[name] = corpus / f"{name}.yaml"
        paths[name].write_text(CONFIG.format(name=name, width=width, root=corpus))
    like = corpus / "similarity.yaml"
    head, _, rest = paths["full"].read_text().partition("model:")
    head = head.replace("full", "similarity")
    like.write_text(f"{head}model: {{kind: similarity}}\n{rest[rest.index('data:') :]}")
    return Sides(str(paths["full"]), str(paths["rival"]), str(like))


@dataclass
class Done:
    """A comparison that was interrupted in its second run and went on."""

    out: Path
    found: Comparison
    names: list[str]


class Shown:
    """Counts runs, and interrupts one."""

    def __init__(self, interrupt_in: int = 0) -> None:
        self.names: list[str] = []
        self.trained: list[str] = []
        self.interrupt_in = interrupt_in

    @contextmanager
    def __call__(self, name: str) -> Iterator[Shown]:
        self.names.append(name)
        yield self

    def watch(self, status: Status) -> None:
        self.trained.append(self.names[-1])
        if len(self.names) == self.interrupt_in and status.step == status.steps:
            raise KeyboardInterrupt

    def progress(self, stage: str, done: int, total: int) -> None:
        pass


@pytest.fixture(scope="module")
def done(sides: Sides, tmp_path_factory: pytest.TempPathFactory) -> Done:
    out = tmp_path_factory.mktemp("comparisons") / "first"
    with pytest.MonkeyPatch.context() as patch:
        make_quick(patch)
        arguments: dict[str, Any] = {"tries": [TRY], "device": "cpu", "command": "vmr compare"}
        with pytest.raises(KeyboardInterrupt):
            compare([sides.full, sides.rival], out, shown=Shown(2), **arguments)
        first = out / "full" / "training.optimiser.lr=1e-3" / "seed0" / "results.json"
        before = first.read_bytes()
        assert not (out / "comparison.json").exists()
        shown = Shown()
        found = compare([sides.full, sides.rival], out, shown=shown, **arguments)
        # The first run was trained already, and the second had only its end to do.
        after = json.loads(first.read_bytes())
        assert {**after, "metrics": None, "seconds": 0} == {
            **json.loads(before), "metrics": None, "seconds": 0,
        }  # fmt: skip
        assert not any(name.startswith(("1/", "2/")) for name in shown.trained)
        assert any(name.startswith("3/") for name in shown.trained)
        return Done(out, found, shown.names)


# ---- a whole comparison -------------------------------------------------------------------------------


def test_every_side_runs_every_trial_and_the_best_one_again(done: Done) -> None:
    assert len(done.names) == 2 * (2 + 1 + 2) + 3 + 1  # and the differences
    assert done.names[0] == "1/13 full, training.optimiser.lr=1e-3, seed 0"
    assert [side.name for side in done.found.sides] == ["full", "rival", "window-prior"]
    for side in done.found.sides[:2]:
        results = {
            trial.name: json.loads(
                (done.out / side.name / trial.name / "seed0" / "results.json").read_bytes()
            )
            for trial in side.trials
        }
        best = max(results, key=lambda name: results[name]["best"]["value"])
        assert side.chosen == best
        assert [trial.value for trial in side.trials] == [
            found["best"]["value"] for found in results.values()
        ]
        folders = [f"{side.name}/{best}/seed{seed}" for seed in (0, 1, 2)]
        assert [run.folder for run in side.runs] == folders
        other = next(name for name in results if name != best)
        # Only what validation chose is tested.
        assert set(results[best]["metrics"]) == {"val", "test"}
        assert set(results[other]["metrics"]) == {"val"}
        assert not (done.out / side.name / other / "seed0" / "test_predictions.jsonl").exists()
        assert sum(name.endswith(f"{side.name}, {best}, seed 0, test") for name in done.names) == 1
        assert {path.name for path in (done.out / side.name / other).iterdir()} == {"seed0"}
        for run in side.runs:
            found = json.loads((done.out / run.folder / "results.json").read_bytes())
            assert (run.seed, run.steps, run.test) == (
                found["seed"], found["steps"], found["metrics"]["test"],
            )  # fmt: skip
        settings = load_config(str(done.out / side.runs[1].folder / "config.yaml"))
        assert (
            f"training.optimiser.lr=1e-{round(-np.log10(settings.training.optimiser.lr))}" == best
        )
        assert settings.training.seed == 1
    prior = done.found.sides[2]
    assert (prior.yardstick, prior.parameters, prior.chosen) == (True, 0, "default")


def test_differences_are_those_of_the_predictions(done: Done, corpus: Path) -> None:
    truth = vmr.read_queries(corpus / "test.jsonl")
    values = {}
    for side in done.found.sides:
        rows = [
            evaluate(done.out / run.folder / "test_predictions.jsonl", truth).measures[
                "MR-full-mAP"
            ]
            for run in side.runs
        ]
        values[side.name] = 100 * np.stack(rows)
    for gain in done.found.gains:
        metric = gain.metrics["MR-full-mAP"]
        by_query = values["full"] - values[gain.over]
        assert metric.by_seed == pytest.approx(by_query.mean(axis=1))
        assert metric.difference == pytest.approx(by_query.mean())
        assert metric.reference - metric.other == pytest.approx(metric.difference)
        low, high = _direct(by_query, [query.video for query in truth])
        assert (metric.low, metric.high) == pytest.approx((low, high))


def _direct(by_query: np.ndarray[Any, Any], videos: Sequence[str]) -> tuple[float, float]:
    """The interval by its definition, of [seeds, queries] differences."""
    mean, names = by_query.mean(), sorted(set(videos))
    rest = by_query.mean(axis=0) - mean
    squares = [sum(rest[i] for i, own in enumerate(videos) if own == name) ** 2 for name in names]
    one = sum(squares) * len(names) / (len(names) - 1) / len(videos) ** 2
    two = by_query.mean(axis=1).var(ddof=1) / len(by_query)
    freedom = (one + two) ** 2 / (one**2 / (len(names) - 1) + two**2 / (len(by_query) - 1))
    low, high = stats.t.interval(0.95, freedom, loc=mean, scale=np.sqrt(one + two))
    return float(low), float(high)


def test_what_is_written_and_said(done: Done) -> None:
    report = json.loads((done.out / "comparison.json").read_bytes())
    schema = resources.files("vmr") / "schemas" / "comparison-1.json"
    jsonschema.validate(report, json.loads(schema.read_text(encoding="utf-8")))
    assert report == json.loads(msgspec.json.encode(done.found))
    assert report["queries"] == {"train": 160, "val": 30, "test": 30}
    text = (done.out / "comparison.txt").read_text(encoding="utf-8")
    assert text == comparison_table(done.found) + "\n"
    for words in (
        "full (reference)", "window-prior (yardstick)", "160 train, 30 val, 30 test", "- rival",
        "over 3 seeds", "test, seed 2", "* training.optimiser.lr", "parameters", "steps a run",
    ):  # fmt: skip
        assert words in text
    # Four steps teach nothing.
    assert not done.found.conclusive
    assert text.splitlines()[0].startswith(
        "INCONCLUSIVE: full does not beat the window prior on validation: MR-full-mAP "
    )
    beaten = msgspec.structs.replace(done.found, conclusive=True)
    assert comparison_table(beaten) in text
    assert "INCONCLUSIVE" not in comparison_table(beaten)


def test_started_again_it_trains_nothing(
    done: Done, sides: Sides, capsys: pytest.CaptureFixture[str]
) -> None:
    def written() -> dict[Path, int]:
        return {
            path: path.stat().st_mtime_ns
            for path in done.out.glob("*/*/*/**/*")
            if path.is_file() and path.name != ".lock"
        }

    before = written()
    arguments = ["compare", sides.full, sides.rival, "--try", TRY, "--out", str(done.out)]
    assert main([*arguments, "--device", "cpu", "--json"]) == 0
    printed = capsys.readouterr()
    again = json.loads(printed.out)
    assert {**again, "command": ""} == {
        **json.loads(msgspec.json.encode(done.found)), "command": "",
    }  # fmt: skip
    assert written() == before
    for changed, words in (
        (["--seeds", "0,1,3"], r"seeds were [0, 1, 2] and are [0, 1, 3]"),
        (["--ablation"], "ablation were False and are True"),
    ):
        assert main([*arguments, *changed]) == InputError.exit_code
        assert f"holds another comparison ({words})" in capsys.readouterr().err


def test_a_reference_that_beats_the_prior(
    sides: Sides, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["compare", sides.similarity, "evaluation.batch_size=50", "--device", "cpu"]
    assert main([*arguments, "--out", str(tmp_path / "out")]) == 0
    assert "INCONCLUSIVE" not in capsys.readouterr().out
    found = json.loads((tmp_path / "out" / "comparison.json").read_bytes())
    assert found["conclusive"]
    assert found["over_prior"]["metrics"]["MR-full-mAP"]["low"] > 0
    # Nothing is drawn, so that the seeds are as one.
    (gain,) = found["gains"]
    assert len(set(gain["metrics"]["MR-full-mAP"]["by_seed"])) == 1
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("mine")
    assert main([*arguments, "--out", str(tmp_path / "mine")]) == InputError.exit_code
    assert "is not empty and holds no comparison (thesis.txt" in capsys.readouterr().err


@pytest.mark.slow
def test_two_processes_make_one_comparison(
    sides: Sides, corpus: Path, tmp_path: Path, done: Done
) -> None:
    script = (
        "import sys\n"
        "from vmr.cli import main\n"
        "from vmr.training import fairness\n"
        "fairness.MINIMUM_QUERIES = 150\n"
        "sys.exit(main(sys.argv[1:]))\n"
    )
    (tmp_path / "start.py").write_text(script)
    run = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2",
         tmp_path / "start.py", "compare", sides.full, sides.rival, "--out", tmp_path / "out",
         "--device", "cpu"],
        capture_output=True, text=True, check=False, timeout=300,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    assert run.stdout.count("of each seed") == 1
    found = json.loads((tmp_path / "out" / "comparison.json").read_bytes())
    prior = json.loads(msgspec.json.encode(done.found.sides[2]))
    assert [one["test"] for one in found["sides"][2]["runs"]] == [
        one["test"] for one in prior["runs"]
    ]


# ---- treated alike ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            "model.feed_forward=64",
            r"parameters: full has 2,\d+, and other 3,\d+, \+\d+%; expected wi",
        ),
        ("training.epochs=2", r"steps: full has 4, and other 8, \+100%; expected within 10%$"),
        ("training.batch_size=80", r"steps: full has 4, and other 2, -50%"),
        (
            "training.early_stopping.patience=2",
            "early_stopping: full has none, and other patience 2",
        ),
        ("evaluation.every=2", "evaluation.every: full has 1, and other 2"),
        ("data.val={root}/train.jsonl", "data.val: the annotations of full and other differ"),
        ("data.val={root}/test.jsonl", "data.test: expected other annotations than data.val's"),
        ("data.train={root}/val.jsonl", "data.train: the annotations of full and other differ"),
        (
            "evaluation.metric=MR-full-R1@0.5",
            "metric: full has MR-full-mAP, and other MR-full-R1@0.5",
        ),
        ("evaluation.protocol=lighthouse", "protocol: full has qvhighlights, and other lighthouse"),
        (
            "data.test=null",
            "config other: a comparison tests what validation chose; expected data.t",
        ),
    ],
)
def test_sides_that_are_not_alike(sides: Sides, tmp_path: Path, change: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        compare([sides.full, _other(sides, tmp_path, change)], tmp_path / "out", device="cpu")
    assert not (tmp_path / "out").exists()


def _other(sides: Sides, folder: Path, change: str) -> str:
    """The full side with another name and another setting."""
    config = msgspec.to_builtins(load_config(sides.full, ["name=other", change]))
    path = folder / "other.yaml"
    path.write_text(json.dumps(config))
    return str(path)


def test_an_ablation_may_have_other_parameters_but_no_other_steps(sides: Sides) -> None:
    def side(*more: str) -> fairness.Side:
        return open_side(lambda tried: load_config(sides.full, [*more, *tried]), [()])

    full, large = side(), side("name=large", "model.feed_forward=64")
    check_fair([full, large], ablation=True)
    check_fair([full, side("name=near", "model.feed_forward=10")], ablation=False)
    like = open_side(lambda tried: load_config(sides.similarity, tried), [(), ("training.clip=1",)])
    # A yardstick costs what it costs, and is not tuned.
    check_fair([full, like], ablation=False)
    assert len(like.trials) == 1
    with pytest.raises(InputError, match="steps: full has 4, and large 8"):
        check_fair([full, side("name=large", "training.epochs=2")], ablation=True)


def test_too_few_queries(sides: Sides, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    with pytest.raises(InputError, match=r"expected at least 1,000 queries, got 160"):
        compare([sides.full], tmp_path / "out", device="cpu")


def test_a_test_split_without_ground_truth(sides: Sides, corpus: Path, tmp_path: Path) -> None:
    lines = [json.loads(line) for line in (corpus / "test.jsonl").read_text().splitlines()]
    for line in lines:
        for name in ("relevant_windows", "relevant_clip_ids", "saliency_scores"):
            line.pop(name, None)
    secret = tmp_path / "secret.jsonl"
    secret.write_text("".join(json.dumps(line) + "\n" for line in lines))
    with pytest.raises(InputError, match=r"secret.jsonl: expected ground truth, and it has none"):
        compare([sides.full], tmp_path / "out", settings=[f"data.test={secret}"], device="cpu")


@pytest.mark.parametrize("split", ["val", "test"])
def test_a_split_of_one_video(sides: Sides, corpus: Path, tmp_path: Path, split: str) -> None:
    video = vmr.read_queries(corpus / f"{split}.jsonl")[0].video
    queries = [one for one in vmr.read_queries(corpus / f"{split}.jsonl") if one.video == video]
    write_queries(tmp_path / "one.jsonl", queries)
    with pytest.raises(
        InputError, match=f"data.{split}: expected ground truth of two videos or more"
    ):
        compare(
            [sides.full], tmp_path / "out",
            settings=[f"data.{split}={tmp_path / 'one.jsonl'}"], device="cpu",
        )  # fmt: skip


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"seeds": (0, 1)}, "seeds: expected at least 3 different ones, got 0, 1"),
        ({"seeds": (0, 1, 1)}, "at least 3 different ones, got 0, 1, 1"),
        ({"seeds": (0, 1, -1)}, "seeds: expected 0 to 2147483647, got -1 to 1"),
        ({"settings": ["training.seed=3"]}, "training.seed=3: a comparison has several seeds"),
        ({"settings": ["name=x"]}, "expected a name of its own for each side, got 'x' 2 times"),
        ({"tries": ["training.clip"]}, r"--try training.clip: expected KEY=V1,V2"),
        ({"tries": ["training.clip=1,1"]}, "with different values"),
        ({"tries": ["data.root=a,b"]}, "expected a key of model or training"),
        ({"tries": ["training.seed=1,2"]}, "expected a key of model or training"),
        ({"tries": ["training.clip=1,2", "training.clip=3"]}, "all values of training.clip in one"),
        ({"tries": ["training.epochs=1,2"]}, "full has 4, and full with training.epochs=2 8, .*rival w"),
        ({"settings": ["evaluation.metric=mAP"]}, "evaluation.metric: expected a headline number"),
        ({"tries": ["training.clip=1,x"]}, "training.clip: expected `float"),
    ],
)  # fmt: skip
def test_bad_arguments(
    sides: Sides, tmp_path: Path, arguments: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        compare([sides.full, sides.rival], tmp_path / "out", device="cpu", **arguments)
