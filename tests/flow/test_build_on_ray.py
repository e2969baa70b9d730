"""A build on Ray is a build: the same bytes as on this machine's own workers. Skipped where Ray is not installed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import cv2
import pytest
from small_builds import run_build, tree

from openus_data.phantom import phantom

ray = pytest.importorskip("ray", reason="the [ray] extra is not installed")
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]  # Ray warns of its own threads and sockets


@pytest.fixture(scope="module", autouse=True)
def cluster() -> Iterator[None]:
    yield
    ray.shutdown()


def test_ray_and_local_workers_give_the_same_bytes(tmp_path: Path) -> None:
    images = tmp_path / "images"
    images.mkdir()
    for seed, shape in enumerate(("sector", "curvilinear", "linear", "trapezoid", "multi", "none")):
        made = phantom(seed, geometry=shape, width=400, height=300)  # type: ignore[arg-type]
        cv2.imwrite(str(images / f"{seed}.png"), made.image)
    (images / "torn.png").write_bytes((images / "0.png").read_bytes()[:2000])
    local = run_build(tmp_path, images, out="local", executor="local", workers=2, policy="mask")
    there = run_build(tmp_path, images, out="ray", executor="ray", workers=2, policy="mask")
    assert there.worked_on == local.worked_on == 7 and there.failures == local.failures
    assert tree(tmp_path / "ray") == tree(tmp_path / "local")
    assert run_build(tmp_path, images, out="ray", executor="ray", workers=2, policy="mask").reused == 7
