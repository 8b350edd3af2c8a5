"""Ways in which pictures are put together: bars, blurred sides, an inset, a collage."""

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from modeling.perception.overlays.marks import Picture, PixelBox, Rng, Size


@dataclass(frozen=True, slots=True)
class Layout:
    """`windows` show pictures, `boxes` are what the detector should find."""

    kind: str
    size_HW: Size
    windows: tuple[PixelBox, ...]
    boxes: tuple[PixelBox, ...]
    color: tuple[int, int, int] = (0, 0, 0)
    noise: float = 0.0  # of the color, 8-bit levels
    sigma: float = 0.0  # of the blurred fill, share of the height
    darken: float = 1.0
    outline_px: int = 0

    def compose(self, pictures: Sequence[Picture]) -> Picture:
        """One picture of the layout's size; windows beyond the pictures show them again."""
        canvas = self._ground(pictures[0])
        for index, (left, top, right, bottom) in enumerate(self.windows):
            if self.outline_px and index:
                rim = self.outline_px
                canvas[max(0, top - rim) : bottom + rim, max(0, left - rim) : right + rim] = (
                    self.color
                )
            picture = pictures[index % len(pictures)]
            canvas[top:bottom, left:right] = cover(picture, (bottom - top, right - left))
        return canvas

    def _ground(self, picture_HWC: Picture) -> Picture:
        if self.sigma:
            small = cover(picture_HWC, (self.size_HW[0] // 4, self.size_HW[1] // 4))
            soft = cv2.GaussianBlur(small, (0, 0), max(0.5, self.sigma * self.size_HW[0] / 4))
            wide = cv2.resize(soft, self.size_HW[::-1], interpolation=cv2.INTER_LINEAR)
            return np.asarray(wide * self.darken, np.uint8)
        ground = np.empty((*self.size_HW, 3), np.float32)
        ground[:] = self.color
        if self.noise:
            grain = np.random.default_rng(0).normal(0, self.noise, self.size_HW)
            ground += grain[..., None].astype(np.float32)
        return np.asarray(np.clip(np.round(ground), 0, 255), np.uint8)


def draw_border(rng: Rng, size_HW: Size) -> Layout:
    """Bars above and below, at both sides, all around, or of different widths."""
    height, width = size_HW
    share = np.exp(rng.uniform(np.log(0.03), np.log(0.28)))
    kind = int(rng.integers(0, 4))
    shares = {
        0: (0, share, 0, share),
        1: (share, 0, share, 0),
        2: (share / 2,) * 4,
        3: (0, share, 0, share * rng.uniform(0.2, 0.7)),
    }[kind]
    bars = [round(float(s * side)) for s, side in zip(shares, (width, height) * 2, strict=True)]
    tone = rng.random()
    if tone < 0.6:
        color, noise = np.full(3, rng.integers(0, 8)), rng.uniform(0, 3) * (rng.random() < 0.4)
    elif tone < 0.8:
        color, noise = np.full(3, rng.integers(235, 256)), 0.0
    else:
        color, noise = rng.integers(0, 256, 3), 0.0
    window = (bars[0], bars[1], width - bars[2], height - bars[3])
    red, green, blue = (int(c) for c in color)
    return Layout("border", size_HW, (window,), around(window, size_HW), (red, green, blue),
                  float(noise))  # fmt: skip


def draw_blurred_fill(rng: Rng, size_HW: Size) -> Layout:
    """The picture between its own enlarged and blurred sides."""
    height, width = size_HW
    kept = rng.uniform(0.3, 0.75)
    if width >= height:
        bar = round((1 - kept) / 2 * width)
        window = (bar, 0, width - bar, height)
    else:
        bar = round((1 - kept) / 2 * height)
        window = (0, bar, width, height - bar)
    return Layout("blurred_fill", size_HW, (window,), around(window, size_HW),
                  sigma=float(rng.uniform(0.02, 0.08)),
                  darken=float(rng.uniform(0.45, 1.0)))  # fmt: skip


def draw_inset(rng: Rng, size_HW: Size) -> Layout:
    """A second picture in the first, mostly near a corner."""
    height, width = size_HW
    wide = round(rng.uniform(0.16, 0.4) * width)
    tall = min(round(wide / rng.choice([16 / 9, 4 / 3, 1.0, 3 / 4])), round(0.6 * height))
    margin = rng.uniform(0, 0.06, 2) * (width, height)
    free = np.array([width - wide, height - tall])
    if rng.random() < 0.8:
        left, top = np.where(rng.random(2) < 0.5, margin, free - margin)
    else:
        left, top = rng.uniform(0, 1, 2) * free
    left, top = max(0, round(float(left))), max(0, round(float(top)))
    right, bottom = left + wide, top + tall
    rim = int(rng.integers(1, 5)) if rng.random() < 0.4 else 0
    tone = int(rng.choice([0, 255]))
    box = (
        max(0, left - rim),
        max(0, top - rim),
        min(width, right + rim),
        min(height, bottom + rim),
    )
    windows = ((0, 0, width, height), (left, top, right, bottom))
    return Layout(
        "picture_in_picture", size_HW, windows, (box,), (tone, tone, tone), outline_px=rim
    )


def draw_collage(rng: Rng, size_HW: Size) -> Layout:
    """One by two to three by three cells with gaps of 0 to 3 %."""
    height, width = size_HW
    while True:
        rows, columns = (int(n) for n in rng.integers(1, 4, 2))
        if rows * columns > 1:
            break
    gap = round(rng.uniform(0, 0.03) * min(size_HW)) if rng.random() < 0.7 else 0
    cells = tuple(
        (column * (width + gap) // columns, row * (height + gap) // rows,
         (column + 1) * (width + gap) // columns - gap, (row + 1) * (height + gap) // rows - gap)
        for row in range(rows)
        for column in range(columns)
    )  # fmt: skip
    tone = int(rng.choice([0, 0, 255, int(rng.integers(0, 256))]))
    return Layout("collage", size_HW, cells, cells, (tone, tone, tone))


def around(window: PixelBox, size_HW: Size) -> tuple[PixelBox, ...]:
    """The bars between the window and the edges: those above and below have the whole width."""
    height, width = size_HW
    left, top, right, bottom = window
    bars = ((0, 0, width, top), (0, bottom, width, height),
            (0, top, left, bottom), (right, top, width, bottom))  # fmt: skip
    return tuple(bar for bar in bars if bar[2] > bar[0] and bar[3] > bar[1])


def cover(picture_HWC: Picture, size_HW: Size) -> Picture:
    """The middle of the picture at this size."""
    height, width = picture_HWC.shape[:2]
    scale = max(size_HW[0] / height, size_HW[1] / width)
    tall = min(height, max(1, round(size_HW[0] / scale)))
    wide = min(width, max(1, round(size_HW[1] / scale)))
    top, left = (height - tall) // 2, (width - wide) // 2
    middle = picture_HWC[top : top + tall, left : left + wide]
    method = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(middle, size_HW[::-1], interpolation=method), np.uint8)
