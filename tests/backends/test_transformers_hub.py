"""Models of the hub: downloaded at a commit, safetensors only, and what is said where that fails."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from huggingface_hub import _tree_cache, constants

from tests.backends import tiny_models
from tests.hub import Repository, serving
from vmr import backends
from vmr.backends.spec import parse
from vmr.backends.transformers.encoders import ImageTextEncoder
from vmr.errors import VmrError

pytestmark = pytest.mark.xdist_group("transformers")

COMMIT, OTHER = "c0ffee" + "0" * 34, "beef" + "0" * 36

Ask = Callable[..., list[tuple[str, str]]]


@pytest.fixture
def ask(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Ask:
    """ "Encoder" and its name, or the kind of error and its message, for each model of a hub."""
    home = tmp_path / "home"

    def encoders(url: str, *names: str, offline: bool = False) -> list[tuple[str, str]]:
        # The library reads its environment when it is imported.
        for name, value in {
            "ENDPOINT": url,
            "HUGGINGFACE_CO_URL_TEMPLATE": url + "/{repo_id}/resolve/{revision}/{filename}",
            "HF_HUB_CACHE": str(home),
            "HF_TOKEN_PATH": str(home / "token"),
            "HF_HUB_DISABLE_XET": True,
            "HF_HUB_OFFLINE": offline,
        }.items():
            monkeypatch.setattr(constants, name, value)
        # Each call stands for a process of its own.
        monkeypatch.setattr(_tree_cache, "_IN_MEMORY_TREE_CACHE", {})
        said = []
        capfd.readouterr()
        for name in names:
            try:
                encoder = backends.load_encoder(f"transformers:{name}")
                said.append(("Encoder", encoder.name))
                assert isinstance(encoder, backends.Reopenable)
                place, commit = encoder.name.partition(" ")[0].split("@")
                assert encoder.spec == f"transformers:{place},revision={commit},dtype=float32"
            except VmrError as error:
                said.append((type(error).__name__, str(error)))
        assert capfd.readouterr() == ("", "")  # no progress bars, and no word of the library's
        return said

    return encoders


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The seconds that were to be slept; nobody sleeps."""
    asked: list[float] = []
    monkeypatch.setattr(time, "sleep", asked.append)
    return asked


def test_the_hub(ask: Ask, tmp_path: Path, pauses: list[float]) -> None:
    clip = tiny_models.clip(tmp_path / "clip")
    (clip / "pytorch_model.bin").write_bytes(b"a pickle that nobody must open")
    (clip / "onnx").mkdir()
    (clip / "onnx" / "config.json").write_text("{}")
    pickled = tiny_models.clip(tmp_path / "pickled")
    (pickled / "model.safetensors").rename(pickled / "pytorch_model.bin")
    llama = tiny_models.llama(tmp_path / "llama")
    repositories = {
        "openai/clip": Repository(clip, COMMIT, tags=("v1",)),
        "openai/pickled": Repository(pickled, OTHER),
        "openai/twin": Repository(clip, OTHER),
        "meta/llama": Repository(llama, OTHER),
        "meta/gated": Repository(clip, OTHER, gated=True),
    }
    with serving(repositories) as hub:
        main, tagged, pinned, twin, none, gated, pickle, other, unknown = ask(
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
    assert ", found pytorch_model.bin. vmr reads no pickled weights" in pickle[1]
    assert f"at {unreachable}/openai/pickled/discussions, whose number goes into" in pickle[1]
    assert pickle[1].endswith(" transformers:openai/pickled,revision=refs/pr/NUMBER")
    assert "is a LlamaForCausalLM; expected CLIP" in other[1]
    assert "(revision v9): the hub has the model, but no such revision" in unknown[1]
    assert not [path for path in asked if path.endswith(".bin")]
    assert not [path for path in asked if "onnx/" in path]
    # What another kind of model weighs is not even downloaded.
    assert not [path for path in asked if "llama" in path and path.endswith(".safetensors")]

    # Now the hub is gone. What is in its cache works all the same, also when told to stay offline.
    again, pinned, unseen, commit = ask(
        unreachable,
        "openai/clip",
        f"openai/clip,revision={COMMIT}",
        "openai/unseen",
        f"openai/unseen,revision={COMMIT}",
    )
    assert again == pinned == main
    assert unseen[0] == "BackendError"
    for part in (
        "openai/unseen: is not a folder here",
        "the hub cannot be reached",
        "`hf download openai/unseen --local-dir FOLDER`",
        '--encoder transformers:FOLDER (in Python encoder="transformers:FOLDER")',
        "HF_ENDPOINT",
    ):
        assert part in unseen[1]
    assert f"`hf download openai/unseen --revision {COMMIT} --local-dir FOLDER`" in commit[1]
    assert pauses == []  # it is not asked again and again
    cached = tmp_path / "home"
    (cached / f"models--openai--twin/snapshots/{OTHER}/model.safetensors").unlink()
    offline, partly, unseen = ask(unreachable, "openai/clip", "openai/twin", "a/b", offline=True)
    assert offline == main
    assert f"openai/twin (revision {OTHER}): is not a folder here and not (wholly) in" in partly[1]
    assert f"`hf download openai/twin --revision {OTHER} --local-dir FOLDER`" in partly[1]
    assert unseen[1].startswith(
        "a/b: is not a folder here and not (wholly) in the hub's cache, and HF_HUB_OFFLINE=1 forbids "
        "to ask the hub. Where there is a network, run `hf download a/b --local-dir FOLDER`, and name"
    )

    # Of what another library has left there, not all files are known.
    shutil.rmtree(cached / "models--openai--twin" / "trees")
    with serving(repositories) as hub:
        assert ask(hub.url, f"openai/twin,revision={OTHER}") == [twin]
    shutil.rmtree(cached / "models--openai--twin" / "trees")
    assert ask(hub.url, f"openai/twin,revision={OTHER}") == [twin]
    # What was downloaded is whole.
    snapshot = ImageTextEncoder(
        parse(f"transformers:{cached}/models--openai--clip/snapshots/{COMMIT}")
    )
    source = ImageTextEncoder(parse(f"transformers:{clip}"))
    np.testing.assert_array_equal(snapshot.encode_texts(["a dog"]), source.encode_texts(["a dog"]))
