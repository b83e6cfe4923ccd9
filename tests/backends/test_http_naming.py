"""Endpoints: the URL and its options, the choice of the model, the name, and the key."""

from __future__ import annotations

import json
import logging
import re
import subprocess
import sys
import traceback
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.backends.test_http_server import Asked, Reply, Server, listed, refused, said, serving
from tests.colours import ColourEncoder, WordCounts
from vmr import backends
from vmr.backends.http.endpoint import Endpoint
from vmr.backends.rewriting import Messages
from vmr.backends.spec import parse
from vmr.cache import Cache
from vmr.errors import BackendError, InputError, VmrError
from vmr.models.granalign import GranAlign

KEY = "sk-0123456789abcdef/+Zz"
CHAT: list[Messages] = [[{"role": "user", "content": "hi"}]]


@pytest.fixture(autouse=True)
def no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.setenv("NO_PROXY", "*")


@pytest.fixture
def key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)


def load(text: str) -> Endpoint:
    return Endpoint.from_spec(parse(text))


def yes(asked: Asked) -> Reply:
    return said("yes")


def key_in(error: VmrError) -> bool:
    """Whether the key, or a good part of it, is in what a user may see of an error."""
    return KEY[:8] in "".join(traceback.format_exception(error)) or KEY[-8:] in repr(error)


# ---- URL and options ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "url",
    [
        f"http://me:{KEY}@host/v1",
        f"http://{KEY}@host/v1",
        f"http://:{KEY}@/v1",
        f"http://host/v1?api_key={KEY}",
        f"http://host/v1#{KEY}",
        f"http://host:{KEY}/v1",
        "http:///v1",
        "http:",
        "http://[::1/v1",
        "http://ho st/v1",
    ],
)
def test_urls_that_are_refused_and_not_repeated(url: str) -> None:
    for part in (backends.load_rewriter, backends.load_captioner):
        with pytest.raises(InputError, match=r"^endpoint: expected http://HOST:PORT/v1") as raised:
            part(f"{url},model=seer")
        assert not key_in(raised.value)


@pytest.mark.parametrize(
    ("option", "told"),
    [
        (f"api_key={KEY}", "unknown key api_key; known here: model, in_flight"),
        (f"key_env={KEY}", "endpoint: key_env: expected the name of an environment variable"),
        ("in_flight=0", "in_flight: expected `int` >= 1"),
        ("in_flight=many", "in_flight: expected `int`, got `str` ('many')"),
        ("timeout=0", "timeout: expected `float` > 0.0"),
        ("retries=-1", "retries: expected `int` >= 0"),
        ("max_tokens=0", "max_tokens: expected `int` >= 1"),
        ("modle=x", "unknown key modle; did you mean 'model'?"),
    ],
)
def test_options_that_are_refused(option: str, told: str) -> None:
    with pytest.raises(InputError, match=re.escape(told)) as raised:
        load(f"http://localhost:9/v1,{option}")
    assert not key_in(raised.value)


