"""Small pictures and quick builds for the tests of this folder."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from openus_data import build as build_module
from openus_data.build import BuildReport, BuildRequest, build
from openus_data.executor import Failure, Outcome
from openus_data.records import Pixels

TOY_CARD = """
id = "toy"
title = "Toy"
homepage = "https://example.org"
role = "evaluate"
access = "open"
host = "institutional"
organ = "breast"
anatomy = ["breast"]
obtain = ["Ask."]
[citation]
text = "Nobody"
[license]
terms = "none"
class = "unknown"
redistributable = false
[[downloads]]
source = "manual"
locator = "https://example.org"
[[images]]
match = ["images/*.png"]
[[masks]]
match = ["masks/*.png"]
class = "lesion"
[mask_classes]
lesion = 1
[subject]
path = '(?:^|/)(?P<key>p\\d+)_'
"""
"""A card of a public dataset `toy` with images, masks and subjects."""


def sector(seed: int, height: int = 150, width: int = 200) -> Pixels:
    """Speckle in a sector, black around it."""
    rng = np.random.default_rng(seed)
    coarse = cv2.resize(rng.random((8, 10)), (width, height), interpolation=cv2.INTER_CUBIC)
    fine = cv2.GaussianBlur(rng.random((height, width)), (0, 0), 1.5) * 4
    mask = np.zeros((height, width), np.uint8)
    cv2.ellipse(mask, (width // 2, 0), (width * 3 // 5, height - 4), 90, -45, 45, 1, -1)
    return np.asarray(np.clip(100 * coarse * fine + 30, 0, 255) * mask, dtype=np.uint8)


def write_pictures(
    folder: Path, seeds: Iterable[int], *, subject: Callable[[int], str] = lambda s: f"p{s // 2}"
) -> None:
    """PNG files `<subject>/<seed>.png`."""
    for seed in seeds:
        path = folder / subject(seed) / f"{seed:03d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(path), sector(seed))


@dataclass
class InlineExecutor(AbstractContextManager["InlineExecutor"]):
    """Runs tasks in this process, last item first, as no real executor would: order must not matter."""

    fail_at: int | None = None

    def __exit__(self, *exit: object) -> None:
        """Nothing to end."""

    def run(
        self, task: Callable[[Any], Any], items: Iterable[Any], *, ordered: bool = False, limits: object = None
    ) -> Iterator[Outcome[Any, Any]]:
        listed = list(enumerate(items))
        for index, item in listed if ordered else reversed(listed):
            if self.fail_at is not None and index == self.fail_at:
                yield Outcome(index=index, item=item, failure=Failure(kind="died", detail="killed"))
            else:
                yield Outcome(index=index, item=item, value=task(item))


@pytest.fixture
def inline(monkeypatch: pytest.MonkeyPatch) -> None:
    """Builds run in the test's own process: seconds less than worker processes."""
    monkeypatch.setattr(build_module, "open_executor", lambda *args, **options: InlineExecutor())


def run_build(tmp: Path, images: Path, *, out: str = "out", **options: Any) -> BuildReport:
    """Build a private folder under tmp/out with a fixed key; text is left alone, for other tests look at that."""
    root = options.pop("root", tmp / "root")
    root.mkdir(exist_ok=True)
    key = root / "key"
    if not key.exists():
        key.write_text("ab" * 32)
        key.chmod(0o600)
    chosen: dict[str, Any] = {
        "images": images,
        "name": "clinic",
        "recipe": "openus",
        "policy": "keep",
        "quiet": True,
    } | options
    return build(BuildRequest(out=tmp / out, root=root, **chosen))


def tree(folder: Path) -> dict[str, str]:
    """Digest of every file below a folder."""
    return {
        p.relative_to(folder).as_posix(): hashlib.sha256(p.read_bytes()).hexdigest()
        for p in sorted(folder.rglob("*"))
        if p.is_file()
    }


def times(folder: Path) -> dict[str, int]:
    """Modification time of every file below a folder, in ns."""
    return {p.relative_to(folder).as_posix(): p.stat().st_mtime_ns for p in folder.rglob("*") if p.is_file()}
