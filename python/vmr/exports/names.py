"""File names made of templates, and safe wherever the files go."""

from __future__ import annotations

import re
import string
import unicodedata
from collections.abc import Iterable, Mapping, Sequence

from vmr.errors import InputError
from vmr.settings import nearest

Value = str | int | float

UNNAMED = "unnamed"
_ANY = "\ue000"  # stands for a number that is not known yet; of private use
_LONGEST = 200  # bytes of UTF-8; file systems take 255, some 143 less what they add themselves
_FORBIDDEN = set('<>:"/\\|?*')  # Windows refuses them, and "/" is everybody's
_JOINERS = "\u200c\u200d"  # of scripts and emoji; other format characters only hide something
_DEVICES = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\.|$)", re.IGNORECASE)


class Template:
    """A file name with fields in braces, as of ``str.format``: ``{video}-{rank:02d}``.

    Args:
        text: The template, without a suffix.
        fields: A sample value for each field that is allowed.
        where: What it is called in errors.

    Attributes:
        used: The fields that occur in it.

    Raises:
        InputError: It is empty, holds a path separator, a field that is not allowed, or a format that
            does not fit the field.
    """

    def __init__(self, text: str, fields: Mapping[str, Value], *, where: str = "name") -> None:
        self._text = text
        allowed = ", ".join(f"{{{name}}}" for name in fields)
        if not text.strip() or set(text) & set("/\\"):
            raise InputError(
                f"{where}: expected a file name without folders, of text and {allowed}; got {text!r}"
            )
        try:
            self._parts = list(string.Formatter().parse(text))
        except ValueError as error:
            raise InputError(f"{where}: {text!r}: {error}") from None
        for _, field, spec, conversion in self._parts:
            if field is None:
                continue
            if field not in fields:
                hint = nearest(field, fields)
                raise InputError(
                    f"{where}: expected fields of {allowed}; got {{{field}}} in {text!r}{hint}"
                )
            try:
                if conversion or "{" in (spec or "") or re.search(r"\d{3}", spec or ""):
                    raise ValueError("no conversion, nothing nested, no width above 99")
                format(fields[field], spec or "")
            except ValueError as error:
                raise InputError(
                    f"{where}: the format of {{{field}}} in {text!r} does not fit: {error}"
                ) from None
        self.used = frozenset(field for _, field, _, _ in self._parts if field is not None)

    def render(self, values: Mapping[str, Value]) -> str:
        """The name for these values; a long text is shortened so that the rest of the name stays.

        Numbers without a format get three decimals. In a query the spaces become hyphens.
        """
        name = ""
        for room in (_LONGEST, 120, 80, 50, 30, 20):
            name = safe("".join(self._rendered(values, room)))
            if len(name.encode()) <= _LONGEST:
                break
        return _shortened(name, _LONGEST) or UNNAMED

    def pattern(self, values: Mapping[str, Value]) -> re.Pattern[str]:
        """What :meth:`render` gives for these values and any numbers in the other fields."""
        name = re.escape(self.render(values))
        return re.compile(name.replace(_ANY, r"[-+ ]*[\d.,_]+%?"))

    def _rendered(self, values: Mapping[str, Value], room: int) -> Iterable[str]:
        for literal, field, spec, _ in self._parts:
            yield literal
            if field is None:
                continue
            if field not in values:
                yield _ANY
                continue
            value = values[field]
            if isinstance(value, str):
                value = _shortened(safe(value), room)
                value = value.replace(" ", "-") if field == "query" else value
            yield format(value, spec or (".3f" if isinstance(value, float) else ""))


def safe(text: str) -> str:
    """A text as part of a file name: one line, letters of any script kept, maybe empty.

    What some system refuses becomes a space; dots and spaces go from both ends.
    """
    kept = []
    for character in unicodedata.normalize("NFC", text):
        kind = unicodedata.category(character)
        if character in _FORBIDDEN or kind in ("Cc", "Zl", "Zp"):
            kept.append(" ")
        elif kind not in ("Cf", "Cs") or character in _JOINERS:
            kept.append(character)
    name = " ".join("".join(kept).split()).strip(". ")
    return f"_{name}" if _DEVICES.match(name) else name


def told_apart(names: Sequence[str], taken: Iterable[str] = ()) -> list[str]:
    """The names with ``-2``, ``-3``, ... added to those that came before, whatever their case."""
    seen = {name.casefold() for name in taken}
    apart = []
    for name in names:
        number, candidate = 1, name
        while candidate.casefold() in seen:
            number += 1
            candidate = f"{name}-{number}"
        seen.add(candidate.casefold())
        apart.append(candidate)
    return apart


def _shortened(text: str, room: int) -> str:
    return text.encode()[:room].decode(errors="ignore").rstrip(". ")
