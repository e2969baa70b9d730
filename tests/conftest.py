"""Fixtures that many tests share."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as in a shell's background; the programs under test inherit it
    signal.signal(signal.SIGINT, signal.default_int_handler)


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
