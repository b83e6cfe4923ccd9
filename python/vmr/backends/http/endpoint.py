"""Models behind an OpenAI-compatible endpoint: vLLM, Ollama, llama.cpp's server and others.

A model is named by the URL that ``/chat/completions`` and ``/models`` are added to, mostly one that ends
in ``/v1``, and options after commas (:class:`Options`):
``http://localhost:8000/v1,model=Qwen/Qwen2.5-VL-7B-Instruct,in_flight=32``.
"""

from __future__ import annotations

import base64
import os
import re
import threading
import weakref
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any, TypeVar
from urllib.parse import urlsplit

import msgspec
from msgspec import Meta, Struct

from vmr.backends.captioning import whole_sentences
from vmr.backends.http.refusals import Teller
from vmr.backends.http.slots import Slots
from vmr.backends.rewriting import Messages
from vmr.backends.spec import Spec
from vmr.errors import BackendError, InputError
from vmr.settings import nearest

if TYPE_CHECKING:
    import openai

T = TypeVar("T")

_FIRST_TIMEOUT = 10.0  # s, for the list of models
_FIRST_RETRIES = 2
_LISTED = 20  # models in a message
_CANNOT_SEE = re.compile(r"mmproj|multimodal|image input is not supported", re.IGNORECASE)


class Options(Struct, forbid_unknown_fields=True, frozen=True):
    """What may follow the URL of an endpoint.

    Attributes:
        model: The model's name there; "" is the only one that it lists.
        in_flight: Requests under way at once.
        timeout: Seconds without a sign of life after which a request is given up.
        retries: How often a request is repeated after a time-out, a lost connection or an answer 408,
            409, 429 or 5xx: after 0.5 s, 1 s, 2 s and so on up to 8 s, or when the server says
            (Retry-After).
        max_tokens: Length at which an answer is cut off.
        key_env: Environment variable that holds the key. Where it is not set, a placeholder is sent.
    """

    model: str = ""
    in_flight: Annotated[int, Meta(ge=1, le=1000)] = 8
    timeout: Annotated[float, Meta(gt=0, le=86400)] = 120.0
    retries: Annotated[int, Meta(ge=0, le=1000)] = 5
    max_tokens: Annotated[int, Meta(ge=1)] = 128
    key_env: str = "OPENAI_API_KEY"


class _Message(Struct):
    content: str | None = None


class _Choice(Struct):
    message: _Message
    finish_reason: str | None = None


class _Completion(Struct):
    choices: Annotated[list[_Choice], Meta(min_length=1)]


class _Model(Struct):
    id: str


class _Models(Struct):
    data: list[_Model]


