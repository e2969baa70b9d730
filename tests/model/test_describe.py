"""The description of a backbone against the published table."""

from __future__ import annotations

import json

import pytest

from openus_model.backbones import BACKBONE_NAMES
from openus_model.describe import describe
from openus_model.errors import UsageError


@pytest.mark.parametrize(
    ("name", "parameters"), [("vmamba_tiny", 29_481_504), ("vmamba_small", 49_380_192), ("vmamba_base", 87_534_720)]
)
def test_parameters_are_the_published_ones(name, parameters):
    assert describe(name).to_json()["parameters"] == parameters


@pytest.mark.parametrize(
    ("name", "published"), [("vmamba_tiny", 4.9e9), ("vmamba_small", 8.7e9), ("vmamba_base", 15.4e9)]
)
def test_multiply_adds_are_the_published_ones_to_a_percent(name, published):
    rounding = 0.05e9 / published  # the published figures have one decimal
    assert abs(describe(name).to_json()["multiply_adds"] / published - 1) < 0.01 + rounding


def test_small_has_8_7_giga_multiply_adds_to_a_percent():
    assert describe("vmamba_small").to_json()["multiply_adds"] == pytest.approx(8.7e9, rel=0.01)


def test_stages_halve_and_double():
    small = describe("vmamba_small").to_json()
    assert small["stages"] == ((96, 56, 56), (192, 28, 28), (384, 14, 14), (768, 7, 7))
    assert (small["tokens"], small["embed_dim"]) == (49, 768)


def test_all_backbones_come_with_one_line_each():
    report = describe()
    assert [d["name"] for d in json.loads(json.dumps(report.to_json()))["backbones"]] == list(BACKBONE_NAMES)
    assert len(report.to_text().splitlines()) == len(BACKBONE_NAMES)
    assert report.exit_code == 0


def test_multiply_adds_grow_with_the_image():
    small, large = (describe("vmamba_nano", px).to_json()["multiply_adds"] for px in (96, 192))
    assert small * 4 == pytest.approx(large, rel=0.01)


def test_an_unknown_backbone_is_refused():
    with pytest.raises(UsageError, match="did you mean vmamba_small"):
        describe("vmamba_smal")
