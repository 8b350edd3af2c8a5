"""What looks like an overlay and is part of the scene."""

from collections.abc import Callable

import cv2
import numpy as np

from modeling.perception.overlays.fonts import Font
from modeling.perception.overlays.marks import Picture, PixelBox, Rng
from modeling.perception.overlays.words import sentence, short_name


def add_negatives(rng: Rng, picture_HWC: Picture, font: Font) -> tuple[Picture, list[PixelBox]]:
    """The picture with one of them, and where its words stand."""
    kind = int(rng.integers(0, len(_KINDS) + 2))
    if kind >= len(_KINDS):  # signs are the main source of false alarms
        return _sign(rng, picture_HWC, font)
    return _KINDS[kind](rng, picture_HWC), []


def _sign(rng: Rng, picture_HWC: Picture, font: Font) -> tuple[Picture, list[PixelBox]]:
    """A lettered plate seen at an angle, shaded and as soft as the scene."""
    height, width = picture_HWC.shape[:2]
    wide = round(rng.uniform(0.12, 0.5) * width)
    words = short_name(rng) if rng.random() < 0.4 else sentence(rng, int(rng.integers(1, 4)))
    letters_mask = font.mask(words, max(8, round(rng.uniform(0.04, 0.14) * height)))
    pad = max(2, letters_mask.shape[0] // 3)
    mask = np.pad(letters_mask, pad).astype(np.float32) / 255
    plate = np.empty((*mask.shape, 3), np.float32)
    ground, ink = rng.integers(0, 256, 3), rng.integers(0, 256, 3)
    plate[:] = ground + mask[..., None] * (ink - ground)
    plate *= np.linspace(rng.uniform(0.6, 1), rng.uniform(0.6, 1), mask.shape[1])[:, None]
    tall = wide * mask.shape[0] / mask.shape[1]
    left, top = rng.uniform(0, max(1, width - wide)), rng.uniform(0, max(1.0, height - tall))
    corners = np.array([[0, 0], [wide, 0], [wide, tall], [0, tall]]) + np.array((left, top))
    corners += rng.normal(0, 0.12, (4, 2)) * (0.5 * wide, max(4.0, tall))
    source = np.array([[0, 0], [1, 0], [1, 1], [0, 1]]) * (mask.shape[1], mask.shape[0])
    turn = cv2.getPerspectiveTransform(source.astype(np.float32), corners.astype(np.float32))
    drawn = cv2.warpPerspective(plate, turn, (width, height), flags=cv2.INTER_AREA)
    cover = cv2.warpPerspective(np.ones(mask.shape, np.float32), turn, (width, height))
    if rng.random() < 0.5:
        sigma = rng.uniform(0.4, 2)
        drawn, cover = (cv2.GaussianBlur(image, (0, 0), sigma) for image in (drawn, cover))
    share = np.clip(cover, 0, 1)[..., None]
    if rng.random() < 0.3:  # letters on the thing itself, without a plate
        letters = cv2.warpPerspective(mask, turn, (width, height))
        share, drawn = letters[..., None], np.full((height, width, 3), ink, np.float32)
        changed = np.asarray(picture_HWC + share * (drawn - picture_HWC), np.float32)
    else:
        covered = np.where(share > 0, drawn, 0)
        changed = np.asarray(picture_HWC * (1 - share) + covered, np.float32)
    x0, y0 = np.clip(np.floor(corners.min(axis=0)), 0, (width, height)).astype(int)
    x1, y1 = np.clip(np.ceil(corners.max(axis=0)), 0, (width, height)).astype(int)
    boxes = [(int(x0), int(y0), int(x1), int(y1))] if x1 - x0 > 3 and y1 - y0 > 3 else []
    return np.asarray(np.clip(np.round(changed), 0, 255), np.uint8), boxes


def _grid(rng: Rng, picture_HWC: Picture) -> Picture:
    """Window bars or tiles: thin lines that do not divide the picture's whole evenly."""
    changed = picture_HWC.copy()
    height, width = changed.shape[:2]
    tone = tuple(int(c) for c in rng.integers(0, 256, 3))
    lean = rng.normal(0, 0.05)
    for _ in range(int(rng.integers(2, 7))):
        thick = int(rng.integers(1, max(2, width // 60)))
        if rng.random() < 0.5:
            x, y0, y1 = rng.uniform(0, width), *np.sort(rng.uniform(0, height, 2))
            ends = (round(x), round(y0)), (round(x + lean * height), round(y1))
        else:
            y, x0, x1 = rng.uniform(0, height), *np.sort(rng.uniform(0, width, 2))
            ends = (round(x0), round(y)), (round(x1), round(y + lean * width))
        cv2.line(changed, *ends, tone, thick, cv2.LINE_AA)
    return changed


def _dark_edges(rng: Rng, picture_HWC: Picture) -> Picture:
    """A vignette, or a side that fades into the night without an edge."""
    height, width = picture_HWC.shape[:2]
    y, x = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j]
    if rng.random() < 0.5:
        far = np.hypot(x, y) / np.sqrt(2)
    else:
        angle = rng.choice([0, 0.5, 1, 1.5]) * np.pi + rng.normal(0, 0.15)
        far = (np.cos(angle) * x + np.sin(angle) * y + 1) / 2
    start, reach = rng.uniform(0.4, 0.8), rng.uniform(0.15, 0.5)
    shade = 1 - np.clip((far - start) / reach, 0, 1)
    return np.asarray(picture_HWC * shade[..., None], np.uint8)


def _bright_band(rng: Rng, picture_HWC: Picture) -> Picture:
    """Sky or snow: an even area above or below with an uneven edge."""
    height, width = picture_HWC.shape[:2]
    knots = rng.normal(0, 0.04, int(rng.integers(4, 12))).cumsum() + rng.uniform(0.08, 0.35)
    edge = np.interp(np.linspace(0, 1, width), np.linspace(0, 1, len(knots)), knots) * height
    rows = np.arange(height)[:, None]
    inside = np.clip(edge - rows + 0.5, 0, 1)
    if rng.random() < 0.3:
        inside = inside[::-1]
    tone = rng.integers(150, 256, 3) if rng.random() < 0.8 else rng.integers(0, 30, 3)
    changed = picture_HWC + inside[..., None] * (tone - picture_HWC.astype(np.float32))
    return np.asarray(np.clip(np.round(changed), 0, 255), np.uint8)


def _half_shade(rng: Rng, picture_HWC: Picture) -> Picture:
    """One side of a wall or a doorway lies in shade; its edge leans a little."""
    height, width = picture_HWC.shape[:2]
    place, lean = rng.uniform(0.15, 0.85) * width, rng.normal(0, 0.08) * width
    edge = np.linspace(place - lean, place + lean, height)[:, None]
    inside = np.clip((np.arange(width)[None] - edge) / rng.uniform(0.5, 6) + 0.5, 0, 1)
    gain = 1 - (1 - rng.uniform(0.15, 0.7)) * inside
    return np.asarray(picture_HWC * gain[..., None], np.uint8)


_KINDS: tuple[Callable[[Rng, Picture], Picture], ...] = (
    _grid, _dark_edges, _bright_band, _half_shade,
)  # fmt: skip
