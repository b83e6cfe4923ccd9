"""A scripted OpenAI-compatible server, which the other tests of endpoints share, and its own test."""

from __future__ import annotations

import json
import threading
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

SAFE = 30.0
"""Seconds after which a server that waits for requests gives up, so that a test fails and ends."""


@dataclass
class Asked:
    """A request that came in."""

    method: str
    path: str
    headers: dict[str, str]
    body: dict[str, Any]

    @property
    def text(self) -> str:
        """What the last turn says."""
        content = self.body["messages"][-1]["content"]
        return content if isinstance(content, str) else str(content[0]["text"])

    @property
    def picture(self) -> str:
        """The address of the picture in the last turn; "" where there is none."""
        content = self.body["messages"][-1]["content"]
        return "" if isinstance(content, str) else str(content[1]["image_url"]["url"])


@dataclass
class Reply:
    """A response. A body that is no text is sent as JSON."""

    body: Any
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)


def said(text: object, finish: str = "stop") -> Reply:
    """A chat completion."""
    message = {"role": "assistant", "content": text}
    return Reply({"choices": [{"index": 0, "finish_reason": finish, "message": message}]})


def refused(status: int, message: str, **headers: str) -> Reply:
    """An error as OpenAI words it."""
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    return Reply({"error": {"message": message, "type": "error"}}, status, names)


class Server(ThreadingHTTPServer):
    """Answers chats as ``answer`` says, and keeps what it was asked in ``asked``."""

    daemon_threads = True
    request_queue_size = 64

    def __init__(self, answer: Callable[[Asked], Reply], models: Reply) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.answer = answer
        self.models = models
        self.asked: list[Asked] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/v1"

    @property
    def chats(self) -> list[Asked]:
        """What it was asked, without the lists of models."""
        return [asked for asked in self.asked if asked.method == "POST"]


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: Server

    def do_GET(self) -> None:
        self._answer({})

    def do_POST(self) -> None:
        self._answer(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))

    def _answer(self, body: dict[str, Any]) -> None:
        headers = {name.lower(): value for name, value in self.headers.items()}
        asked = Asked(self.command, self.path, headers, body)
        self.server.asked.append(asked)
        listing = self.path.endswith("/models")
        reply = self.server.models if listing else self.server.answer(asked)
        text = isinstance(reply.body, str)
        content = reply.body.encode() if text else json.dumps(reply.body).encode()
        try:
            self.send_response(reply.status)
            kind = "text/html" if text else "application/json"
            given = {"Content-Type": kind, "Content-Length": str(len(content)), **reply.headers}
            for name, value in given.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(content)
        except OSError:
            self.close_connection = True  # whoever asked is gone

    def log_message(self, format: str, *args: Any) -> None:
        pass


def listed(*models: str) -> Reply:
    """A list of models."""
    return Reply({"object": "list", "data": [{"id": model, "object": "model"} for model in models]})


@contextmanager
def serving(answer: Callable[[Asked], Reply], *models: str) -> Iterator[Server]:
    """A server on a free port; it lists the models ("seer", where none is named)."""
    with Server(answer, listed(*(models or ("seer",)))) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


class Gate:
    """Holds requests until a number of them is there, and lets go one at a time.

    So it opens only for a client that sends the next request as soon as one is answered, and has
    always as many under way. The first time, it gives one too many a moment to show up.

    Args:
        slots: How many have to be there.
        total: How many come in all: the last ones are let go together.
    """

    def __init__(self, slots: int, total: int) -> None:
        self.most = 0  # requests that were there at once
        self._slots, self._total = slots, total
        self._arrived = self._here = self._free = 0
        self._change = threading.Condition()

    def pass_through(self) -> bool:
        """Waits for its turn; False where it did not come."""
        with self._change:
            self._arrived += 1
            self._here += 1
            self.most = max(self.most, self._here)
            self._change.notify_all()
            if self._arrived == self._slots:
                self._change.wait_for(lambda: self._here > self._slots, 0.3)
            if self._arrived == self._total:
                self._free = self._here
            elif self._here >= self._slots:
                self._free += 1
            self._change.notify_all()
            came = self._change.wait_for(lambda: self._free > 0, SAFE)
            self._free -= came
            self._here -= 1
            return came


def test_the_server_answers_as_it_is_told() -> None:
    with serving(lambda asked: said(f"{asked.body['n']} at {asked.path}"), "one", "two") as server:
        with urllib.request.urlopen(f"{server.url}/models") as response:
            assert [model["id"] for model in json.load(response)["data"]] == ["one", "two"]
        request = urllib.request.Request(f"{server.url}/chat/completions", b'{"n": 7}')
        with urllib.request.urlopen(request) as response:
            answer = json.load(response)["choices"][0]["message"]["content"]
    assert answer == "7 at /v1/chat/completions"
    assert [asked.path for asked in server.asked] == ["/v1/models", "/v1/chat/completions"]


def test_the_gate_opens_one_at_a_time() -> None:
    gate, passed, ended = Gate(2, 3), [], threading.Event()

    def go(number: int) -> None:
        passed.append((number, gate.pass_through()))
        ended.set()

    threads = [threading.Thread(target=go, args=(number,)) for number in range(3)]
    for thread in threads[:2]:
        thread.start()
    assert ended.wait(SAFE)
    assert len(passed) == 1  # the other one waits for the third
    threads[2].start()
    for thread in threads:
        thread.join(SAFE)
    assert sorted(passed) == [(0, True), (1, True), (2, True)]
    assert gate.most == 2
