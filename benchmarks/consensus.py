"""What the vote over one scanner's images adds to looking at each by itself.

    OMP_NUM_THREADS=1 python benchmarks/consensus.py [--phantoms N]

A scanner is twelve stills with one scan area: frames of a real clip of ../shared/realdata, or of a phantom; `mixed`
ones show another scan area of the same kind and frame size on four of them. A third is spoilt by changes of
cone_stress.py that leave the scan area where it is. All cast their ballots, and doubtful ones may get the common
outline from the `Votes` that `build` counts. Both outlines are held against the truth.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator

import numpy as np
from cone import CONSOLE, REALDATA, Case, Result, ours, real_cases
from cone_stress import changed
from numpy.typing import NDArray
from rich.table import Table

from openus_data.cone import raster
from openus_data.decode import decode
from openus_data.first_stage.votes import Votes, ballot_of
from openus_data.phantom import phantom
from openus_data.records import Geometry

STILLS = 12
SPOILT = {0: "gain 0.4", 4: "noise", 8: "ECG over the echo", 10: "words over the border"}
Scanner = list[Case]


def real_scanners() -> Iterator[Scanner]:
    """The annotated clips that hold twelve frames."""
    entries = {e["id"]: e for e in json.loads((REALDATA / "annotations.json").read_text())["images"]}
    for case in real_cases(whole=False):
        media = decode(REALDATA / entries[case.name]["file"])
        if media.frame_count >= STILLS:
            wanted = sorted({int(at) for at in np.linspace(0, media.frame_count - 1, STILLS)})
            stills = [(pixels, case.inside) for _, pixels in media.read(wanted)]
            yield [_still(number, *still, case.name) for number, still in enumerate(stills)]


def phantom_scanners(count: int, *, others: int = 0) -> Iterator[Scanner]:
    """Phantoms of every geometry; some stills, evenly spread, show another scan area."""
    geometries: tuple[Geometry, ...] = ("sector", "curvilinear", "linear", "trapezoid")
    for seed in range(410_000, 410_000 + count):
        geometry = geometries[seed % len(geometries)]
        usual, other = (phantom(s, geometry=geometry, frames=STILLS) for s in (seed, seed + 10_000))
        stills = [other if others and number % (STILLS // others) == 0 else usual for number in range(STILLS)]
        yield [_still(n, made.frames[n], made.inside, f"{geometry} {seed}") for n, made in enumerate(stills)]


def _still(number: int, pixels: NDArray[np.uint8], inside: NDArray[np.bool_], name: str) -> Case:
    """One still of a scanner, spoilt if it is its turn."""
    picture = pixels if pixels.ndim == 3 else np.repeat(pixels[..., None], 3, axis=2)
    if number in SPOILT:
        picture, _ = changed(SPOILT[number], picture, inside, f"{name} {number}")
    return Case(name=name, group=name, frames=picture[None], inside=inside, geometry="")


def voted(scanner: Scanner) -> list[tuple[Result, Result]]:
    """Each still's own outline, and the one that it has after the vote."""
    votes, alone = Votes(), [ours(case) for case in scanner]
    ballots = [ballot_of(r.cone, {}, *r.case.inside.shape) for r in alone if r.cone is not None]
    for ballot in ballots:
        votes.add("benchmark", ballot)
    pairs = []
    for result, ballot in zip(alone, ballots, strict=True):
        prior = votes.prior("benchmark", ballot) if votes.is_doubtful(ballot) else None
        after = result
        if prior is not None:
            after = Result(case=result.case, mask=raster(prior, *result.mask.shape), seconds=0.0, cone=prior)
        pairs.append((result, after))
    return pairs


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--phantoms", type=int, default=24)
    arguments = parser.parse_args()
    table = Table(title=f"{STILLS} stills a scanner, {len(SPOILT)} of them spoilt", title_justify="left")
    for column in ("scanners", "stills", "outline", "mean IoU", "5th percentile", "echo lost", "changed", "worse"):
        table.add_column(column, justify="right")
    sets = {
        "real": real_scanners(),
        "phantom": phantom_scanners(arguments.phantoms),
        "mixed": phantom_scanners(arguments.phantoms, others=4),
    }
    for name, scanners in sets.items():
        pairs = [pair for scanner in scanners for pair in voted(scanner)]
        changes = [(before, after) for before, after in pairs if before is not after]
        worse = sum(after.overlap < before.overlap - 0.005 for before, after in changes)
        for kind, found in (("its own", [p[0] for p in pairs]), ("after the vote", [p[1] for p in pairs])):
            overlaps = np.array([r.overlap for r in found])
            figures = (f"{overlaps.mean():.4f}", f"{np.percentile(overlaps, 5):.3f}")
            lost = f"{100 * np.mean([r.lost for r in found]):.2f}%"
            counts = (str(len(changes)), str(worse)) if kind == "after the vote" else ("", "")
            table.add_row(name, str(len(pairs)), kind, *figures, lost, *counts)
    CONSOLE.print(table)


if __name__ == "__main__":
    main()
