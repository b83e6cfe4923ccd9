"""Backends chosen by a string or an object."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from vmr import backends
from vmr.backends import Captioner, Encoder, Rewriter, SentenceEncoder, packages
from vmr.backends.base import Rewrite
from vmr.errors import BackendError, InputError

LOADERS: dict[str, Callable[[Any], Any]] = {
    "encoder": backends.load_encoder,
    "sentence encoder": backends.load_sentence_encoder,
    "rewriter": backends.load_rewriter,
    "captioner": backends.load_captioner,
}
needs_models = pytest.mark.skipif(
    any(packages.installed_version(package) is None for package in packages.PACKAGES),
    reason="the small models are not installed",
)


@needs_models
def test_embedded_parts_satisfy_their_protocols() -> None:
    assert isinstance(backends.load_encoder("embedded"), Encoder)
    assert isinstance(backends.load_sentence_encoder("embedded"), SentenceEncoder)
    assert isinstance(backends.load_rewriter("embedded"), Rewriter)
    assert isinstance(backends.load_captioner("embedded"), Captioner)


@needs_models
def test_names_tell_the_parts_apart() -> None:
    names = [load("embedded").name for load in LOADERS.values()]
    assert len(set(names)) == len(names)


@needs_models
def test_the_sentence_encoder_is_shared() -> None:
    first = backends.load_sentence_encoder("embedded")
    assert backends.load_sentence_encoder("embedded") is first


def test_no_rewriter() -> None:
    assert backends.load_rewriter("none") is None


def test_a_recording_is_loaded_from_its_file(tmp_path: Path) -> None:
    path = tmp_path / "run.jsonl"
    path.write_text(
        '{"version": 1, "kind": "rewrite", "query": "q", "pair": 0, "simple": "s", "detailed": "d"}\n'
    )
    rewriter = backends.load_rewriter(f"recorded:{path}")
    assert rewriter is not None
    assert rewriter.rewrite("q", 1) == [Rewrite("s", "d")]
    assert isinstance(backends.load_captioner(f"recorded:{path}"), Captioner)


def test_an_object_is_taken_as_it_is() -> None:
    class Own:
        name = "own"

        def rewrite(self, query: str, pairs: int) -> list[Rewrite]:
            return []

    own = Own()
    assert backends.load_rewriter(own) is own


@pytest.mark.parametrize("part", LOADERS)
@pytest.mark.parametrize("spec", ["clip", "", "recorded:", 7])
def test_what_is_no_backend_lists_the_choices(part: str, spec: object) -> None:
    with pytest.raises(InputError, match=rf"^{part}: expected embedded.*, got ('{spec}'|int)$"):
        LOADERS[part](spec)


@pytest.mark.parametrize("part", LOADERS)
def test_a_missing_package_says_what_to_run(part: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from vmr.backends import embedded

    def absent(package: packages.Package) -> None:
        return None

    monkeypatch.setattr(packages, "installed_version", absent)
    shared: list[Callable[[], object]] = [
        embedded.sentence_encoder,
        embedded.tagger,
        embedded.label_space,
    ]
    for name, function in zip(("sentence_encoder", "tagger", "label_space"), shared, strict=True):
        monkeypatch.setattr(embedded, name, function.__wrapped__)  # type: ignore[attr-defined]
    with pytest.raises(BackendError, match="is not installed; run `vmr models install`"):
        LOADERS[part]("embedded")


def test_choosing_a_backend_needs_no_model_library() -> None:
    program = (
        "import sys, vmr.backends, vmr.backends.packages, vmr.backends.recorded; "
        "vmr.backends.packages.status(); "
        "print(*{'torch', 'transformers', 'tokenizers', 'xllamacpp'} & set(sys.modules))"
    )
    run = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert run.stdout.strip() == ""
