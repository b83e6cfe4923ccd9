"""The paper's set-up by one command, on tiny models that a hub of this machine has under their names."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import vmr
from tests.backends import tiny_models
from tests.colours import ColourCaptioner, ColourEncoder, WordCounts
from tests.hub import Repository, serving
from vmr.backends.spec import parse
from vmr.models.presets import PRESETS, options_of

PAPER = PRESETS["granalign-paper"]
KINDS = {
    "encoder": tiny_models.clip,
    "sentence_encoder": tiny_models.sentence_transformer,
    "rewriter": tiny_models.llama,
    "captioner": tiny_models.qwen2_5_vl,
}
EMBEDDED = {
    "encoder": ColourEncoder(),
    "sentence_encoder": WordCounts(),
    "rewriter": "none",
    "captioner": ColourCaptioner(),
}


@pytest.mark.slow
@pytest.mark.xdist_group("transformers")
def test_one_command_is_the_papers_set_up(colour_video: Path, tmp_path: Path) -> None:
    specs = {part: parse(PAPER[part]) for part in KINDS}
    repositories = {
        specs[part].target: Repository(make(tmp_path / part), specs[part].given["revision"])
        for part, make in KINDS.items()
    }
    with serving(repositories) as hub:
        run = subprocess.run(
            [
                *(
                    sys.executable,
                    "-m",
                    "vmr",
                    "retrieve",
                    str(colour_video),
                    "-q",
                    "a red picture",
                ),
                *("--preset", "granalign-paper", "--every", "2", "--json"),
            ],
            env={
                **os.environ,
                "HF_ENDPOINT": hub.url,
                "HF_HOME": str(tmp_path / "home"),
                "HF_HUB_DISABLE_XET": "1",
            },
            capture_output=True,
            text=True,
            check=False,
        )
    assert run.returncode == 0, run.stderr
    document = json.loads(run.stdout)
    (result,) = document["results"]
    assert len(result["frame_scores"]["times"]) == 6
    assert result["moments"]
    assert len(result["explanation"]["query_aware_captions"]) <= 2
    for part, spec in specs.items():
        name = document["backends"][part.replace("_", " ")]
        assert name.startswith(f"{spec.target}@{spec.given['revision']} (")


def test_presets_are_whole() -> None:
    for name in PRESETS:
        assert set(KINDS) <= set(options_of(name))
    # The values that the paper gives, and a commit for every model.
    assert (vmr.GranAlignConfig().pairs, vmr.GranAlignConfig().length_weight) == (3, 0.3)
    assert all(len(parse(PAPER[part]).given["revision"]) == 40 for part in KINDS)


def test_options_replace_what_a_preset_sets() -> None:
    with pytest.raises(vmr.InputError, match="captioner: expected"):
        vmr.load("granalign", preset="granalign-paper", **{**EMBEDDED, "captioner": "nobody"})
    system = vmr.load("granalign", preset="granalign-paper", **EMBEDDED, pairs=1)
    assert system.config.pairs == 1
    with pytest.raises(vmr.InputError, match="did you mean 'granalign'"):
        vmr.load("granalgn")
    with pytest.raises(vmr.InputError, match="did you mean 'granalign-paper'"):
        vmr.load("granalign", preset="granalign-papers")
