"""Endpoints: requests, their order and number, retries, and what is said when they fail."""

from __future__ import annotations

import base64
import contextlib
import itertools
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.backends.test_http_server import (
    SAFE,
    Asked,
    Gate,
    Reply,
    Server,
    listed,
    refused,
    said,
    serving,
)
from vmr import backends
from vmr.backends.captioning import VisionModel, VlmCaptioner
from vmr.backends.http.endpoint import Endpoint
from vmr.backends.rewriting import Messages, TextGenerator
from vmr.backends.spec import parse
from vmr.errors import BackendError


@pytest.fixture(autouse=True)
def no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.setenv("NO_PROXY", "*")


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The seconds that were to be slept; nobody sleeps."""
    asked: list[float] = []
    monkeypatch.setattr(time, "sleep", asked.append)
    return asked


def endpoint(server: Server | str, **options: Any) -> Endpoint:
    """An endpoint with the model "seer", named, and no retries."""
    url = server if isinstance(server, str) else server.url
    given = {"model": "seer", "retries": 0, **options}
    return Endpoint.from_spec(parse(",".join([url, *(f"{k}={v}" for k, v in given.items())])))


def chat(text: str) -> Messages:
    return [{"role": "system", "content": "Be brief."}, {"role": "user", "content": text}]


def echo(asked: Asked) -> Reply:
    return said(f"re: {asked.text}")


def failure(answer: Callable[[Asked], Reply], *, picture: bool = False, **options: Any) -> str:
    """What is said when a server answers so."""
    with serving(answer) as server:
        model = endpoint(server, **options)
        with pytest.raises(BackendError) as raised:
            _ = model.describe([b"jpeg"], "look") if picture else model.generate([chat("hi")])
    told = str(raised.value)
    assert told.startswith(f"endpoint {server.url}, model 'seer': ")
    return told.partition("': ")[2]


# ---- requests -----------------------------------------------------------------------------------


def test_it_is_what_rewriters_and_captioners_take() -> None:
    with serving(echo) as server:
        model = endpoint(server)
        assert isinstance(model, TextGenerator)
        assert isinstance(model, VisionModel)
        assert model.takes_instructions is True
        assert backends.calls_at_once(model) == 8
        assert backends.calls_at_once(endpoint(server, in_flight=3)) == 3
        assert isinstance(backends.load_captioner(server.url), VlmCaptioner)
        assert backends.load_rewriter(server.url) is not None


def test_a_chat_is_sent_as_it_is_and_decoded_greedily() -> None:
    with serving(echo) as server:
        assert endpoint(server, max_tokens=40).generate([chat("hi")]) == ["re: hi"]
    [asked] = server.chats
    assert asked.path == "/v1/chat/completions"
    assert asked.body == {
        "model": "seer",
        "messages": chat("hi"),
        "max_tokens": 40,
        "temperature": 0.0,
        "seed": 0,
    }


def test_a_picture_goes_with_its_instruction() -> None:
    with serving(lambda asked: said("A dog.")) as server:
        assert endpoint(server).describe([b"\xff\xd8jpeg"], "Look!") == ["A dog."]
    [asked] = server.chats
    assert asked.text == "Look!"
    assert asked.picture == "data:image/jpeg;base64," + base64.b64encode(b"\xff\xd8jpeg").decode()


def test_nothing_to_ask() -> None:
    with serving(echo) as server:
        assert endpoint(server).generate([]) == []
    assert server.chats == []


def test_the_slots_are_full_over_several_calls_and_answers_in_order() -> None:
    calls = [[f"{call}.{place}" for place in range(size)] for call, size in enumerate((5, 9, 1, 6))]
    gate = Gate(slots=4, total=sum(map(len, calls)))

    def answer(asked: Asked) -> Reply:
        picture = base64.b64decode(asked.picture.partition(",")[2]).decode()
        return said(f"{asked.text} {picture}") if gate.pass_through() else refused(500, "too few")

    with serving(answer) as server, ThreadPoolExecutor(len(calls)) as threads:
        model = endpoint(server, in_flight=4)
        answers = list(
            threads.map(lambda call: model.describe([p.encode() for p in call], "see"), calls)
        )
    assert answers == [[f"see {picture}" for picture in call] for call in calls]
    assert gate.most == 4


@pytest.mark.parametrize(
    ("answer", "text", "caption"),
    [
        ("A man", "", ""),
        ("A man runs. He wears a", "", "A man runs."),
        ("It is 3.5 m high! And", "", "It is 3.5 m high!"),
        ("It is 3.5", "", ""),
        ("一个男人。他", "", "一个男人。"),
        (None, "", ""),  # a model that thinks aloud elsewhere, and too long
    ],
)
def test_of_an_answer_cut_off_whole_sentences_are_left(
    answer: str | None, text: str, caption: str
) -> None:
    with serving(lambda asked: said(answer, "length")) as server:
        model = endpoint(server)
        assert model.generate([chat("hi")]) == [text]
        assert model.describe([b"jpeg"], "look") == [caption]


@pytest.mark.parametrize("status", [400, 422])
def test_a_server_that_knows_other_parameters(status: int) -> None:
    def answer(asked: Asked) -> Reply:
        if "max_tokens" in asked.body:
            return refused(status, "'max_tokens' is not supported: use 'max_completion_tokens'")
        if "seed" in asked.body:
            return refused(status, "Unsupported parameter: seed")
        return said(str(asked.body["max_completion_tokens"]))

    with serving(answer) as server:
        model = endpoint(server, in_flight=1)
        assert model.generate([chat("a"), chat("b")]) == ["128", "128"]
    assert len(server.chats) == 4  # it asks once, and remembers


# ---- failures and retries -----------------------------------------------------------------------


def test_retries_pause_longer_each_time_and_then_succeed(pauses: list[float]) -> None:
    statuses = iter([503, 429, 500, 200])

    def answer(asked: Asked) -> Reply:
        status = next(statuses)
        return said("at last") if status == 200 else refused(status, "busy")

    with serving(answer) as server:
        assert endpoint(server, retries=3).generate([chat("hi")]) == ["at last"]
    assert len(server.chats) == 4
    for pause, longest in zip(pauses, (0.5, 1.0, 2.0), strict=True):
        assert 0.75 * longest <= pause <= longest


def test_a_pause_is_as_long_as_the_server_says(pauses: list[float]) -> None:
    replies = iter([refused(429, "busy", Retry_After="7"), said("at last")])
    with serving(lambda asked: next(replies)) as server:
        assert endpoint(server, retries=1).generate([chat("hi")]) == ["at last"]
    assert pauses == [7.0]


def test_a_server_that_stays_busy(pauses: list[float]) -> None:
    told = failure(lambda asked: refused(429, "all slots are taken"), retries=2)
    assert told.startswith("expected an answer, got 429, 'all slots are taken' in up to 3 tries; ")
    assert "in_flight=" in told
    assert len(pauses) == 2


def test_a_server_that_does_not_answer(pauses: list[float]) -> None:
    over = threading.Event()

    def answer(asked: Asked) -> Reply:
        over.wait(SAFE)
        return said("too late")

    told = failure(answer, timeout=0.5, retries=1)
    over.set()
    assert told.startswith("expected an answer within 0.5 s, got none in up to 2 tries; ")
    assert "timeout=" in told


def test_no_server(pauses: list[float]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        url = f"http://127.0.0.1:{free.getsockname()[1]}/v1"
    with pytest.raises(
        BackendError, match=r"cannot be reached in up to 3 tries \(.*refused.*\): is"
    ):
        endpoint(url, model="", retries=5)
    model = endpoint(url)  # a model that is named is asked for when it is needed
    with pytest.raises(BackendError, match=rf"^endpoint {url}, model 'seer': cannot be reached \("):
        model.generate([chat("hi")])


class Line(contextlib.AbstractContextManager[None]):
    """A lock that knows how many have come to it."""

    def __init__(self) -> None:
        self.came = 0
        self.change = threading.Condition()
        self._lock = threading.Lock()

    def __enter__(self) -> None:
        with self.change:
            self.came += 1
            self.change.notify_all()
        self._lock.acquire()

    def __exit__(self, *_: object) -> None:
        self._lock.release()


def test_who_waits_for_a_first_contact_that_fails_is_told_so(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    line, callers = Line(), 5
    asked: list[bool] = []

    with serving(echo) as server, ThreadPoolExecutor(callers) as threads:
        server.models = refused(400, "closed")
        model = endpoint(server)
        ask = model._models

        def when_all_are_here() -> list[str] | None:
            with line.change:
                asked.append(line.change.wait_for(lambda: line.came >= callers, SAFE))
            return ask()

        monkeypatch.setattr(model, "_lock", line)
        monkeypatch.setattr(model, "_models", when_all_are_here)
        calls = [threads.submit(model.generate, [chat("hi")]) for _ in range(callers)]
        errors = [call.exception(SAFE) for call in calls]
        assert {str(error) for error in errors} == {
            f"endpoint {server.url}, model 'seer': expected an answer, got 400, 'closed'"
        }
        assert all(type(error) is BackendError for error in errors)
        assert asked == [True]
        # Who comes later asks again.
        with pytest.raises(BackendError, match="closed"):
            model.generate([chat("hi")])
        server.models = listed("seer")
        assert model.generate([chat("hi")]) == ["re: hi"]
        assert len(asked) == 3


def test_no_such_host(pauses: list[float]) -> None:
    with pytest.raises(
        BackendError, match=r"^endpoint http://no-host\.invalid/v1: cannot be reach"
    ):
        endpoint("http://no-host.invalid/v1", model="")


HTML = "<html><body>It works!</body></html>"


@pytest.mark.parametrize(
    ("reply", "told"),
    [
        (Reply(HTML), f"expected a chat completion in JSON, got {HTML!r} (JSON is malformed"),
        (Reply(HTML, headers={"Content-Type": "application/json"}), "(JSON is malformed"),
        (Reply(""), "expected a chat completion in JSON, got ''"),
        (Reply({}), "got '{}' (Object missing required field `choices`)"),
        (Reply([1]), "(Expected `object`, got `array`)"),
        (Reply({"choices": []}), "(Expected `array` of length >= 1 - at `$.choices`)"),
        (Reply({"choices": [{}]}), "(Object missing required field `message`"),
        (Reply({"error": "no GPU left"}), "got 'no GPU left' (Object missing required field"),
        (said(None), "expected a text as the answer, got none (finish_reason 'stop'): "),
        (
            said([{"type": "text"}]),
            "(Expected `str | null`, got `array` - at `$.choices[0].message.content`",
        ),
    ],
)
def test_rubbish(reply: Reply, told: str) -> None:
    assert told in failure(lambda asked: reply)


def test_rubbish_instead_of_models() -> None:
    with serving(echo) as server:
        server.models = Reply(HTML)
        with pytest.raises(
            BackendError, match=r"expected a list of models in JSON, got '<html>.*/v1"
        ):
            endpoint(server).generate([chat("hi")])


@pytest.mark.parametrize(
    ("status", "message", "told"),
    [
        (
            404,
            "page not found",
            "expected a route /chat/completions there, got 404, 'page not found'",
        ),
        (
            404,
            "model 'seer' not found",
            "the endpoint does not know the model: 404, \"model 'seer'",
        ),
        (400, "maximum context length is 512", "the prompt is too long for the model: 400, 'max"),
        (400, "the seer is drunk", "expected an answer, got 400, 'the seer is drunk'"),
        (400, "no image, please", "expected an answer, got 400, 'no image, please'"),
    ],
)
def test_refusals(status: int, message: str, told: str) -> None:
    assert failure(lambda asked: refused(status, message)).startswith(told)


@pytest.mark.parametrize(
    ("status", "message"),
    [
        (400, "seer is not a multimodal model"),
        (400, "this model does not support image input"),
        (500, "image input is not supported - hint: you may need to provide the mmproj"),
    ],
)
def test_a_model_that_cannot_see(status: int, message: str) -> None:
    asked: list[Asked] = []

    def answer(request: Asked) -> Reply:
        asked.append(request)
        return refused(status, message)

    told = failure(answer, picture=True, retries=5)
    assert told.startswith(
        f"the picture was refused: {status}, {message!r}; a captioner needs a visi"
    )
    assert "--mmproj" in told
    assert len(asked) == 1  # asking again would be in vain


def test_the_first_failure_ends_the_call() -> None:
    numbers = itertools.count(1)

    def answer(asked: Asked) -> Reply:
        return refused(400, "enough") if next(numbers) == 3 else said("yes")

    with serving(answer) as server:
        model = endpoint(server, in_flight=1)
        with pytest.raises(BackendError, match="enough"):
            model.generate([chat(str(number)) for number in range(50)])
        assert [asked.text for asked in server.chats] == ["0", "1", "2"]
        assert model.generate([chat("again")]) == ["yes"]
        assert [asked.text for asked in server.chats] == ["0", "1", "2", "again"]


def test_a_failure_waits_for_nobody() -> None:
    here, over = threading.Event(), threading.Event()
    waited = []

    def answer(asked: Asked) -> Reply:
        if asked.text == "slow":
            here.set()
            waited.append(over.wait(SAFE))
            return said("slow")
        here.wait(SAFE)
        return refused(400, "enough")

    with serving(answer) as server:
        with pytest.raises(BackendError, match="enough"):
            endpoint(server, in_flight=2).generate([chat("slow"), chat("fast")])
        assert waited == []
        over.set()


# A shell's background job ignores SIGINT, and so would all that it starts.
PROGRAM = """
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)
from vmr.backends.http.endpoint import Endpoint
from vmr.backends.spec import parse
model = Endpoint.from_spec(parse(sys.argv[1] + ",model=seer,retries=0"))
model.generate([[{"role": "user", "content": text}] for text in sys.argv[2:]])
"""


@pytest.fixture
def held() -> Iterator[tuple[Server, threading.Event]]:
    """A server that does not answer to "slow", and what says that it was asked."""
    here, over = threading.Event(), threading.Event()

    def answer(asked: Asked) -> Reply:
        if asked.text == "slow":
            here.set()
            over.wait(4 * SAFE)
            return said("slow")
        here.wait(SAFE)
        return refused(400, "enough")

    with serving(answer) as server:
        yield server, here
        over.set()


@pytest.mark.parametrize("prompts", [["slow"], ["slow", "fast"]])
def test_a_program_ends_although_a_request_is_under_way(
    held: tuple[Server, threading.Event], prompts: list[str]
) -> None:
    server, here = held
    command = [sys.executable, "-c", PROGRAM, server.url, *prompts]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as program:
        assert here.wait(SAFE)
        if prompts == ["slow"]:
            program.send_signal(signal.SIGINT)
        try:
            _, errors = program.communicate(timeout=SAFE)
        finally:
            program.kill()
    assert errors.splitlines()[-1].startswith(
        "KeyboardInterrupt" if prompts == ["slow"] else "vmr.errors.BackendError: endpoint http:"
    )
    assert program.returncode == (-signal.SIGINT if prompts == ["slow"] else 1)
