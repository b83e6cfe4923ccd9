"""The small corpus, and a config of a run on it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.training.corpus import write_config, write_corpus


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_corpus(tmp_path_factory.mktemp("corpus"))


@pytest.fixture
def config(corpus: Path, tmp_path: Path) -> str:
    return write_config(corpus, tmp_path / "tiny.yaml")
