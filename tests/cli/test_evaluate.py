"""``vmr evaluate`` as a user meets it: a process, its output, its exit code."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from importlib import resources
from pathlib import Path

import jsonschema
import pytest

from tests.evaluation import cases
from vmr.cli import evaluate as command
from vmr.evaluation.protocols import PROTOCOLS
from vmr.evaluation.statistics import _GROUPINGS


def vmr(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "vmr", "evaluate", *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Path]:
    """Predictions, ground truth, other predictions."""
    folder = tmp_path_factory.mktemp("evaluate")
    rng = random.Random(3)
    truth = cases.ground_truth(rng, 40)
    first = [cases.prediction(rng, record) for record in truth]
    second = [cases.prediction(rng, record, 3) for record in truth]
    paths = []
    for name, records in (("first", first), ("truth", truth), ("second", second)):
        path = folder / f"{name}.jsonl"
        path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
        paths.append(path)
    return paths[0], paths[1], paths[2]


def test_the_table_names_the_protocol_and_the_numbers(files: tuple[Path, Path, Path]) -> None:
    run = vmr(files[0], files[1])
    assert run.returncode == 0
    assert run.stderr == ""
    for word in (
        "protocol qvhighlights",
        "R1@0.5",
        "mAP@0.75",
        "mIoU",
        "middle",
        "VeryGood",
        "Hit1",
    ):
        assert word in run.stdout


def test_json_fits_its_schema_and_says_all(files: tuple[Path, Path, Path], tmp_path: Path) -> None:
    picture = tmp_path / "recall.png"
    run = vmr(
        *files[:2], "--json", "--by", "length,duration,words", "--bootstrap", "200",
        "--compare", files[2], "--plot", picture,
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    found = json.loads(run.stdout)
    schema = resources.files("vmr") / "schemas" / "evaluation-1.json"
    jsonschema.validate(found, json.loads(schema.read_text(encoding="utf-8")))
    assert next(iter(found["metrics"])) == "brief"
    assert set(found["by"]) == {"length", "duration", "words"}
    assert set(found["intervals"]) == set(found["metrics"]["brief"])
    assert found["comparison"]["with"] == str(files[2])
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_text_says_the_same(files: tuple[Path, Path, Path]) -> None:
    run = vmr(*files[:2], "--by", "words", "--bootstrap", "200", "--compare", files[2])
    for word in ("95% interval", "by words", "1 to 5 words", "difference", f"second: {files[2]}"):
        assert word in run.stdout


@pytest.mark.parametrize("protocol", ["qvhighlights", "lighthouse", "univtg", "bm-detr", "emb"])
def test_protocols_have_their_own_keys(files: tuple[Path, Path, Path], protocol: str) -> None:
    found = json.loads(vmr(*files[:2], "--protocol", protocol, "--json").stdout)
    assert found["protocol"] == protocol
    assert list(found["metrics"]["brief"]) == [key for key, _ in PROTOCOLS[protocol].brief]


def test_torch_is_not_imported(files: tuple[Path, Path, Path]) -> None:
    script = (
        "import sys, vmr.cli\n"
        "vmr.cli.main(['evaluate', *sys.argv[1:]])\n"
        "heavy = {'torch', 'cv2', 'matplotlib', 'rich', 'h5py'} & set(sys.modules)\n"
        "print('heavy:', heavy, file=sys.stderr)"
    )
    run = subprocess.run(
        [sys.executable, "-c", script, *map(str, files[:2])],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert "heavy: set()" in run.stderr


def test_errors_name_file_and_line(files: tuple[Path, Path, Path], tmp_path: Path) -> None:
    bad = tmp_path / "bad.jsonl"
    lines = files[0].read_text(encoding="utf-8").splitlines()
    record = json.loads(lines[4])
    record["pred_relevant_windows"][0][:2] = [9, 3]
    bad.write_text("\n".join([*lines[:4], json.dumps(record), *lines[5:]]), encoding="utf-8")
    run = vmr(bad, files[1])
    assert run.returncode == 3
    assert run.stdout == ""
    assert f"{bad}, line 5 (qid 4): expected a window with start <= end" in run.stderr
    assert "--as-published" in run.stderr
    run = vmr(bad, files[1], "--as-published")
    assert run.returncode == 0
    assert "1 x window that ends before it starts" in run.stdout
    for arguments in (
        (tmp_path / "none.jsonl", files[1]),
        (files[0], files[0]),
        (files[1], files[1]),
        (*files[:2], "--plot", tmp_path / "no" / "folder.png"),
        (*files[:2], "--limit", "75"),
        (*files[:2], "--limit", "nan", "--protocol", "bm-detr"),
        (*files[:2], "--protocol", "tvsum"),
        (*files[:2], "--by", "domain"),
    ):
        run = vmr(*arguments)
        assert run.returncode in (3, 6)
        assert run.stderr.startswith("vmr: error: ")
        assert run.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--by", "colour"], "expected some of length, duration, words, domain, got 'colour'"),
        (["--bootstrap", "1"], "expected a whole number from 100, got '1'"),
        (["--plot", "recall.txt"], "expected a name in .png, .svg or .pdf, got 'recall.txt'"),
        (["--protocol", "best"], "invalid choice: 'best'"),
    ],
)
def test_wrong_options_are_refused_before_any_work(arguments: list[str], message: str) -> None:
    run = vmr("no.jsonl", "no.jsonl", *arguments)
    assert run.returncode == 2
    assert message in run.stderr


def test_what_is_odd_in_the_other_file_is_said(
    files: tuple[Path, Path, Path], tmp_path: Path
) -> None:
    half = tmp_path / "half.jsonl"
    half.write_text("\n".join(files[2].read_text().splitlines()[:20]), encoding="utf-8")
    run = vmr(*files[:2], "--compare", half)
    assert "noticed in the second:\n  20 x query without a prediction" in run.stdout
    document = json.loads(vmr(*files[:2], "--compare", half, "--json").stdout)
    kinds = [oddity["kind"] for oddity in document["comparison"]["oddities"]]
    assert "no-prediction" in kinds


def test_the_options_are_those_of_the_library() -> None:
    assert tuple(PROTOCOLS) == command._PROTOCOLS
    assert tuple(_GROUPINGS) == command._GROUPS
