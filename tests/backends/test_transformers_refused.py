"""Models of transformers that are not what is needed: refused when they are named, and why."""

from __future__ import annotations

import json
import shutil
import sys
import tracemalloc
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.backends import tiny_models
from vmr.backends.spec import parse
from vmr.backends.transformers import checkpoints
from vmr.backends.transformers.encoders import ImageTextEncoder, SentenceTransformerEncoder
from vmr.backends.transformers.generation import ChatModel
from vmr.backends.transformers.quiet import transformers_quiet
from vmr.backends.transformers.vision import VisionLanguageModel
from vmr.errors import BackendError, InputError

pytestmark = pytest.mark.xdist_group("transformers")


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("models")
    tiny_models.clip(place / "tiny-clip")
    tiny_models.llama(place / "tiny-llama")
    tiny_models.llava(place / "tiny-llava")
    return place


@pytest.fixture
def clip(models: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(models / "tiny-clip", tmp_path / "tiny-clip"))


@pytest.fixture
def llama(models: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(models / "tiny-llama", tmp_path / "tiny-llama"))


def change(path: Path, **values: Any) -> None:
    """Changes keys of a JSON file; None takes one away."""
    found = {**json.loads(path.read_text()), **values}
    path.write_text(json.dumps({key: value for key, value in found.items() if value is not None}))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("devise=cpu", "unknown key devise; did you mean 'device'"),
        ("dtype=int8", "dtype: expected one of .*got 'int8'"),
        ("batch_size=0", "batch_size: expected `int` >= 1"),
        ("max_tokens=4", "unknown key max_tokens"),
        ("device=tpu", "device: expected cpu or cuda, got 'tpu'"),
        ("revision=v1", "is a folder and has no revision, got 'v1'"),
    ],
)
def test_options(clip: Path, options: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        ImageTextEncoder(parse(f"transformers:{clip},{options}"))


def test_a_folder_that_is_not_there(clip: Path) -> None:
    with pytest.raises(BackendError, match=r"got '.*tiny-clop'; did you mean 'tiny-clip'\?"):
        ImageTextEncoder(parse(f"transformers:{clip.with_name('tiny-clop')}"))
    with pytest.raises(BackendError, match=r"did you mean its folder, '.*tiny-clip'\?"):
        ImageTextEncoder(parse(f"transformers:{clip / 'config.json'}"))
    with pytest.raises(BackendError, match="or owner/name on the hub, got 'clip'"):
        ImageTextEncoder(parse("transformers:clip"))
    # A file is no model.
    clip.with_name("notebook.md").touch()
    with pytest.raises(BackendError, match=r"on the hub, got '.*notebok'$"):
        ImageTextEncoder(parse(f"transformers:{clip.with_name('notebok')}"))


def test_a_folder_that_is_empty(tmp_path: Path) -> None:
    for part in (ImageTextEncoder, ChatModel, VisionLanguageModel):
        with pytest.raises(BackendError, match=r"has no config\.json; expected "):
            part(parse(f"transformers:{tmp_path}"))
    with pytest.raises(BackendError, match=r"has no modules\.json; expected a SentenceTransformer"):
        SentenceTransformerEncoder(parse(f"transformers:{tmp_path}"))
    (tmp_path / "adapter_config.json").write_text("{}")
    with pytest.raises(BackendError, match="is an adapter; merge it into its model first"):
        ChatModel(parse(f"transformers:{tmp_path}"))


@pytest.mark.parametrize(
    ("part", "name", "message"),
    [
        (
            ImageTextEncoder,
            "tiny-llama",
            "encoder .* is a LlamaForCausalLM; expected CLIP, SigLIP or SigLIP2",
        ),
        (
            ChatModel,
            "tiny-llava",
            "rewriter .* is a LlavaForCond.*; expected a causal language",
        ),
        (
            ChatModel,
            "tiny-clip",
            "rewriter .* is a CLIPModel; expected a causal language model",
        ),
        (
            VisionLanguageModel,
            "tiny-llama",
            "captioner .* is a LlamaForCausalLM; expected a vision-language",
        ),
        (
            SentenceTransformerEncoder,
            "tiny-clip",
            "sentence encoder .* has no modules.json; expected a Sent",
        ),
    ],
)
def test_another_kind_of_model(
    models: Path, part: Callable[[Any], object], name: str, message: str
) -> None:
    with pytest.raises(BackendError, match=message):
        part(parse(f"transformers:{models / name}"))


def test_no_weights(clip: Path) -> None:
    (clip / "model.safetensors").unlink()
    with pytest.raises(BackendError, match=r"as model\.safetensors, found none; in") as raised:
        ImageTextEncoder(parse(f"transformers:{clip}"))
    assert "written by save_pretrained" in str(raised.value)
    assert "pickle" not in str(raised.value)


class Bomb:
    """Shows by a file that it was unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


def test_pickled_weights(clip: Path, tmp_path: Path) -> None:
    (clip / "model.safetensors").unlink()
    torch.save(Bomb(tmp_path / "opened"), clip / "pytorch_model.bin")
    with pytest.raises(BackendError, match=r"found pytorch_model\.bin. vmr reads no pic") as raised:
        ImageTextEncoder(parse(f"transformers:{clip}"))
    assert "write it again with save_pretrained" in str(raised.value)
    assert "pull request" not in str(raised.value)  # of a folder here there are none
    assert not (tmp_path / "opened").exists()


def test_shards(llama: Path, tmp_path: Path) -> None:
    whole = ChatModel(parse(f"transformers:{llama},max_tokens=5"))
    folder = tiny_models.llama(tmp_path / "shards", max_shard_size="5KB")
    shards = sorted(folder.glob("model-*.safetensors"))
    assert len(shards) > 2
    chat: Any = [[{"role": "user", "content": "a man"}]]
    found = ChatModel(parse(f"transformers:{folder},max_tokens=5"))
    assert found.generate(chat) == whole.generate(chat)
    shards[1].unlink()
    with pytest.raises(
        BackendError,
        match=rf"index\.json names {len(shards)} files, and 1 of them "
        rf"are not there: {shards[1].name}",
    ):
        ChatModel(parse(f"transformers:{folder}"))
    change(folder / "model.safetensors.index.json", weight_map={"x": "../secret.safetensors"})
    with pytest.raises(BackendError, match="expected names of safetensors beside it"):
        ChatModel(parse(f"transformers:{folder}"))


@pytest.mark.parametrize("size", [0, 7, 100, -1])
def test_weights_that_were_cut_off(clip: Path, size: int) -> None:
    whole = (clip / "model.safetensors").read_bytes()
    (clip / "model.safetensors").write_bytes(whole[:size])
    with pytest.raises(BackendError, match="damaged or cut off"):
        ImageTextEncoder(parse(f"transformers:{clip}"))


def test_weights_that_lack_a_tensor(clip: Path) -> None:
    tensors = load_file(clip / "model.safetensors")
    del tensors["visual_projection.weight"]
    save_file(tensors, clip / "model.safetensors", {"format": "pt"})
    found = ImageTextEncoder(parse(f"transformers:{clip}"))
    with pytest.raises(
        BackendError, match=r"lack 1 tensors of a CLIPModel: visual_projection\.wei"
    ):
        found.encode_texts(["a man"])


def test_settings_that_are_damaged(clip: Path) -> None:
    (clip / "config.json").write_text('{"model_type":')
    with pytest.raises(BackendError, match=r"config\.json: is damaged"):
        ImageTextEncoder(parse(f"transformers:{clip}"))


def test_files_that_are_missing(clip: Path) -> None:
    (clip / "tokenizer.json").unlink()
    with pytest.raises(BackendError, match="has no tokenizer; expected"):
        ImageTextEncoder(parse(f"transformers:{clip}"))
    (clip / "preprocessor_config.json").unlink()
    with pytest.raises(BackendError, match=r"has no preprocessor_config\.json; expected"):
        ImageTextEncoder(parse(f"transformers:{clip}"))


def test_code_of_its_own_is_never_run(clip: Path, tmp_path: Path) -> None:
    code = f"import pathlib\npathlib.Path({str(tmp_path / 'run')!r}).touch()\nclass Own: pass\n"
    (clip / "modeling_own.py").write_text(code)
    auto = {"AutoConfig": "modeling_own.Own", "AutoModel": "modeling_own.Own"}
    # A known model runs the library's code, whatever it brings along.
    change(clip / "config.json", auto_map=auto)
    assert ImageTextEncoder(parse(f"transformers:{clip}")).encode_texts(["a man"]).shape == (1, 10)
    change(clip / "config.json", model_type="own", architectures=["OwnModel"])
    for part in (ImageTextEncoder, ChatModel, VisionLanguageModel):
        with pytest.raises(
            BackendError, match="is a OwnModel with code of its own, which vmr never"
        ):
            part(parse(f"transformers:{clip}"))
    modules = [{"idx": 0, "name": "0", "path": "", "type": "modeling_own.Own"}]
    (clip / "modules.json").write_text(json.dumps(modules))
    with pytest.raises(BackendError, match=r"has a module modeling_own\.Own with code of its own"):
        SentenceTransformerEncoder(parse(f"transformers:{clip}"))
    assert not (tmp_path / "run").exists()


def test_a_language_model_without_a_chat_template(llama: Path) -> None:
    (llama / "chat_template.jinja").unlink()
    with pytest.raises(BackendError, match="has no chat template: it goes on with texts"):
        ChatModel(parse(f"transformers:{llama}"))


def test_a_vision_language_model_without_a_chat_template(models: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(models / "tiny-llava", tmp_path / "bare"))
    (folder / "chat_template.jinja").unlink()
    with pytest.raises(
        BackendError, match=r"is a LlavaFor.* without a chat template; expected a vis"
    ):
        VisionLanguageModel(parse(f"transformers:{folder}"))


def test_a_template_that_fails(llama: Path) -> None:
    (llama / "chat_template.jinja").write_text("{{ raise_exception('never') }}")
    found = ChatModel(parse(f"transformers:{llama}"))
    with pytest.raises(BackendError, match=r"rewriter .* cannot be run: TemplateError: never"):
        found.generate([[{"role": "user", "content": "a man"}]])


def test_pictures_that_are_none(models: Path) -> None:
    found = VisionLanguageModel(parse(f"transformers:{models / 'tiny-llava'}"))
    with pytest.raises(BackendError, match=r"captioner .* cannot be run: UnidentifiedImageError"):
        found.describe([b"no picture"], "say")


def test_packages_that_are_missing(clip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # As where nothing is installed but vmr: only what the interpreter has is found.
    monkeypatch.setattr(sys, "path", [])
    monkeypatch.setattr(sys, "path_importer_cache", {})
    for name in ("transformers", "sentence_transformers", "PIL"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    with pytest.raises(BackendError, match=r"not installed; pip install 'vmr\[transformers\]'"):
        ImageTextEncoder(parse(f"transformers:{clip}"))


@pytest.mark.parametrize("length", [2**62, 200 << 20])
def test_a_header_without_an_end_is_not_read(length: int, tmp_path: Path) -> None:
    file = tmp_path / "model.safetensors"
    with file.open("wb") as written:
        written.write(length.to_bytes(8, "little"))
        written.truncate(256 << 20)
    tracemalloc.start()
    try:
        with pytest.raises(BackendError, match="is no safetensors file, or is damaged or cut off"):
            checkpoints.header(file)
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert most < 1 << 20


def test_the_libraries_speak_again_when_all_parts_are_loaded() -> None:
    from transformers.utils import logging

    before = logging.get_verbosity(), logging.is_progress_bar_enabled()
    one, other = ExitStack(), ExitStack()
    one.enter_context(transformers_quiet)
    other.enter_context(transformers_quiet)
    one.close()
    assert logging.get_verbosity() == logging.ERROR
    other.close()
    assert (logging.get_verbosity(), logging.is_progress_bar_enabled()) == before
    assert before[0] != logging.ERROR


def test_large_weights_are_sampled(tmp_path: Path) -> None:
    """Of a file of more than 4 MiB not every byte is read, but the first and the last are."""
    (tmp_path / "config.json").write_text("{}")
    weights = tmp_path / "model.safetensors"
    save_file({"x": torch.zeros(8 << 20, dtype=torch.uint8)}, weights)
    found = checkpoints.locate(str(tmp_path), None, "encoder")
    head = weights.stat().st_size - (8 << 20)

    def named(place: int) -> str:
        with weights.open("r+b") as file:
            file.seek(place)
            file.write(b"\x01")
            file.flush()
            named = checkpoints.label(found, [weights])
            file.seek(place)
            file.write(b"\x00")
        return named

    whole = checkpoints.label(found, [weights])
    assert named(head) != whole
    assert named(weights.stat().st_size - 1) != whole
    assert checkpoints.label(found, [weights]) == whole
    blocks = [named(head + block * 4096) != whole for block in range(0, 2048, 61)]
    assert 10 < sum(blocks) < 24  # of 34: about every second one
