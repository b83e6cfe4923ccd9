"""Which model plays a part, as a string.

``embedded``, ``none``, ``recorded:FILE``, ``transformers:MODEL`` (a folder or an id on the hub) and the
URL of an OpenAI-compatible endpoint. The last two take options after commas:
``transformers:Qwen/Qwen2.5-VL-7B-Instruct,dtype=bfloat16,device=cuda``.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TypeVar

from vmr.errors import InputError
from vmr.settings import convert

T = TypeVar("T")

_OPTION = re.compile(r",(?=[a-z_]+=)")


@dataclass(frozen=True, slots=True)
class Spec:
    """A model as a string names it.

    Attributes:
        text: The string.
        kind: "embedded", "none", "recorded", "transformers", "http", or what else it begins with.
        target: The file, the model or the URL; "" where the kind has none.
        given: Options as they stand there.
    """

    text: str
    kind: str
    target: str
    given: dict[str, str]

    def options(self, kind: type[T]) -> T:
        """The options as their type.

        Raises:
            InputError: An unknown one, with the nearest right one, or a value of another type.
        """
        return convert(self.given, kind, repr(self.text))


def parse(text: str) -> Spec:
    """Takes a string apart.

    Raises:
        InputError: An option stands there twice.
    """
    head, *rest = _OPTION.split(text)
    kind, colon, target = head.partition(":")
    if kind in ("http", "https"):
        kind, target = "http", head
    elif kind != "transformers":
        # A file's name may hold what looks like an option.
        return Spec(text, kind, text[len(kind) + 1 :] if colon else "", {})
    given: dict[str, str] = {}
    for option in rest:
        name, _, value = option.partition("=")
        if name in given:
            raise InputError(f"{text!r}: expected each option once, got {name} twice")
        given[name] = value
    return Spec(text, kind, target, given)
