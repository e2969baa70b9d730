"""Fixtures that many tests share."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


def _shared(folder: str) -> Path:
    shared = Path(os.environ.get("OPENUS_SHARED", ROOT.parent / "shared")) / folder
    if not shared.is_dir():
        pytest.skip(f"no {folder}/ beside the checkout: its pictures or numbers are not part of the project")
    return shared


@pytest.fixture(scope="session")
def realdata() -> Path:
    """Real ultrasound with hand-drawn cones, beside the checkout (`OPENUS_SHARED` names another place)."""
    return _shared("realdata")


@pytest.fixture(scope="session")
def fixtures_algorithm() -> Path:
    """Numeric fixtures of the method, beside the checkout."""
    return _shared("algorithm")