class Endpoint:
    """A language model, with or without eyes, behind an OpenAI-compatible endpoint.

    Each prompt and each picture is a request of its own. All calls together, from whatever threads,
    have at most ``in_flight`` of them under way, and as many as that while there are more to come.
    The first request that fails ends its call; what had not begun is not sent any more.

    Decoding is greedy (temperature 0, seed 0; a server that refuses ``seed`` goes without).

    A model that is named is asked for when it is first needed, so that a run whose answers are all in
    the cache needs no server; before the first request the endpoint must list the model, unless it
    has no list. A model that is not named is asked for at once.

    The key goes into the header of the requests and nowhere else: redirects to other hosts go without
    it, and where a server repeats it, it is taken out.

    Args:
        url: What ``/chat/completions`` is added to.
        options: The rest.

    Raises:
        InputError: The URL is none, or has parts that may be secret (user, password, query).
        BackendError: ``openai`` is not installed, or the model had to be asked for and could not be.
    """

    takes_instructions = True

    def __init__(self, url: str, options: Options = Options()) -> None:  # noqa: B008
        self._url = _checked_url(url)
        self._options = options
        self._teller = Teller(_key(options.key_env), options.key_env)
        self._client = _client(self._url, options, self._teller.key)
        self._slots = Slots(options.in_flight)
        self._lock = threading.Lock()
        self._decoding: dict[str, Any] = {
            "max_tokens": options.max_tokens,
            "temperature": 0.0,
            "seed": 0,
        }
        self._model = options.model
        self._met = not options.model
        self._failed, self._told = (
            0,
            "",
        )  # first contacts that failed, and what the last one was told
        if not options.model:
            self._model = self._only_model()
        # Not when the program ends: requests may be under way then.
        weakref.finalize(self, self._client.close).atexit = False

    @classmethod
    def from_spec(cls, spec: Spec) -> Endpoint:
        """The endpoint that a string names.

        Raises:
            InputError: See :class:`Endpoint`; an unknown option, or a value of another type.
            BackendError: See :class:`Endpoint`.
        """
        url = _checked_url(spec.target)
        # A message quotes the text: not with what somebody took for an option that holds the key.
        return cls(url, replace(spec, text=url).options(Options))

    @property
    def name(self) -> str:
        """The model's name and the length of answers.

        Not the address: the same server on another port, or one of several that share the work, is
        the same to the cache. So servers with other weights must give them other names (vLLM:
        ``--served-model-name``, llama.cpp: ``--alias``). Of a path only the file's name counts.
        """
        model = self._model.rpartition("/")[2] if self._model.startswith("/") else self._model
        return f"endpoint's {model} ({self._options.max_tokens} tokens)"

    @property
    def calls_at_once(self) -> int:
        """As many as requests: each call may have only one."""
        return self._options.in_flight

    def generate(self, prompts: Sequence[Messages]) -> list[str]:
        """The assistant's next turn for each chat; an empty string for an answer cut off.

        Raises:
            BackendError: The endpoint cannot be reached, refuses or does not answer as it should.
        """
        self._meet()
        return self._slots.map(self._go_on, prompts)

    def describe(self, jpegs: Sequence[bytes], instruction: str) -> list[str]:
        """What the model says about each picture; of an answer cut off the whole sentences.

        Raises:
            BackendError: As for :meth:`generate`, or the model cannot see.
        """
        self._meet()
        return self._slots.map(partial(self._look, instruction=instruction), jpegs)

    # ---- one request --------------------------------------------------------------------------------

    def _go_on(self, prompt: Messages) -> str:
        answer, whole = self._ask(list(prompt), picture=False)
        return answer if whole else ""

    def _look(self, jpeg: bytes, instruction: str) -> str:
        url = "data:image/jpeg;base64," + base64.b64encode(jpeg).decode()
        parts = [
            {"type": "text", "text": instruction},
            {"type": "image_url", "image_url": {"url": url}},
        ]
        answer, whole = self._ask([{"role": "user", "content": parts}], picture=True)
        return answer if whole else whole_sentences(answer)

    def _ask(self, messages: list[Any], *, picture: bool) -> tuple[str, bool]:
        """The answer to a chat and whether it is whole."""
        import httpx2

        while True:
            decoding = self._decoding
            # The resource's own method looks at every part of the messages, twice the time of the rest.
            asked = {"model": self._model, "messages": messages, **decoding}
            post = partial(self._client.post, "/chat/completions", cast_to=httpx2.Response)
            body, error = self._sent(partial(post, body=asked))
            if error is None:
                break
            other = _other_decoding(decoding, error)
            if other is None:
                raise self._failure(error, self._options, picture=picture)
            self._decoding = other
        choice = self._read(body, _Completion, "a chat completion").choices[0]
        cut = choice.finish_reason == "length"
        if choice.message.content is None and not cut:
            raise self._error(
                "expected a text as the answer, got none (finish_reason "
                f"{choice.finish_reason!r}): {self._teller.excerpt(body)}"
            )
        return self._teller.redacted_answer(choice.message.content or ""), not cut

    def _sent(self, request: Callable[[], Any]) -> tuple[str, openai.OpenAIError | None]:
        """The body of the response, or what went wrong.

        An error is given back, not raised: it holds the key, and would hang on the one that is raised.
        """
        import openai

        try:
            return str(request().text), None
        except openai.OpenAIError as error:
            return "", error

    def _failure(
        self, error: openai.OpenAIError, options: Options, *, picture: bool = False
    ) -> BackendError:
        timeout, tries = options.timeout, options.retries + 1
        return self._error(self._teller.told(error, timeout, tries, picture=picture))

    def _error(self, told: str, *, of_model: bool = True) -> BackendError:
        model = f", model {self._model!r}" if self._model and of_model else ""
        return BackendError(self._teller.redacted(f"endpoint {self._url}{model}: {told}"))

    def _read(self, body: str, kind: type[T], expected: str) -> T:
        try:
            return msgspec.json.decode(body, type=kind)
        except (msgspec.DecodeError, UnicodeError) as error:
            wrong = str(error)
        raise self._error(
            f"expected {expected} in JSON, got {self._teller.excerpt(body)} ({wrong}); "
            "is this the address of an OpenAI-compatible endpoint? It mostly ends in /v1"
        )

    # ---- the first contact --------------------------------------------------------------------------

    def _meet(self) -> None:
        """Before the first request: an endpoint that is down or lacks the model is told soon.

        Who waits meanwhile is told the same; who comes later asks again.
        """
        failed = self._failed
        with self._lock:
            if self._met:
                return
            if self._failed == failed:
                try:
                    self._look_for_model()
                except BackendError as error:
                    # Not the error itself: it holds on to its frames.
                    self._failed, self._told = failed + 1, str(error)
                    raise
                self._met = True
                return
            told = self._told
        raise BackendError(told)

    def _look_for_model(self) -> None:
        models = self._models()
        # Ollama takes a name without its tag.
        if models is not None and not {self._model, f"{self._model}:latest"} & set(models):
            raise self._error(
                f"has no model {self._model!r}; it lists {_listed(models)}"
                f"{nearest(self._model, models)}",
                of_model=False,
            )

    def _only_model(self) -> str:
        models = self._models()
        if models is None:
            raise self._error(
                f"expected a list of models under {self._url}/models, got none; the "
                "URL mostly ends in /v1; if it is right, name the model with model="
            )
        if len(models) != 1:
            raise self._error(f"expected one model, got {_listed(models)}; name one with model=")
        return models[0]

    def _models(self) -> list[str] | None:
        """What the endpoint lists; None where it has no list."""
        first = msgspec.structs.replace(
            self._options,
            timeout=min(self._options.timeout, _FIRST_TIMEOUT),
            retries=min(self._options.retries, _FIRST_RETRIES),
        )
        client = self._client.with_options(timeout=first.timeout, max_retries=first.retries)
        body, error = self._sent(client.models.with_raw_response.list)
        if error is not None:
            if getattr(error, "status_code", None) in (404, 405):
                return None
            raise self._failure(error, first)
        return [model.id for model in self._read(body, _Models, "a list of models").data]


