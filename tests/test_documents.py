"""The README's Python and the notebooks run, and no document points nowhere."""

from __future__ import annotations

import json
import random
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.evaluation import cases
from vmr.backends.packages import PACKAGES, demo_video, status

ROOT = Path(__file__).parent.parent
DOCUMENTS = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])
# One process of pytest-xdist, so that the models answer once.
one_process = pytest.mark.xdist_group("models")
needs_models = pytest.mark.skipif(
    any(found.installed is None for found in status(PACKAGES)),
    reason="the small models are not installed (vmr models install)",
)

ASKS_MODELS = {"afa_fsgd.ipynb", "granalign.ipynb", "quickstart.ipynb"}
NOTEBOOKS = [
    pytest.param(
        path,
        id=path.name,
        marks=[needs_models, one_process] if path.name in ASKS_MODELS else [],
    )
    for path in sorted(ROOT.glob("notebooks/*.ipynb"))
]


@pytest.fixture(autouse=True)
def cached(models_cache: Path, own_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VMR_CACHE_DIR", str(models_cache))


@needs_models
@one_process
def test_the_python_in_the_readme_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "bikes.mp4").write_bytes(demo_video().read_bytes())
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text("utf-8"), re.DOTALL)
    assert len(blocks) == 2
    for block in blocks:
        exec(compile(block, "README.md", "exec"), {})
    assert (tmp_path / "moments.csv").read_text().startswith("video,query,rank")


def test_the_python_of_the_guides_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    rng = random.Random(0)
    truth = cases.ground_truth(rng, 30)
    write_lines("val.jsonl", truth)
    write_lines("preds.jsonl", [cases.prediction(rng, query) for query in truth])
    write_beach(tmp_path)
    for name, count in (("evaluation", 2), ("own-data", 2), ("training", 2)):
        text = (ROOT / "docs" / f"{name}.md").read_text("utf-8")
        blocks = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
        assert len(blocks) == count
        names: dict[str, object] = {}
        for block in blocks:
            exec(compile(block, f"{name}.md", "exec"), names)
    printed = capsys.readouterr().out
    assert "qvhighlights 2 ((12.5, 20.0),)" in printed
    assert "Prediction(qid=1, " in printed


def write_lines(path: str, records: list[dict[str, Any]]) -> None:
    Path(path).write_text("\n".join(map(json.dumps, records)), encoding="utf-8")


def write_beach(folder: Path) -> None:
    """What docs/own-data.md and docs/training.md describe, as they describe it."""
    text = (ROOT / "docs" / "own-data.md").read_text("utf-8")
    lines = [line.strip() for line in text.splitlines() if line.startswith('    {"qid"')]
    pack = re.findall(r"```yaml\n(.*?)```", text, re.DOTALL)[0]
    beach = folder / "beach"
    for name, columns in (("clip", 512), ("slowfast", 2304)):
        (beach / name).mkdir(parents=True)
        np.savez(beach / name / "beach-07.npz", features=np.ones((47, columns), np.float32))
    (beach / "text").mkdir()
    for qid in (1, 2):
        np.savez(
            beach / "text" / f"qid{qid}.npz",
            last_hidden_state=np.ones((7, 512), np.float32),
            pooler_output=np.ones(512, np.float32),
        )
    (beach / "pack.yaml").write_text(pack, encoding="utf-8")
    for path in (folder / "train.jsonl", beach / "train.jsonl", beach / "val.jsonl"):
        path.write_text("\n".join(lines), encoding="utf-8")
    text = (ROOT / "docs" / "training.md").read_text("utf-8")
    config = re.findall(r"```yaml\n(.*?)```", text, re.DOTALL)[0]
    (folder / "beach.yaml").write_text(config, encoding="utf-8")


@pytest.mark.parametrize("path", NOTEBOOKS)
def test_notebooks_run(path: Path) -> None:
    cells = json.loads(path.read_text("utf-8"))["cells"]
    sources = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    assert sources
    names: dict[str, object] = {}
    for number, source in enumerate(sources):
        lines = [line for line in source.splitlines() if not line.startswith("%")]
        exec(compile("\n".join(lines), f"{path.name}, code cell {number}", "exec"), names)
    outputs = [output for cell in cells for output in cell.get("outputs", [])]
    assert outputs
    assert not any(output["output_type"] == "error" for output in outputs)
    shown = [output.get("text") or output["data"].get("text/plain", "") for output in outputs]
    assert not re.search(r"/(tmp|home|root|usr|work)/", "".join(map("".join, shown)))


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(path: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", path.read_text("utf-8")):
        if not target.startswith("http"):
            assert (path.parent / target).exists(), f"{path.name} links to {target}"
