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
        raise InputError(f"{where}: {_said(str(error), kind, value, inside)}") from None


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


def _said(error: str, kind: Any, value: Any, inside: str) -> str:
    """msgspec's message, with the key's full name in front, its value, and the nearest right key."""
    said, _, path = error.partition(" - at `$")
    # msgspec does not say which key of a mapping it was.
    path = re.sub(r"\[(\d+)\]", r".\1", path.rstrip("`").replace("[...]", ".*"))
    names = [name for name in path.split(".") if name]
    place = ".".join(filter(None, [inside, *names]))
    if match := re.search(r"unknown field `(.+?)`", said):
        full = ".".join(filter(None, [place, match[1]]))
        return f"unknown key {full}{_hint(kind, names, match[1], inside)}"
    said = f"{said[:1].lower()}{said[1:]}"
    for name in names:
        value = value.get(name) if isinstance(value, dict) else None
    if said.startswith("invalid enum value"):
        allowed = _allowed(kind, names)
        came = said.removeprefix("invalid enum value ")
        hint = nearest(came.strip("'"), allowed)
        return f"{place}: expected one of {', '.join(allowed)}; got {came}{hint}"
    came = f" ({value!r})" if isinstance(value, str | int | float) else ""
    return f"{place}: {said}{came}" if place else said


def _hint(kind: Any, names: Sequence[str], name: str, inside: str) -> str:
    """The key that was meant: one beside it that is spelled alike, or one of the same name elsewhere."""
    here = _fields(kind, names)
    near = difflib.get_close_matches(name, here, n=1, cutoff=0.6)
    if near:
        found = [".".join([*names, near[0]])]
    else:
        found = [path for path in _paths(kind) if path.rpartition(".")[2] == name]
    if found:
        return f"; did you mean {'.'.join(filter(None, [inside, found[0]]))!r}?"
    return f"; known here: {', '.join(here)}" if here else ""


def _allowed(kind: Any, names: Sequence[str]) -> list[str]:
    """The values that the type takes under a path, where it names them."""
    *above, last = names
    options = _at(kind, above)
    inner = _struct_fields(options).get(last)
    literals = _options(inner) if inner is not None else ()
    return [str(value) for option in literals for value in getattr(option, "values", ())]


def _fields(kind: Any, names: Sequence[str]) -> list[str]:
    """The keys that the type knows under a path."""
    return list(_struct_fields(_at(kind, names)))


def _at(kind: Any, names: Sequence[str]) -> Sequence[Any]:
    """The types that may stand under a path."""
    options = _options(msgspec.inspect.type_info(kind))
    for name in names:
        if name == "*" or name.isdigit():
            options = [inner for option in options for inner in _elements(option)]
        else:
            inner = _struct_fields(options).get(name)
            options = _options(inner) if inner is not None else ()
    return options


def _paths(kind: Any) -> list[str]:
    """All keys that the type knows, with their full names, but for those inside lists and mappings."""
    found = []

    def walk(options: Sequence[Any], above: str) -> None:
        for name, inner in _struct_fields(options).items():
            found.append(above + name)
            walk(_options(inner), f"{above}{name}.")

    walk(_options(msgspec.inspect.type_info(kind)), "")
    return found


def _options(kind: msgspec.inspect.Type) -> Sequence[Any]:
    return kind.types if isinstance(kind, msgspec.inspect.UnionType) else (kind,)


def _elements(kind: Any) -> Sequence[Any]:
    inner = getattr(kind, "value_type", getattr(kind, "item_type", None))
    return _options(inner) if inner is not None else ()


def _struct_fields(options: Sequence[Any]) -> dict[str, msgspec.inspect.Type]:
    structs = [option for option in options if isinstance(option, msgspec.inspect.StructType)]
    return {field.encode_name: field.type for struct in structs for field in struct.fields}
