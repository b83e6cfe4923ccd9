"""Models of the hub: downloaded at a commit, safetensors only, and what is said where that fails."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.backends import tiny_models
from tests.hub import Repository, serving
from vmr.backends.spec import parse
from vmr.backends.transformers.encoders import ImageTextEncoder

pytestmark = pytest.mark.xdist_group("transformers")

COMMIT, OTHER = "c0ffee" + "0" * 34, "beef" + "0" * 36

# The hub library reads its settings when it is imported: each hub has a process of its own.
SCRIPT = """
import json, sys
from vmr import backends
from vmr.errors import VmrError
said = []
for name in json.loads(sys.argv[1]):
    try:
        said.append(["Encoder", backends.load_encoder("transformers:" + name).name])
    except VmrError as error:
        said.append([type(error).__name__, str(error)])
print(json.dumps(said))
"""


def ask(home: Path, url: str, *names: str, **more: str) -> list[tuple[str, str]]:
    """ "Encoder" and its name, or the kind of error and its message, for each model."""
    settings = {"HF_ENDPOINT": url, "HF_HOME": str(home), "HF_HUB_DISABLE_XET": "1", **more}
    run = subprocess.run(
        [sys.executable, "-c", SCRIPT, json.dumps(names)],
        env={**os.environ, **settings},
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    assert "Fetching" not in run.stderr  # no progress bars: this is no terminal
    return [(name, answer) for name, answer in json.loads(run.stdout)]


def test_the_hub(tmp_path: Path) -> None:
    clip = tiny_models.clip(tmp_path / "clip")
    (clip / "pytorch_model.bin").write_bytes(b"a pickle that nobody must open")
    (clip / "onnx").mkdir()
    (clip / "onnx" / "config.json").write_text("{}")
    pickled = tiny_models.clip(tmp_path / "pickled")
    (pickled / "model.safetensors").rename(pickled / "pytorch_model.bin")
    llama = tiny_models.llama(tmp_path / "llama")
    home = tmp_path / "home"
    repositories = {
        "openai/clip": Repository(clip, COMMIT, tags=("v1",)),
        "openai/pickled": Repository(pickled, OTHER),
        "openai/twin": Repository(clip, OTHER),
        "meta/llama": Repository(llama, OTHER),
        "meta/gated": Repository(clip, OTHER, gated=True),
    }
    with serving(repositories) as hub:
        main, tagged, pinned, twin, none, gated, pickle, other, unknown = ask(
            home,
            hub.url,
            "openai/clip",
            "openai/clip,revision=v1",
            f"openai/clip,revision={COMMIT}",
            "openai/twin",
            "openai/none",
            "meta/gated",
            "openai/pickled",
            "meta/llama",
            "openai/clip,revision=v9",
        )
        asked = list(hub.asked)
        unreachable = hub.url
    assert main == ("Encoder", f"openai/clip@{COMMIT} (float32)")
    assert twin == ("Encoder", f"openai/twin@{OTHER} (float32)")
    assert main == tagged == pinned
    assert none[0] == "BackendError"
    assert "openai/none: is neither a folder here nor a model on the hub" in none[1]
    assert "accept the licence on the model's page, then `hf auth login`" in gated[1]
    assert f"openai/pickled at revision {OTHER}: expected weights as model.safetensors" in pickle[1]
    assert "vmr reads no pickled weights" in pickle[1]
    assert "is a LlamaForCausalLM; expected CLIP" in other[1]
    assert "(revision v9): the hub has the model, but no such revision" in unknown[1]
    assert not [path for path in asked if path.endswith(".bin")]
    assert not [path for path in asked if "onnx/" in path]
    # What another kind of model weighs is not even downloaded.
    assert not [path for path in asked if "llama" in path and path.endswith(".safetensors")]

    # Now the hub is gone. What is in its cache works all the same, also when told to stay offline.
    again, pinned, unseen = ask(
        home, unreachable, "openai/clip", f"openai/clip,revision={COMMIT}", "openai/unseen"
    )
    assert again == pinned == main
    assert unseen[0] == "BackendError"
    for part in (
        "openai/unseen: is not a folder here",
        "the hub cannot be reached",
        "`hf download openai/unseen --local-dir FOLDER`",
        "HF_ENDPOINT",
    ):
        assert part in unseen[1]
    cached = home / "hub"
    (cached / f"models--openai--twin/snapshots/{OTHER}/model.safetensors").unlink()
    offline, partly, unseen = ask(
        home, unreachable, "openai/clip", "openai/twin", "a/b", HF_HUB_OFFLINE="1"
    )
    assert offline == main
    assert "is not (wholly) in the hub's cache" in partly[1]
    assert "cannot be reached" in unseen[1]
    # What was downloaded is whole.
    snapshot = ImageTextEncoder(
        parse(f"transformers:{cached}/models--openai--clip/snapshots/{COMMIT}")
    )
    source = ImageTextEncoder(parse(f"transformers:{clip}"))
    np.testing.assert_array_equal(snapshot.encode_texts(["a dog"]), source.encode_texts(["a dog"]))
