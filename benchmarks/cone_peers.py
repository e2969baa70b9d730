"""Runs the rivals of benchmarks/cone.py in an environment of their own, since their OpenCV differs from ours.

    python -m venv peers && peers/bin/pip install sonocrop ultraml
    python benchmarks/cone.py --peers peers/bin/python

Called by that benchmark as: PEERS_PYTHON cone_peers.py FOLDER. FOLDER holds <n>.npy, uint8 (T, H, W, 3); written beside
each are <n>.<tool>.npz with `mask` (H, W) and `seconds`. sonocrop needs motion, so it gets clips only; its box is its
mask.
"""

from __future__ import annotations

import contextlib
import io
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np


def sonocrop_box(frames: Any) -> Any:
    """sonocrop 0.56 `vid.crop` without its video files: pixels that take many values over time."""
    from sonocrop import vid

    grey = frames.mean(axis=-1).astype(np.uint8)
    unique = vid.countUniquePixelsAlongFrames(grey) / len(grey)
    left, right = vid.findEdges(unique.max(axis=0))
    top, bottom = vid.findEdges(unique.max(axis=1))
    mask = np.zeros(grey.shape[1:], np.bool_)
    mask[top:bottom, left:right] = True
    return mask


def ultraml_mask(frames: Any) -> Any:
    """ultraml 0.2.0: its function for images, or that for videos."""
    from ultraml.core import extract

    if len(frames) == 1:
        return ~extract.extract_ultrasound_image_foreground(frames[0], crop=False)[1]
    return ~extract.extract_ultrasound_video_foreground(frames, crop=False)[1]


TOOLS: dict[str, Callable[[Any], Any]] = {"ultraml": ultraml_mask, "sonocrop": sonocrop_box}


def main(folder: Path) -> None:
    """Run both tools on every array of a folder."""
    for path in sorted(folder.glob("*.npy")):
        frames = np.load(path)
        for name, tool in TOOLS.items():
            if name == "sonocrop" and len(frames) == 1:
                continue
            mask = np.ones(frames.shape[1:3], np.bool_)  # a failure keeps the whole frame
            started = time.process_time()
            with contextlib.suppress(Exception), contextlib.redirect_stdout(io.StringIO()):
                mask = tool(frames)
            np.savez(path.with_suffix(f".{name}.npz"), mask=mask, seconds=time.process_time() - started)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
