"""The de-identification policy: an ordered list of small rules, each of which can say what it does.

The list is data, `data/deid_allowlist.toml`. Header rules are an allow-list of (attribute path, value rule): what none
of them names is left out, since a new data set is built up and the old one is never pruned. The rules for files and
pixels stand there as words; `openus_data/deidentify.py` carries them out under the same names. `describe()` prints the
whole policy, and a test holds the page `docs/explain/deidentification.md` to it.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

from pydicom.datadict import dictionary_VM, dictionary_VR, tag_for_keyword

from openus_data.deid import replacements, values
from openus_data.deid.replacements import Context

Stage = Literal["file", "header", "pixels"]
ValueRule = Callable[[object, Context], object]
"""(raw value, context) -> what may be written, or None for "leave it out"."""


def _plain(rule: Callable[[object], object]) -> ValueRule:
    return lambda raw, _context: rule(raw)


VALUE_RULES: Final[Mapping[str, ValueRule]] = {
    "age": _plain(values.age),
    "body_part": _plain(replacements.body_part),
    "code": _plain(replacements.code),
    "compression": _plain(replacements.compression),
    "conversion": _plain(replacements.conversion),
    "coordinate": _plain(values.coordinate),
    "count": _plain(values.count),
    "date": replacements.date,
    "datetime": replacements.datetime,
    "device": replacements.device,
    "empty": _plain(values.empty),
    "frame_pointer": _plain(replacements.frame_pointer),
    "image_type": _plain(replacements.image_type),
    "modality": _plain(replacements.modality),
    "orientation": _plain(replacements.orientation),
    "patient": replacements.patient,
    "real": _plain(values.real),
    "sex": _plain(values.sex),
    "size_m": _plain(values.size_m),
    "standard_tag": _plain(replacements.standard_tag),
    "standard_uid": _plain(values.standard_uid),
    "terms": _plain(replacements.terms),
    "time": replacements.time,
    "transducer": replacements.transducer,
    "uid": replacements.uid,
    "version": _plain(values.version),
    "weight_kg": _plain(values.weight_kg),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """One rule of the policy.

    Args:
        name: as reports and `deid_actions` call it.
        stage: what it looks at.
        says: what it does, for a reviewer.
        value: name of its value rule; empty for rules that are carried out in code.
        paths: attribute paths it lets pass, keywords joined by slashes.
        require: attributes that are written empty where the rule has nothing to say.
    """

    name: str
    stage: Stage
    says: str
    value: str = ""
    paths: tuple[str, ...] = ()
    require: tuple[str, ...] = ()

    def describe(self) -> str:
        """One line of Markdown."""
        listed = f" ({', '.join(f'`{path}`' for path in self.paths)})" if self.paths else ""
        return f"**{self.name}**: {self.says}{listed}"


RULES: Final[tuple[Rule, ...]] = tuple(
    Rule(
        name=table["name"],
        stage=table.get("stage", "header"),
        says=table["says"],
        value=table.get("value", ""),
        paths=tuple(table.get("paths", ())),
        require=tuple(table.get("require", ())),
    )
    for table in replacements.load_allowlist()["rule"]
)
"""The policy, in the order of `data/deid_allowlist.toml`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """What the allow-list says of one tag: let a value pass, or look inside a sequence.

    Args:
        tag: of the attribute.
        vr: value representation by the standard's dictionary.
        rule: name of the rule, empty for a sequence to look into.
        value: the value rule, None for a sequence to look into.
        most: how many values the standard's dictionary allows; None for any number.
        children: steps inside the sequence.
    """

    tag: int
    vr: str
    rule: str
    value: ValueRule | None
    most: int | None
    children: Mapping[int, Step]


@functools.cache
def steps() -> Mapping[int, Step]:
    """The allow-list as a tree of tags."""
    tree: dict[str, Any] = {}
    for rule in RULES:
        for path in rule.paths:
            node = tree
            *parents, leaf = path.split("/")
            for parent in parents:
                node = node.setdefault(parent, {})
            node[leaf] = rule
    return _freeze(tree)


def _freeze(tree: Mapping[str, Any]) -> dict[int, Step]:
    frozen = {}
    for keyword, node in tree.items():
        tag = tag_of(keyword)
        rule = node if isinstance(node, Rule) else None
        frozen[tag] = Step(
            tag=tag,
            vr=dictionary_VR(tag),
            rule=rule.name if rule else "",
            value=VALUE_RULES[rule.value] if rule else None,
            most=_most_values(tag),
            children={} if rule else _freeze(node),
        )
    return frozen


def _most_values(tag: int) -> int | None:
    last = dictionary_VM(tag).split("-")[-1]
    return int(last) if last.isdigit() else None


@functools.cache
def required() -> Mapping[int, Step]:
    """Top-level attributes that are always written, with the step that may fill them."""
    return {tag_of(keyword): steps()[tag_of(keyword)] for rule in RULES for keyword in rule.require}


def tag_of(keyword: str) -> int:
    """The tag of a keyword of the standard's dictionary.

    Raises:
        KeyError: the dictionary has no such keyword, so the allow-list is wrong.
    """
    tag = tag_for_keyword(keyword)
    if tag is None:
        raise KeyError(keyword)
    return int(tag)


def describe() -> str:
    """The policy as a numbered Markdown list, in the order in which it is applied."""
    return "\n".join(f"{number}. {rule.describe()}" for number, rule in enumerate(RULES, start=1)) + "\n"
