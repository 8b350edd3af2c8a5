"""Which frames DOVER looks at, and where its fragments are cut from.

The technical branch sees three runs of 32 frames, every second one; the aesthetic branch one
frame of each of 32 equal parts. Indices wrap around in short clips. Of a frame in a run, a cell
of 7 x 7 gives one fragment of 32 x 32 pixels at the source's own size.

`fixed` takes the middle wherever the paper draws at random: the same clip, the same score.
`seeded` draws. `parity` draws the frames as the released program does after seeding NumPy, and,
as it does, lays the cells of pictures below 224 pixels by the size before they are enlarged.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from schemas.dover import NUM_RUNS, NUM_WHOLE_FRAMES, RUN_FRAMES, SIDE_PX

Sampling = Literal["fixed", "seeded", "parity"]
FRAGMENT_PX = 32
GRID = SIDE_PX // FRAGMENT_PX
_STEP = 2  # frames, inside a run


@dataclass(frozen=True, slots=True)
class ViewPlan:
    """Frame numbers of a clip, and a draw in [0, 1) per run and cell for rows and columns."""

    runs_RT: NDArray[np.int64]
    whole_T: NDArray[np.int64]
    draw_RGG2: NDArray[np.float64]


def plan_views(num_frames: int, sampling: Sampling, seed: int) -> ViewPlan:
    """For a clip of at least one frame."""
    rng = np.random.RandomState(seed)  # the legacy generator: its numbers are checked by parity
    is_fixed = sampling == "fixed"
    runs_RT = _frames(num_frames, NUM_RUNS, RUN_FRAMES, None if is_fixed else rng)
    whole_T = _frames(num_frames, NUM_WHOLE_FRAMES, 1, None if is_fixed else rng).ravel()
    shape = (NUM_RUNS, GRID, GRID, 2)
    draw = np.full(shape, 0.5) if is_fixed else rng.random_sample(shape)
    return ViewPlan(runs_RT, whole_T, draw)


def _frames(
    num_frames: int, num_parts: int, per_part: int, rng: np.random.RandomState | None
) -> NDArray[np.int64]:
    """num_parts x per_part frame numbers."""
    length = num_frames // num_parts
    room = length - per_part * _STEP
    offset = np.zeros(num_parts, np.int64)
    if room > 0:
        drawn = rng.randint(0, room, size=num_parts) if rng is not None else room // 2
        offset = offset + drawn
    start = length * np.arange(num_parts) + offset
    index = start[:, None] + _STEP * np.arange(per_part)
    return np.asarray(index % num_frames, np.int64)


def cut_fragments(
    frame_HWC: NDArray[np.uint8], draw_GG2: NDArray[np.float64], sampling: Sampling
) -> NDArray[np.uint8]:
    """224 x 224 x 3: the cells' fragments side by side."""
    size_HW = frame_HWC.shape[:2]
    if min(size_HW) < SIDE_PX:
        frame_HWC = _enlarged(frame_HWC)
        if sampling != "parity":
            size_HW = frame_HWC.shape[:2]
    out = np.empty((SIDE_PX, SIDE_PX, 3), np.uint8)
    rows = _origins(size_HW[0], draw_GG2[..., 0])
    columns = _origins(size_HW[1], draw_GG2[..., 1].T).T
    for i in range(GRID):
        for j in range(GRID):
            top, left = rows[i, j], columns[i, j]
            fragment = frame_HWC[top : top + FRAGMENT_PX, left : left + FRAGMENT_PX]
            y, x = i * FRAGMENT_PX, j * FRAGMENT_PX
            out[y : y + FRAGMENT_PX, x : x + FRAGMENT_PX] = fragment
    return out


def _origins(side_px: int, draw_GG: NDArray[np.float64]) -> NDArray[np.int64]:
    """Along one axis, cells of the first index."""
    cell = side_px // GRID
    start = np.maximum(0, np.minimum(cell * np.arange(GRID), side_px - FRAGMENT_PX))
    room = max(0, cell - FRAGMENT_PX)
    return np.asarray(start[:, None] + np.floor(draw_GG * room), np.int64)


def _enlarged(frame_HWC: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Short side 224, bilinear; what lies between two levels is cut off, not rounded."""
    height, width = frame_HWC.shape[:2]
    scale = SIDE_PX / min(height, width)
    y_first, y_second, y_share = _neighbors(height, max(SIDE_PX, int(height * scale)), scale)
    x_first, x_second, x_share = _neighbors(width, max(SIDE_PX, int(width * scale)), scale)
    levels = frame_HWC.astype(np.float32)
    upper, lower = levels[y_first], levels[y_second]
    rows = upper + (lower - upper) * y_share[:, None, None]
    left, right = rows[:, x_first], rows[:, x_second]
    return np.asarray(np.floor(left + (right - left) * x_share[:, None] + 1e-3), np.uint8)


def _neighbors(
    length: int, wanted: int, scale: float
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]:
    """The pixels on both sides of each sample point, and the share of the second."""
    point = np.maximum((np.arange(wanted) + 0.5) / scale - 0.5, 0.0)
    first = np.minimum(point.astype(np.int64), length - 1)
    second = np.minimum(first + 1, length - 1)
    return first, second, np.minimum(point - first, 1.0).astype(np.float32)
