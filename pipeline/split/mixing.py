"""Windows in which one picture turns into another by being mixed with it: dissolves and wipes.

However they are mixed, over the whole picture or pixel by pixel as an edge passes, each picture in
between lies between the two ends: its distances to both add up to the distance of the ends, and it
goes from one to the other at an even pace. Motion, of a camera or of things, leads elsewhere; light
that changes keeps the structure of the picture.
"""

from collections.abc import Callable, Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

Picture = NDArray[np.uint8]
LONGEST_FRAMES = 44
STEP_FRAMES = 4  # between two looks
_LENGTHS_FRAMES = (8, 12, 24, LONGEST_FRAMES)
_PARTS = 6
_PLACES = (3, 1, 5, 2, 4)  # sixths of a window that are looked at, the most telling first
_MIN_DISTANCE = 10.0  # of the ends, mean 8-bit levels
_MAX_DETOUR = 1.06  # distances to both ends over the distance of the ends
_MAX_UNEVEN = 0.12  # share of the way by which a picture may be early or late
_MAX_STRUCTURE = 0.5  # correlation of the ends
_MIN_SD = 8.0  # luma of either end; less is a fade's business


def mixed_window(
    recent: Sequence[Picture], structure: Callable[[Picture, Picture], float]
) -> int | None:
    """Frames from the start of the shortest mixed window that ends with the newest picture.

    `recent`: small BGR pictures, the newest last. `structure`: correlation of two gray ones.
    """
    return next(
        (
            length
            for length in _LENGTHS_FRAMES
            if length < len(recent) and _is_mixed(recent, length, structure)
        ),
        None,
    )


def merged(windows: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """Windows that overlap or touch as one, by frame."""
    found: list[tuple[int, int]] = []
    for first, last in sorted(windows):
        if found and first <= found[-1][1]:
            found[-1] = (found[-1][0], max(found[-1][1], last))
        else:
            found.append((first, last))
    return found


def _is_mixed(
    recent: Sequence[Picture], length: int, structure: Callable[[Picture, Picture], float]
) -> bool:
    start, end = recent[-1 - length], recent[-1]
    distance = cv2.norm(start, end, cv2.NORM_L1)
    if distance < _MIN_DISTANCE * start.size:
        return False
    for place in _PLACES:
        between = recent[-1 - length + round(place * length / _PARTS)]
        gone = cv2.norm(start, between, cv2.NORM_L1)
        left = cv2.norm(between, end, cv2.NORM_L1)
        if gone + left > _MAX_DETOUR * distance:
            return False
        if abs(gone / (gone + left) - place / _PARTS) > _MAX_UNEVEN:
            return False
    ends = [cv2.cvtColor(picture, cv2.COLOR_BGR2GRAY) for picture in (start, end)]
    if min(float(gray.std()) for gray in ends) < _MIN_SD:
        return False
    return structure(np.asarray(ends[0], np.uint8), np.asarray(ends[1], np.uint8)) < _MAX_STRUCTURE
