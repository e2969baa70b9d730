"""The policy describes itself, and its data is right."""

from __future__ import annotations

from pathlib import Path

import pydicom.datadict
import pytest

from openus_data.deid import policy

PAGE = Path(__file__).resolve().parents[2] / "docs" / "explain" / "deidentification.md"


def test_rules_have_unique_names_and_say_what_they_do() -> None:
    names = [rule.name for rule in policy.RULES]
    assert len(set(names)) == len(names)
    assert all(rule.says and rule.stage in ("file", "header", "pixels") for rule in policy.RULES)


def test_every_path_is_of_the_standard_and_has_one_rule() -> None:
    paths = [path for rule in policy.RULES for path in rule.paths]
    assert len(set(paths)) == len(paths)
    for keyword in {keyword for path in paths for keyword in path.split("/")}:
        assert policy.tag_of(keyword) >> 16 not in (0x5000, 0x6000, 0x0070), keyword


def test_every_value_rule_is_used_and_every_used_one_exists() -> None:
    assert {rule.value for rule in policy.RULES if rule.value} == set(policy.VALUE_RULES)


def test_required_attributes_are_in_the_allow_list() -> None:
    assert set(policy.required()) <= set(policy.steps())


@pytest.mark.parametrize(
    "keyword",
    ["DeviceSerialNumber", "StationName", "DeviceUID", "InstitutionName", "OperatorsName", "UniqueDeviceIdentifier",
     "TransducerIdentificationSequence", "ContentSequence", "PatientBirthDateInAlternativeCalendar", "ImageComments",
     "OverlayDescription", "IconImageSequence", "RequestAttributesSequence"],
)  # fmt: skip
def test_what_identifies_is_in_no_path(keyword: str) -> None:
    assert pydicom.datadict.tag_for_keyword(keyword) is not None or keyword == "OverlayDescription"
    assert not any(keyword in path.split("/") for rule in policy.RULES for path in rule.paths)


def test_the_page_prints_the_policy_as_it_is() -> None:
    """To bring it up to date: `python tests/data/test_deid_policy.py`."""
    assert _with_policy(PAGE.read_text("utf-8")) == PAGE.read_text("utf-8")


def _with_policy(page: str) -> str:
    before, rest = page.split("<!-- policy:begin -->\n")
    _, after = rest.split("<!-- policy:end -->")
    return f"{before}<!-- policy:begin -->\n{policy.describe()}<!-- policy:end -->{after}"


if __name__ == "__main__":
    PAGE.write_text(_with_policy(PAGE.read_text("utf-8")), "utf-8")
