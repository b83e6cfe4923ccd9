"""What went wrong at an OpenAI-compatible endpoint, in words, and without its key."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import openai

# A key of fewer characters is a word that stands there by chance: "none", "ollama". In an answer, which
# is a result and goes into a cache, more words do than in a message, where nothing is lost by them.
_KEY_IN_MESSAGE, _KEY_IN_ANSWER = 4, 8
_SHOWN = 200  # characters of a server's words in a message
_CONTEXT = re.compile(
    r"context.{0,20}(?:length|size|window)|exceed_context|prompt is too long", re.IGNORECASE
)
_PICTURE = re.compile(r"image|mmproj|multi-?modal|vision|content (?:type|part)", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Teller:
    """Tells a user what an endpoint did, in words that never hold the key.

    Args:
        key: The key; "" where there is none.
        key_env: The environment variable that it is from.
    """

    key: str = field(repr=False)
    key_env: str

    def redacted(self, text: str) -> str:
        """A message without the key; what is no key but a word put in its place may stay."""
        return self._without_key(text, _KEY_IN_MESSAGE)

    def redacted_answer(self, text: str) -> str:
        """What a model said, without the key, where that is longer than a word."""
        return self._without_key(text, _KEY_IN_ANSWER)

    def _without_key(self, text: str, least: int) -> str:
        return text.replace(self.key, "<the key>") if len(self.key) >= least else text

    def excerpt(self, body: str) -> str:
        """The beginning of a body: the server's message, where it is an error in JSON."""
        # The key goes first: half of it may be left where a text is cut.
        text = " ".join(self.redacted(_message(body)).split())
        return repr(text if len(text) <= _SHOWN else f"{text[:_SHOWN]}...")

    def told(self, error: openai.OpenAIError, timeout: float, tries: int, *, picture: bool) -> str:
        """What an error of the openai library says to a user.

        Args:
            error: The error.
            timeout: Seconds that each try was given.
            tries: How often it was tried.
            picture: Whether the request held a picture.
        """
        import openai

        often = "" if tries == 1 else f" in up to {tries} tries"
        if isinstance(error, openai.APITimeoutError):
            return (
                f"expected an answer within {timeout:g} s, got none{often}; if the server is only "
                "slow, give it longer (timeout=) or less at once (in_flight=)"
            )
        if isinstance(error, openai.APIStatusError):
            return self._refusal(error.status_code, error.response.text, often, picture=picture)
        cause = error.__cause__ or error
        return f"cannot be reached{often} ({cause}): is the server running, at this address?"

    def _refusal(self, status: int, body: str, often: str, *, picture: bool) -> str:
        told = f"{status}, {self.excerpt(body)}"
        if status in (401, 403):
            if self.key:
                return f"the key in the environment variable {self.key_env} was refused: {told}"
            return (
                f"expected to need no key, got {told}; put the key into the environment variable "
                f"{self.key_env}, or name another variable with key_env="
            )
        if status == 404 and "model" in body.lower():
            return f"the endpoint does not know the model: {told}; load it there (Ollama: pull)"
        if status == 404:
            return (
                f"expected a route /chat/completions there, got {told}; the URL is what comes before "
                "that, and mostly ends in /v1"
            )
        if _CONTEXT.search(body):
            return (
                f"the prompt is too long for the model: {told}; give the server a longer context "
                "(vLLM --max-model-len, llama.cpp -c), or ask for less (max_tokens=)"
            )
        if picture and _PICTURE.search(body):
            return (
                f"the picture was refused: {told}; a captioner needs a vision model (llama.cpp's "
                "server: with --mmproj)"
            )
        if status in (408, 409, 429) or status >= 500:
            return (
                f"expected an answer, got {told}{often}; look at the server, ask for less at once "
                "(in_flight=) or more often (retries=)"
            )
        return f"expected an answer, got {told}"


def _message(body: str) -> str:
    """The message in a body such as {"error": {"message": ...}}, or all of it."""
    try:
        inner: Any = json.loads(body)
    except ValueError:
        return body
    for name in ("error", "message"):
        if isinstance(inner, dict):
            inner = inner.get(name, inner)
    return inner if isinstance(inner, str) else json.dumps(inner, ensure_ascii=False)
