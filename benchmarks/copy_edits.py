"""Copies of a clip as the copy head learns them: edits whose amounts are drawn from ranges.

The edits that judge it (pipeline/evaluate/perturbations.py) are a fixed list; these are not.
"""

from collections.abc import Callable

import cv2
import numpy as np
from numpy.typing import NDArray

from pipeline.evaluate.perturbations import gray, letterbox, reencode, tone

NUM_FRAMES = 8
Images = NDArray[np.uint8]
Rng = np.random.Generator
# Frames of a clip at these moments, each in [0, 1] of its span.
Shown = Callable[[NDArray[np.float64]], Images]


def edited(rng: Rng, shown: Shown) -> Images:
    """A copy: one or two edits of different kinds; every second one comes through an encoder."""
    begin, end = 0.0, 1.0
    if rng.random() < 0.25:
        length = rng.uniform(0.6, 0.97)
        begin = rng.uniform(0, 1 - length)
        end = begin + length
    frames = shown(centers(begin, end))
    for index in rng.choice(len(EDITS), 1 + int(rng.random() < 0.4), replace=False):
        frames = np.ascontiguousarray(EDITS[int(index)](rng, frames))
    if rng.random() < 0.5:
        crf, short_side = int(rng.integers(24, 42)), int(rng.choice([144, 180, 216, 288]))
        frames = reencode(frames, crf=crf, short_side=short_side)
    return frames


def centers(begin: float, end: float) -> NDArray[np.float64]:
    """Of equal parts of that share of the clip."""
    return begin + (end - begin) * (np.arange(NUM_FRAMES) + 0.5) / NUM_FRAMES


def _cropped(rng: Rng, frames_THWC: Images) -> Images:
    height, width = frames_THWC.shape[1:3]
    share = rng.uniform(0.72, 0.97)
    rows, columns = int(height * share), int(width * share)
    top, left = rng.integers(0, height - rows + 1), rng.integers(0, width - columns + 1)
    return frames_THWC[:, top : top + rows, left : left + columns]


def _marked(rng: Rng, frames_THWC: Images) -> Images:
    marked = frames_THWC.copy()
    height, width = marked.shape[1:3]
    rows = int(height * rng.uniform(0.05, 0.18))
    columns = int(rows * rng.uniform(1, 4))
    top, left = rng.integers(0, height - rows), rng.integers(0, max(1, width - columns))
    part = marked[:, top : top + rows, left : left + columns]
    opacity = rng.uniform(0.4, 1)
    part[:] = np.round(part * (1 - opacity) + rng.integers(0, 256, 3) * opacity)
    return marked


def _texted(rng: Rng, frames_THWC: Images) -> Images:
    marked = frames_THWC.copy()
    height, width = marked.shape[1:3]
    words = "".join(rng.choice(list("abcdefghiklmnoprstuvw     "), int(rng.integers(8, 40))))
    place = int(width * rng.uniform(0, 0.3)), int(height * rng.uniform(0.1, 0.95))
    color = ((255, 255, 255), (255, 230, 40), (0, 0, 0))[int(rng.integers(3))]
    scale = width / rng.uniform(300, 700)
    for image in marked:
        cv2.putText(image, words, place, cv2.FONT_HERSHEY_DUPLEX, scale, color, 1)
    return marked


def _barred(rng: Rng, frames_THWC: Images) -> Images:
    share = rng.uniform(0.05, 0.3)
    if rng.random() < 0.5:
        return letterbox(frames_THWC, share)
    return letterbox(frames_THWC.transpose(0, 2, 1, 3), share).transpose(0, 2, 1, 3)


def _noisy(rng: Rng, frames_THWC: Images) -> Images:
    noise = rng.normal(0, rng.uniform(3, 16), frames_THWC.shape)
    return np.clip(np.round(frames_THWC + noise), 0, 255).astype(np.uint8)


def _blurred(rng: Rng, frames_THWC: Images) -> Images:
    sigma = rng.uniform(0.6, 2.2)
    return np.stack([np.asarray(cv2.GaussianBlur(f, (0, 0), sigma), np.uint8) for f in frames_THWC])


def _toned(rng: Rng, frames_THWC: Images) -> Images:
    return tone(frames_THWC, gain=rng.uniform(0.65, 1.35), gamma=rng.uniform(0.6, 1.7))


def _gray(_: Rng, frames_THWC: Images) -> Images:
    return gray(frames_THWC)


def _mirrored(_: Rng, frames_THWC: Images) -> Images:
    return frames_THWC[:, :, ::-1]


EDITS: tuple[Callable[[Rng, Images], Images], ...] = (
    _cropped, _cropped, _marked, _texted, _barred, _noisy, _blurred, _toned, _toned, _gray,
    _mirrored,
)  # fmt: skip
