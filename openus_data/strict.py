"""Strict loading of declarative files into frozen dataclasses: what is not declared is refused, with the nearest name.

A dataclass is the whole description: its field names are the keys (a trailing underscore is dropped, so `class_` reads
the key `class`), its annotations are the types, its defaults say what may be left out, and the `Args:` section of its
docstring documents each key (`field_docs`). A `hooks` table turns named types (`NewType`) into checks of one value.

    device = load(Device, {"model": "C51"}, where="a.toml: devices.0", hooks={})
"""

from __future__ import annotations

import dataclasses
import difflib
import functools
import re
import types
import typing
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeVar, Union, get_args, get_origin

from openus_data.errors import CardError

T = TypeVar("T")
Hook = Callable[[str], str | None]
"""Takes the text of a value; returns None where it is right, else what would have been right."""

_PLAIN: dict[Any, tuple[str, tuple[type, ...]]] = {
    str: ("a text", (str,)),
    bool: ("true or false", (bool,)),
    int: ("a whole number", (int,)),
    float: ("a number", (int, float)),
}
_UNIONS = (Union, types.UnionType)


@dataclass(frozen=True, slots=True, kw_only=True)
class FieldDoc:
    """One key of a declarative file, for the reference pages.

    Args:
        name: dotted key; `[]` behind a table that repeats.
        type: what the value is, for a reader.
        required: whether it must be given.
        default: the value where it is left out, as TOML would write it; empty for required keys.
        meaning: one or two sentences.
    """

    name: str
    type: str
    required: bool
    default: str
    meaning: str


def load(kind: type[T], raw: object, *, where: str, hooks: Mapping[Any, Hook]) -> T:
    """Build a dataclass from parsed TOML.

    Args:
        kind: the dataclass.
        raw: the parsed table.
        where: file and key, for the message.
        hooks: per named type, the check of one value.

    Raises:
        CardError: an unknown, missing or wrong key; names the file, the key and what was expected.
    """
    if not isinstance(raw, Mapping):
        raise CardError("wrong kind of value", where=where, expected="a table", got=type(raw).__name__)
    fields = _fields(kind)
    hints = _hints(kind)
    for key in raw:
        if key not in fields:
            raise _unknown(key, tuple(fields), where)
    values: dict[str, object] = {}
    for key, field in fields.items():
        if key in raw:
            values[field.name] = _value(hints[field.name], raw[key], where=f"{where}.{key}", hooks=hooks)
        elif _is_required(field):
            raise CardError("a required key is missing", where=f"{where}.{key}")
    return kind(**values)


def field_docs(kind: type[Any], *, prefix: str = "") -> tuple[FieldDoc, ...]:
    """The keys of a dataclass and of those inside it, in the order of the file.

    Raises:
        KeyError: a field is missing from the docstring; a test holds that this never happens.
    """
    meanings, hints = _argument_docs(kind), _hints(kind)
    docs: list[FieldDoc] = []
    for key, field in _fields(kind).items():
        hint = hints[field.name]
        inner, repeats = _inner_dataclass(hint)
        docs.append(
            FieldDoc(
                name=f"{prefix}{key}{'[]' if repeats else ''}",
                type="table" if inner else describe_type(hint),
                required=_is_required(field),
                default="" if _is_required(field) else _default_text(field),
                meaning=meanings[field.name],
            )
        )
        if inner:
            docs.extend(field_docs(inner, prefix=f"{prefix}{key}{'[]' if repeats else ''}."))
    return tuple(docs)


def describe_type(hint: Any) -> str:
    """A type for a reader, for example `list of glob`."""
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in _UNIONS:
        return " or ".join(describe_type(a) for a in arguments if a is not type(None))
    if origin is tuple:
        return f"list of {describe_type(arguments[0])}"
    if origin is Literal:
        return " | ".join(str(a) for a in arguments)
    if origin is not None and issubclass(origin, Mapping):
        return f"table of {describe_type(arguments[1])}"
    if isinstance(hint, typing.NewType):
        return str(hint.__name__)
    return _PLAIN[hint][0].removeprefix("a ") if hint in _PLAIN else str(hint.__name__)


