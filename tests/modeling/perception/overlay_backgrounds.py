"""A few made-up pictures in the file that the renderer reads."""

from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np

from modeling.perception.overlays.backgrounds import Entry, write_backgrounds
from modeling.perception.overlays.marks import Picture


def write_small_backgrounds(path: Path) -> Path:
    write_backgrounds(path, _pictures(), 90)
    return path


def _pictures() -> Iterator[tuple[Entry, Picture]]:
    for index in range(6):
        rng = np.random.default_rng(index)
        coarse = rng.integers(30, 220, (9, 12, 3)).astype(np.uint8)
        picture = cv2.resize(coarse, (320, 240), interpolation=cv2.INTER_CUBIC)
        split = "held_out" if index >= 4 else "train"
        yield Entry(f"{index}.jpg", f"source {index}", split, "made"), np.asarray(picture, np.uint8)
