"""The two pattern languages of a card: globs that pick files, and path rules that read keys out of a path.

Both look at a path below the dataset's files, with forward slashes, and ignore case.

    matches("Masks/mask_*.png", "BUSBRA/Masks/mask_0001-l.png")   -> True
    key_of(r"mask_(\\d+)-([a-z])", "BUSBRA/Masks/mask_0001-l.png") -> "0001_l"
"""

from __future__ import annotations

import functools
import re
from typing import NewType

Glob = NewType("Glob", str)
"""`*` and `?` stay inside a folder, `**` crosses folders, `{a,b}` is a choice. A glob may start at any folder of the
path, so that an outer folder of an archive does no harm; a leading `/` ties it to the root."""

PathRule = NewType("PathRule", str)
"""A regular expression searched in the path; its groups, joined by `_`, are the key (groups that took no part are left
out). It must have a group."""


def matches(glob: str, path: str) -> bool:
    """Whether the glob picks the path."""
    return compile_glob(glob).match(path) is not None


def key_of(rule: str, path: str) -> str | None:
    """The key that the rule reads out of the path; None where it does not match, or only with empty groups."""
    found = compile_rule(rule).search(path)
    return "_".join(g for g in found.groups() if g) or None if found else None


@functools.cache
def compile_rule(rule: str) -> re.Pattern[str]:
    """The regular expression of a path rule.

    Raises:
        ValueError: not a regular expression, or one without a group.
    """
    try:
        compiled = re.compile(rule, re.IGNORECASE)
    except re.error as error:
        raise ValueError(f"a regular expression ({error})") from error
    if not compiled.groups:
        raise ValueError("a regular expression with a group")
    return compiled


@functools.cache
def compile_glob(glob: str) -> re.Pattern[str]:
    """The glob as a regular expression over the whole path.

    Raises:
        ValueError: braces that do not close, or a backslash.
    """
    if "\\" in glob:
        raise ValueError("a glob with forward slashes")
    if glob.count("{") != glob.count("}"):
        raise ValueError("a glob whose braces close")
    body = "".join(
        _translate(token) for token in re.findall(r"\*\*/|\*\*|\*|\?|\{[^{}]*\}|[^*?{}]+", glob.removeprefix("/"))
    )
    return re.compile(("" if glob.startswith("/") else "(?:.*/)?") + body + r"\Z", re.IGNORECASE | re.DOTALL)


def _translate(token: str) -> str:
    wild = {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}
    if token in wild:
        return wild[token]
    if token.startswith("{"):
        return "(?:" + "|".join(_inside(choice) for choice in token[1:-1].split(",")) + ")"
    return re.escape(token)


def _inside(choice: str) -> str:
    return "".join(_translate(t) for t in re.findall(r"\*\*/|\*\*|\*|\?|[^*?]+", choice))
