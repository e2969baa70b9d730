"""The vocabulary: one data file, words with codes, makers by their spellings, and no guesses."""

from __future__ import annotations

import re

import pytest
from pydicom.sr._concepts_dict import concepts

from openus_data.vocabulary import load_vocabulary

VOCABULARY = load_vocabulary()


@pytest.mark.parametrize(
    ("raw", "maker"),
    [
        ("G.E. Medical Systems", "ge"),
        ("GE Healthcare", "ge"),
        ("GE Vingmed Ultrasound", "ge"),
        ("Philips Medical Systems", "philips"),
        ("SonoSite, Inc.", "sonosite"),
        ("FUJIFILM SonoSite", "sonosite"),
        ("TOSHIBA_MEC_US", "canon_toshiba"),
        ("TOSHIBA", "canon_toshiba"),
        ("ALOKA CO., LTD.", "hitachi_aloka"),
        ("Aplio 300", "canon_toshiba"),
        ("  siemens   healthineers ", "siemens"),
        ("mindray", "mindray"),
        ("Gedeon", None),
        ("", None),
        ("Unheard Of Devices", None),
    ],
)
def test_a_maker_is_known_by_whole_words_or_not_at_all(raw: str, maker: str | None) -> None:
    assert VOCABULARY.manufacturer(raw) == maker


def test_every_anatomy_belongs_to_an_organ_and_every_organ_has_known_anatomies() -> None:
    named = {a for members in VOCABULARY.organs.values() for a in members}
    assert named == set(VOCABULARY.anatomy)


def test_an_anatomy_of_two_organs_is_not_guessed() -> None:
    assert VOCABULARY.organ_of("liver") == "abdomen"
    assert VOCABULARY.organ_of("cervix") is None
    assert VOCABULARY.organ_of("nothing") is None


def test_words_are_slugs_and_no_spelling_has_two_makers() -> None:
    words = [*VOCABULARY.organs, *VOCABULARY.anatomy, *VOCABULARY.view, *VOCABULARY.pathology, *VOCABULARY.makers]
    assert all(re.fullmatch(r"[a-z0-9_]+", w) for w in words)
    assert all(s == s.lower() for s in VOCABULARY.spellings)
    assert set(VOCABULARY.spellings.values()) == set(VOCABULARY.makers)


def test_codes_are_those_of_the_dicom_tables() -> None:
    """Each code that a term carries stands in the context group that it names (PS3.16, as pydicom carries it)."""
    for term in [*VOCABULARY.anatomy.values(), *VOCABULARY.view.values()]:
        if term.code is None:
            continue
        groups = [
            cids for entry in concepts[term.scheme].values() for code, (_, cids) in entry.items() if code == term.code
        ]
        assert any(term.cid in cids for cids in groups), term.slug


def test_a_wrong_word_is_named_with_the_nearest() -> None:
    assert VOCABULARY.fault("anatomy", "liver") is None
    assert "did you mean 'liver'" in str(VOCABULARY.fault("anatomy", "livr"))
    assert VOCABULARY.fault("country", "Germany") is not None
    assert VOCABULARY.fault("country", "DE") is None
    assert VOCABULARY.fault("institution", "Any Hospital") is None
    assert VOCABULARY.fault("subject_id", "x") is not None
