"""YAML without surprises: plain values, no key twice, no aliases. Loaded where a file is read: it takes its time."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import yaml


def parse_yaml(text: str) -> Any:
    """The plain values of a document.

    Raises:
        ValueError: it is no such YAML.
    """
    try:
        return yaml.load(text, Loader=_StrictLoader)
    except (yaml.YAMLError, RecursionError) as error:
        raise ValueError(str(error)) from error


class _StrictLoader(yaml.SafeLoader):
    """Plain YAML values; a key that stands twice is an error, aliases are not followed."""

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        if self.check_event(yaml.events.AliasEvent):
            raise yaml.YAMLError("aliases are not allowed in a recipe")
        return super().compose_node(parent, index)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys: Iterable[Any] = [self.construct_object(key, deep=True) for key, _ in node.value]
        seen: set[str] = set()
        for key in keys:
            if str(key) in seen:
                raise yaml.YAMLError(f"the key {key!r} stands twice")
            seen.add(str(key))
        return super().construct_mapping(node, deep=deep)