def _value(hint: Any, raw: object, *, where: str, hooks: Mapping[Any, Hook]) -> object:
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in _UNIONS:
        return _value(next(a for a in arguments if a is not type(None)), raw, where=where, hooks=hooks)
    if origin is tuple:
        _require(isinstance(raw, list), "a list", raw, where)
        return tuple(
            _value(arguments[0], r, where=f"{where}.{i}", hooks=hooks)
            for i, r in enumerate(typing.cast(list[object], raw))
        )
    if origin is Literal:
        if raw not in arguments:
            raise _bad_choice(raw, arguments, where)
        return raw
    if origin is not None and issubclass(origin, Mapping):
        _require(isinstance(raw, Mapping), "a table", raw, where)
        items = typing.cast(Mapping[str, object], raw).items()
        return {k: _value(arguments[1], v, where=f"{where}.{k}", hooks=hooks) for k, v in items}
    if dataclasses.is_dataclass(hint):
        return load(typing.cast(type[Any], hint), raw, where=where, hooks=hooks)
    return _scalar(hint, raw, where=where, hooks=hooks)


def _scalar(hint: Any, raw: object, *, where: str, hooks: Mapping[Any, Hook]) -> object:
    base = hint.__supertype__ if isinstance(hint, typing.NewType) else hint
    words, kinds = _PLAIN[base]
    _require(isinstance(raw, kinds) and (base is bool or not isinstance(raw, bool)), words, raw, where)
    if isinstance(raw, str) and not raw.strip():
        raise CardError("an empty text", where=where, next_step="leave the key out where the fact is not known")
    if hint in hooks and (expected := hooks[hint](str(raw))):
        raise CardError("bad value", where=where, expected=expected, got=repr(raw))
    return raw


def _require(condition: bool, expected: str, raw: object, where: str) -> None:
    if not condition:
        raise CardError("wrong kind of value", where=where, expected=expected, got=f"{type(raw).__name__} {raw!r:.60}")


def _bad_choice(raw: object, choices: tuple[object, ...], where: str) -> CardError:
    near = difflib.get_close_matches(str(raw), [str(c) for c in choices], n=1)
    return CardError(
        "unknown value",
        where=where,
        expected="one of " + ", ".join(str(c) for c in choices),
        got=repr(raw),
        next_step=f"did you mean {near[0]!r}?" if near else "",
    )


def _unknown(key: str, known: tuple[str, ...], where: str) -> CardError:
    near = difflib.get_close_matches(key, known, n=1)
    return CardError(
        "unknown key",
        where=f"{where}.{key}",
        next_step=f"did you mean {near[0]!r}?" if near else "known keys: " + ", ".join(known),
    )


@functools.cache
def _fields_of(kind: Hashable) -> dict[str, dataclasses.Field[Any]]:
    fields = dataclasses.fields(typing.cast(type[Any], kind))
    return {f.name.removesuffix("_"): f for f in fields if f.init and not f.metadata.get("derived")}


@functools.cache
def _hints_of(kind: Hashable) -> dict[str, Any]:
    return typing.get_type_hints(kind)


def _fields(kind: type[Any]) -> dict[str, dataclasses.Field[Any]]:
    return _fields_of(typing.cast(Hashable, kind))


def _hints(kind: type[Any]) -> dict[str, Any]:
    return _hints_of(typing.cast(Hashable, kind))


def _is_required(field: dataclasses.Field[Any]) -> bool:
    return field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING


def _default_text(field: dataclasses.Field[Any]) -> str:
    value = field.default_factory() if field.default_factory is not dataclasses.MISSING else field.default
    if value is None:
        return "unknown"
    if isinstance(value, bool):
        return str(value).lower()
    if value == () or value == {}:
        return "none"
    return f'"{value}"' if isinstance(value, str) else str(value)


def _inner_dataclass(hint: Any) -> tuple[type[Any] | None, bool]:
    """The dataclass inside an annotation, and whether it repeats."""
    if get_origin(hint) in _UNIONS:
        return _inner_dataclass(next(a for a in get_args(hint) if a is not type(None)))
    if get_origin(hint) is tuple:
        inner = _inner_dataclass(get_args(hint)[0])[0]
        return inner, inner is not None
    return (typing.cast(type[Any], hint), False) if dataclasses.is_dataclass(hint) else (None, False)


def _argument_docs(kind: type[Any]) -> dict[str, str]:
    """Name to meaning, from the `Args:` section of a Google-style docstring."""
    section = (kind.__doc__ or "").partition("Args:\n")[2]
    docs: dict[str, str] = {}
    names: list[str] = []
    for line in section.splitlines():
        head = re.match(r" {8}(\w+(?:, \w+)*): (.*)", line)
        if head:
            names = head[1].split(", ")
            docs.update(dict.fromkeys(names, head[2].strip()))
        elif line.strip():
            docs.update({n: f"{docs[n]} {line.strip()}" for n in names})
        else:
            names = []
    return docs