def _checked_url(url: str) -> str:
    """The URL without a slash at its end."""
    try:
        parts = urlsplit(url)
        right = bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:
        right = False
    # An @, ? or # may stand before or after what is secret: the URL is not repeated.
    if not right or not url.isprintable() or set(url) & set("@?# \\"):
        raise InputError(
            "endpoint: expected http://HOST:PORT/v1 or the like, without user, password, query or "
            "fragment, got something else (not repeated here: it may hold what is secret); a key "
            "belongs into the environment variable that the option key_env names"
        )
    return url.rstrip("/")


def _key(variable: str) -> str:
    """The key; "" where there is none."""
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", variable):
        raise InputError(
            "endpoint: key_env: expected the name of an environment variable, got what is none (not "
            "repeated here: it may be the key itself)"
        )
    key = os.environ.get(variable, "").strip()
    if not (key.isascii() and key.isprintable()):
        raise InputError(f"endpoint: expected a key in {variable}, got characters that none has")
    return key


def _client(url: str, options: Options, key: str) -> openai.OpenAI:
    try:
        import openai
    except ImportError as error:
        raise BackendError(
            f"endpoint {url}: openai is not installed ({error}): pip install 'vmr[http]'"
        ) from error
    return openai.OpenAI(
        base_url=url,
        api_key=key or "none",
        timeout=options.timeout,
        max_retries=options.retries,
        http_client=openai.DefaultHttpxClient(
            timeout=options.timeout, event_hooks={"response": [_once]}
        ),
    )


def _once(response: Any) -> None:
    """Spares what is in vain: llama.cpp says 500, and so "again", where a model cannot see."""
    if response.status_code >= 500:
        response.read()
        if _CANNOT_SEE.search(response.text):
            response.headers["x-should-retry"] = "false"


def _other_decoding(decoding: dict[str, Any], error: openai.OpenAIError) -> dict[str, Any] | None:
    """Other words for the same decoding, where the server refused one of these; else None."""
    import openai

    if not isinstance(error, openai.APIStatusError) or error.status_code not in (400, 422):
        return None
    body = error.response.text
    other = dict(decoding)
    if "max_completion_tokens" in body and "max_tokens" in other:
        other["max_completion_tokens"] = other.pop("max_tokens")
    elif re.search(r"\bseed\b", body) and "seed" in other:
        del other["seed"]
    else:
        return None
    return other


def _listed(models: Sequence[str]) -> str:
    shown = ", ".join(models[:_LISTED]) or "none"
    return shown if len(models) <= _LISTED else f"{shown} and {len(models) - _LISTED} more"
