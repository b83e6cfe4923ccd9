"""Settings from YAML and from ``key=value`` arguments, as types."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Sequence
from typing import Any, TypeVar

import msgspec
import yaml

from vmr.errors import InputError

T = TypeVar("T")


def load_yaml(raw: bytes | str, where: str) -> Any:
    """YAML as plain values.

    Raises:
        InputError: It is not YAML, with the line.
    """
    try:
        return yaml.load(raw, getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        place = f", line {mark.line + 1}" if mark is not None else ""
        said = getattr(error, "problem", None) or str(error).partition("\n")[0]
        raise InputError(f"{where}{place}: is not YAML: {said}") from None
    except (RecursionError, ValueError, UnicodeDecodeError) as error:
        raise InputError(f"{where}: is not YAML: {error!s:.200}") from None


def dump_yaml(value: Any) -> str:
    """Plain values as YAML, in their order."""
    text: str = yaml.safe_dump(value, sort_keys=False, allow_unicode=True)
    return text


def convert(value: Any, kind: type[T], where: str, inside: str = "") -> T:
    """Plain values as a type.

    Args:
        value: What YAML gave.
        kind: A msgspec Struct, or what it is made of.
        where: File or argument, for the message.
        inside: The key that ``value`` stands under there.

    Raises:
        InputError: A key that the type does not know, with the nearest one that it does, or a value of
            another type; both with their place.
    """
    try:
        # Not strict: YAML takes 1e-4 for text, and a number it shall be.
        return msgspec.convert(value, kind, strict=False)
    except msgspec.ValidationError as error:
        raise InputError(f"{where}: {_said(str(error), kind, inside)}") from None


def nearest(name: str, known: Iterable[str]) -> str:
    """``; did you mean 'x'?`` for the most similar of the known names, or nothing."""
    found = difflib.get_close_matches(name, list(known), n=1, cutoff=0.4)
    return f"; did you mean {found[0]!r}?" if found else ""


def override(value: dict[str, Any], arguments: Sequence[str]) -> None:
    """Puts arguments like ``training.epochs=10`` into nested values, in place.

    Raises:
        InputError: An argument is not of that form, or leads into what is no mapping.
    """
    for argument in arguments:
        path, sign, text = argument.partition("=")
        names = path.split(".")
        if not sign or not all(names):
            raise InputError(
                f"argument {argument!r}: expected KEY=VALUE, such as training.epochs=10"
            )
        inner = value
        for place, name in enumerate(names[:-1], start=1):
            if inner.get(name) is None:
                inner[name] = {}
            inner = inner[name]
            if not isinstance(inner, dict):
                above = ".".join(names[:place])
                raise InputError(f"argument {argument!r}: {above} is one value and has no keys")
        try:
            inner[names[-1]] = load_yaml(text, argument)
        except InputError:
            inner[names[-1]] = text  # such as {root}/train.jsonl


def merged(base: dict[str, Any], change: dict[str, Any]) -> dict[str, Any]:
    """``base`` with the values of ``change``, key by key."""
    both = dict(base)
    for name, value in change.items():
        old = both.get(name)
        both[name] = (
            merged(old, value) if isinstance(old, dict) and isinstance(value, dict) else value
        )
    return both


def _said(error: str, kind: Any, inside: str) -> str:
    """msgspec's message, with the key's full name in front and the nearest right one."""
    said, _, path = error.partition(" - at `$")
    # msgspec does not say which key of a mapping it was.
    path = re.sub(r"\[(\d+)\]", r".\1", path.rstrip("`").replace("[...]", ".*"))
    names = [name for name in path.split(".") if name]
    place = ".".join(filter(None, [inside, *names]))
    if match := re.search(r"unknown field `(.+?)`", said):
        known = _fields(kind, names)
        full = ".".join(filter(None, [place, match[1]]))
        hint = nearest(match[1], known) or (f"; known here: {', '.join(known)}" if known else "")
        return f"unknown key {full}{hint}"
    said = f"{said[:1].lower()}{said[1:]}"
    return f"{place}: {said}" if place else said


def _fields(kind: Any, names: Sequence[str]) -> list[str]:
    """The keys that the type knows under a path."""
    options = _options(msgspec.inspect.type_info(kind))
    for name in names:
        if name == "*" or name.isdigit():
            inner = [
                getattr(option, "value_type", getattr(option, "item_type", None))
                for option in options
            ]
        else:
            inner = [_struct_fields(options).get(name)]
        options = [option for kind in filter(None, inner) for option in _options(kind)]
    return list(_struct_fields(options))


def _options(kind: msgspec.inspect.Type) -> Sequence[Any]:
    return kind.types if isinstance(kind, msgspec.inspect.UnionType) else (kind,)


def _struct_fields(options: Sequence[Any]) -> dict[str, msgspec.inspect.Type]:
    structs = [option for option in options if isinstance(option, msgspec.inspect.StructType)]
    return {field.encode_name: field.type for struct in structs for field in struct.fields}