def test_a_key_of_other_characters(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_KEY", f"{KEY}\nsecond line")
    with pytest.raises(InputError, match="expected a key in MY_KEY") as raised:
        load("http://localhost:9/v1,model=seer,key_env=MY_KEY")
    assert not key_in(raised.value)


def test_without_openai(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openai", None)
    with pytest.raises(BackendError, match=r"openai is not installed.*pip install 'vmr\[http\]'"):
        load("http://localhost:9/v1,model=seer")


def test_openai_is_imported_for_an_endpoint_only() -> None:
    program = (
        "import sys, vmr, vmr.backends, vmr.backends.http.endpoint, vmr.cli\n"
        "try: vmr.cli.main(['--help'])\n"
        "except SystemExit: pass\n"
        "print(*{'openai', 'httpx2'} & set(sys.modules), file=sys.stderr)"
    )
    run = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert run.stderr.strip() == ""


# ---- the model and the name ---------------------------------------------------------------------


def test_the_only_model_is_taken() -> None:
    with serving(yes, "Qwen/Qwen2.5-VL-7B-Instruct") as server:
        model = load(server.url + "/")
        assert model.name == "endpoint's Qwen/Qwen2.5-VL-7B-Instruct (128 tokens)"
        assert model.generate(CHAT) == ["yes"]
    assert [asked.path for asked in server.asked] == ["/v1/models", "/v1/chat/completions"]
    assert server.chats[0].body["model"] == "Qwen/Qwen2.5-VL-7B-Instruct"


@pytest.mark.parametrize(
    ("models", "told"),
    [
        (["one", "two"], "expected one model, got one, two; name one with model="),
        ([str(n) for n in range(22)], "got 0, 1, .*, 18, 19 and 2 more; name one with model="),
        ([], "expected one model, got none"),
    ],
)
def test_more_than_one_model(models: list[str], told: str) -> None:
    with serving(yes) as server:
        server.models = listed(*models)
        with pytest.raises(BackendError, match=told):
            load(server.url)


def test_a_model_that_is_not_there() -> None:
    with serving(yes, "Qwen/Qwen2.5-VL-7B-Instruct", "llava") as server:
        model = load(f"{server.url},model=Qwen2.5-VL-7B")
        told = (
            f"endpoint {server.url}: has no model 'Qwen2.5-VL-7B'; it lists "
            "Qwen/Qwen2.5-VL-7B-Instruct, llava; did you mean 'Qwen/Qwen2.5-VL-7B-Instruct'?"
        )
        for _ in range(2):
            with pytest.raises(BackendError, match=f"^{re.escape(told)}$"):
                model.describe([b"jpeg"], "look")
    assert server.chats == []


def test_a_model_is_looked_for_once_and_its_tag_may_be_left_out() -> None:
    with serving(yes, "llava:latest") as server:
        model = load(f"{server.url},model=llava")
        assert server.asked == []
        assert [model.generate(CHAT) for _ in range(2)] == [["yes"], ["yes"]]
    assert [asked.method for asked in server.asked] == ["GET", "POST", "POST"]


def test_an_endpoint_without_a_list_of_models() -> None:
    with serving(yes) as server:
        server.models = refused(404, "page not found")
        with pytest.raises(
            BackendError, match=r"expected a list of models under .*/v1/models, got"
        ):
            load(server.url)
        assert load(f"{server.url},model=seer").generate(CHAT) == ["yes"]


def test_the_name_is_that_of_the_model_wherever_it_is() -> None:
    name = load("http://localhost:8000/v1,model=a/b").name
    assert load("https://elsewhere/v1,model=a/b,in_flight=3,timeout=9,retries=1").name == name
    assert load("http://localhost:8000/v1,model=a/c").name != name
    assert load("http://localhost:8000/v1,model=a/b,max_tokens=64").name != name
    assert (
        load("http://localhost:8000/v1,model=/folder/b.gguf").name
        == "endpoint's b.gguf (128 tokens)"
    )


# ---- the key ------------------------------------------------------------------------------------


def sent(server: Server) -> list[str | None]:
    return [asked.headers.get("authorization") for asked in server.asked]


def test_the_key_is_sent_or_a_placeholder(monkeypatch: pytest.MonkeyPatch) -> None:
    with serving(yes) as server:
        load(server.url).generate(CHAT)
        monkeypatch.setenv("OPENAI_API_KEY", KEY)
        load(server.url).generate(CHAT)
        monkeypatch.setenv("MY_KEY", f" {KEY[::-1]}\n")
        load(f"{server.url},key_env=MY_KEY").generate(CHAT)
    keys = ("none", KEY, KEY[::-1])
    assert sent(server) == [f"Bearer {key}" for key in keys for _ in range(2)]


@pytest.mark.parametrize("status", [401, 403])
def test_a_server_that_wants_a_key(status: int) -> None:
    with serving(yes) as server:
        server.models = refused(status, "who are you?")
        with pytest.raises(
            BackendError,
            match=f"expected to need no key, got {status}, 'who are you.'; put the key into the "
            "environment variable MY_KEY",
        ):
            load(f"{server.url},key_env=MY_KEY")


def echoes() -> list[Callable[[Asked], Reply]]:
    """Servers that repeat the key."""
    return [
        lambda asked: refused(401, f"wrong key: {asked.headers['authorization']}"),
        lambda asked: refused(400, f"{'x' * 175} {asked.headers['authorization']}"),
        lambda asked: Reply(f"<html>{asked.headers['authorization']}</html>"),
        lambda asked: Reply({"choices": asked.headers["authorization"]}),
        lambda asked: Reply(json.dumps({"e": KEY}).replace("/", "\\/"), 400),
    ]


@pytest.mark.usefixtures("key")
@pytest.mark.parametrize("echo", echoes())
def test_a_key_that_the_server_repeats_is_not_told(echo: Callable[[Asked], Reply]) -> None:
    with serving(echo) as server:
        model = load(f"{server.url},model=seer")
        with pytest.raises(BackendError, match="endpoint") as raised:
            model.generate(CHAT)
        server.models = echo(server.chats[0])
        with pytest.raises(BackendError, match="endpoint") as again:
            load(server.url)
    assert sent(server)[0] == f"Bearer {KEY}"
    for error in (raised.value, again.value):
        assert not key_in(error)
        assert error.__cause__ is None
        assert error.__context__ is None


@pytest.mark.parametrize(
    ("key", "answer", "message"),
    [
        ("yes", "so yes", "so yes"),
        ("ollama", "so ollama", "so <the key>"),
        ("ollama-2", "so <the key>", "so <the key>"),
    ],
)
def test_a_key_that_is_a_word_stays_in_answers(
    key: str, answer: str, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", key)
    replies = iter([said(f"so {key}"), refused(400, f"so {key}")])
    with serving(lambda asked: next(replies)) as server:
        model = load(f"{server.url},model=seer")
        assert model.generate(CHAT) == [answer]
        with pytest.raises(BackendError, match=f"got 400, '{message}'$"):
            model.generate(CHAT)


@pytest.mark.usefixtures("key")
def test_a_redirect_to_another_host_goes_without_the_key() -> None:
    with serving(yes) as other:
        place = other.url.replace("127.0.0.1", "localhost")

        def away(asked: Asked) -> Reply:
            return Reply({}, 307, {"Location": f"{place}/chat/completions"})

        with serving(away) as server:
            assert load(server.url).generate(CHAT) == ["yes"]
    assert sent(server) == [f"Bearer {KEY}"] * 2
    assert sent(other) == [None]


@pytest.mark.usefixtures("key")
def test_the_key_is_in_nothing_that_stays(
    colour_video: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)

    def answer(asked: Asked) -> Reply:
        return said(f"a red picture for {asked.headers['authorization']}")

    with serving(answer) as server:
        system = GranAlign(
            encoder=ColourEncoder(),
            sentence_encoder=WordCounts(),
            rewriter=server.url,
            captioner=server.url,
            cache=Cache(tmp_path / "cache"),
            every=4.0,
        )
        results = system.retrieve(colour_video, "a red picture")
        assert sent(server) == [f"Bearer {KEY}"] * len(server.asked)
    (tmp_path / "results.json").write_text(results.to_json())
    system.recording.save(tmp_path / "recording.jsonl")
    written = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    names = {path.name for path in written}
    assert {"results.json", "recording.jsonl", "cache-1.sqlite"} <= names
    for path, content in written.items():
        assert KEY[:8].encode() not in content, path
    for kind in ("results.json", "recording.jsonl", "cache"):
        found = [content for path, content in written.items() if path.name.startswith(kind)]
        assert b"a red picture for Bearer <the key>" in b"".join(found)
    loggers = {record.name.partition(".")[0] for record in caplog.records}
    assert {"openai", "httpx2", "httpcore2"} <= loggers
    assert KEY[:8] not in caplog.text
    assert KEY[:8] not in str(system.backends)
