"""Strict YAML into frozen dataclasses: unknown keys, wrong types and impossible values are errors that name the key.

A file may start from another with `extends: NAME`; `section.key=value` overrides come last.
"""

from __future__ import annotations

import dataclasses
import difflib
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar

import yaml

from openus_model.errors import RecipeError

Typed = TypeVar("Typed")


def plain(value: Any) -> Any:
    """Nested dataclass values as YAML has them: tuples become lists."""
    if isinstance(value, dict):
        return {k: plain(v) for k, v in value.items()}
    return [plain(v) for v in value] if isinstance(value, tuple) else value


def read_tree(path: Path, find: Callable[[str], Path], seen: tuple[Path, ...] = ()) -> dict[str, Any]:
    """A file's tree laid over the one it extends.

    Args:
        path: a YAML file.
        find: where a recipe that is extended by name lies; a file beside `path` comes first.
        seen: files that led here, to catch circles.

    Raises:
        RecipeError: not YAML, not a mapping, or a circle.
    """
    try:
        tree = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        mark = getattr(error, "problem_mark", None)
        raise RecipeError("not YAML", where=f"{path.name}:{mark.line + 1}" if mark else path.name) from error
    if not isinstance(tree, dict):
        raise RecipeError("not a recipe", where=path.name, expected="sections with keys", got=type(tree).__name__)
    parent = tree.pop("extends", None)
    if parent is None:
        return tree
    if path in seen:
        raise RecipeError("recipes extend each other in a circle", where=path.name)
    sibling = path.parent / str(parent)
    base = read_tree(sibling if sibling.is_file() else find(str(parent)), find, (*seen, path))
    base.pop("name", None)
    return _merge(base, tree)


def _merge(below: dict[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(below)
    for key, value in above.items():
        old = merged.get(key)
        merged[key] = _merge(old, value) if isinstance(old, dict) and isinstance(value, dict) else value
    return merged


def override(tree: dict[str, Any], text: str) -> None:
    """Apply one `section.key=value`; the value is YAML.

    Raises:
        RecipeError: no `=`, a section that is a value, or a value that is not YAML.
    """
    key, equals, raw = text.partition("=")
    if not equals:
        raise RecipeError("not an override", where=text, expected="section.key=value")
    *sections, last = key.strip().split(".")
    for section in sections:
        tree = tree.setdefault(section, {})
        if not isinstance(tree, dict):
            raise RecipeError("not a section", where=key.strip())
    try:
        tree[last] = yaml.safe_load(raw)
    except yaml.YAMLError as error:
        raise RecipeError("the value is not YAML", where=text) from error


def build_typed(owner: type[Typed], tree: Mapping[str, Any], *, where: str) -> Typed:
    """A frozen dataclass, nested ones included, from a tree.

    Args:
        owner: the dataclass; a key that is missing takes its default.
        tree: keys and values as YAML gives them.
        where: file name for messages.

    Raises:
        RecipeError: an unknown key (with the nearest name), a value of another type, or one its class refuses.
    """
    return typing.cast(Typed, _build(owner, tree, prefix="", where=where))


def _build(owner: type[Any], tree: Any, *, prefix: str, where: str) -> Any:
    """A frozen dataclass from a tree, refusing whatever it does not know."""
    if not isinstance(tree, dict):
        raise RecipeError("not a section", where=f"{where}: {prefix.rstrip('.')}", expected="keys", got=str(tree))
    hints = typing.get_type_hints(owner)
    for key in tree:
        if key not in hints:
            raise RecipeError(f"unknown key {prefix}{key}", where=where, next_step=nearest(str(key), tuple(hints)))
    values = {key: _value(hints[key], raw, key=f"{prefix}{key}", where=where) for key, raw in tree.items()}
    try:
        return owner(**values)
    except RecipeError as error:
        raise RecipeError(str(error), where=where) from None


def _value(hint: Any, raw: Any, *, key: str, where: str) -> Any:
    if dataclasses.is_dataclass(hint):
        return _build(typing.cast(type, hint), raw, prefix=f"{key}.", where=where)
    try:
        return _convert(hint, raw)
    except (TypeError, ValueError):
        expected = _hint_name(hint)
        near = nearest(str(raw), tuple(map(str, typing.get_args(hint)))) if "Literal" in str(hint) else ""
        raise RecipeError(
            "wrong value", where=f"{where}: {key}", expected=expected, got=repr(raw), next_step=near
        ) from None


def _convert(hint: Any, raw: Any) -> Any:
    """A YAML value as the type asked for; text such as `1e-4`, which YAML 1.1 leaves as text, becomes a number."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is Literal:
        if raw in arguments:
            return raw
        raise ValueError(raw)
    if origin in (typing.Union, types.UnionType):
        return None if raw is None else _convert(next(a for a in arguments if a is not type(None)), raw)
    if origin is tuple:
        if not isinstance(raw, (list, tuple)):
            raise TypeError(raw)
        kinds = [arguments[0]] * len(raw) if arguments[-1] is Ellipsis else list(arguments)
        return tuple(_convert(kind, item) for kind, item in zip(kinds, raw, strict=True))
    if hint is float and isinstance(raw, (int, float, str)) and not isinstance(raw, bool):
        return float(raw)
    if type(raw) is hint:
        return raw
    raise TypeError(raw)


def _hint_name(hint: Any) -> str:
    if typing.get_origin(hint) is Literal:
        return "one of " + ", ".join(map(str, typing.get_args(hint)))
    if typing.get_origin(hint) is tuple:
        many = typing.get_args(hint)[-1] is Ellipsis
        return "a list, for example [a, b]" if many else f"a list of {len(typing.get_args(hint))}"
    return getattr(hint, "__name__", str(hint)) if not typing.get_args(hint) else str(hint)


def nearest(name: str, known: Sequence[str]) -> str:
    """A hint for whoever misspelt a name."""
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    return f"did you mean {near[0]}?" if near else f"known: {', '.join(known)}"
