"""Marks laid over a picture: watermarks, logos, subtitles and banners, as paint with opacity."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from modeling.perception.overlays.fonts import Font, Mask, tight
from modeling.perception.overlays.words import mark_words, sentence, short_name

Rng = np.random.Generator
Picture = NDArray[np.uint8]
Size = tuple[int, int]  # height, width
PixelBox = tuple[int, int, int, int]  # left, top, right, bottom; the last two exclusive
_SEEN_ALPHA = 6  # of 255; less is not seen


@dataclass(frozen=True, slots=True, eq=False)
class Mark:
    """Paint at a place, over a share of the clip. `parts`: boxes that count neither way."""

    kind: str
    paint_HW4: Picture  # RGB and opacity
    left: int
    top: int
    shown: tuple[float, float] = (0.0, 1.0)
    parts: tuple[PixelBox, ...] = ()

    def box(self, size_HW: Size) -> PixelBox | None:
        """Around all paint inside the picture that can be seen; None without any."""
        top, left = max(0, self.top), max(0, self.left)
        alpha = self.paint_HW4[top - self.top :, left - self.left :, 3]
        alpha = alpha[: max(0, size_HW[0] - top), : max(0, size_HW[1] - left)]
        seen = alpha >= _SEEN_ALPHA
        rows, columns = np.flatnonzero(seen.any(axis=1)), np.flatnonzero(seen.any(axis=0))
        if not len(rows):
            return None
        return (left + int(columns[0]), top + int(rows[0]),
                left + int(columns[-1]) + 1, top + int(rows[-1]) + 1)  # fmt: skip

    def lay_over(self, picture_HWC: Picture) -> float:
        """Change the picture in place; returns the mean change under the paint, 0 to 1."""
        height, width = picture_HWC.shape[:2]
        top, left = max(0, self.top), max(0, self.left)
        paint = self.paint_HW4[top - self.top :, left - self.left :]
        paint = paint[: max(0, height - top), : max(0, width - left)]
        place = picture_HWC[top : top + paint.shape[0], left : left + paint.shape[1]]
        if not place.size:
            return 0.0
        alpha = paint[..., 3:].astype(np.float32) / 255
        before = place.astype(np.float32)
        after = before + alpha * (paint[..., :3] - before)
        place[:] = np.round(after).astype(np.uint8)
        inked = paint[..., 3] >= max(_SEEN_ALPHA, 0.5 * paint[..., 3].max())
        return float(np.abs(after - before)[inked].mean() / 255) if inked.any() else 0.0


def draw_watermark(rng: Rng, font: Font, size_HW: Size) -> Mark:
    """Words, or one time in five a sign away from the corners."""
    height, width = size_HW
    if rng.random() < 0.2:
        mask = _sign(rng, font, round(rng.uniform(0.08, 0.25) * width))
    else:
        mask = _mark_text(rng, font, size_HW, 0.02, 0.09)
    if rng.random() < 0.25:
        mask = _turned(mask, float(rng.choice([-1, 1]) * rng.uniform(10, 45)))
    mask = _at_most(mask, size_HW, 0.9)
    paint = _painted(rng, mask, _faint_opacity(rng))
    free = np.array([width - mask.shape[1], height - mask.shape[0]])
    if rng.random() < 0.45:  # near an edge or a corner, as names are
        margin = rng.uniform(0.01, 0.06, 2) * min(size_HW)
        side = rng.integers(0, 3, 2)
        left, top = np.where(side == 0, margin, np.where(side == 1, free / 2, free - margin))
    else:
        left, top = rng.uniform(0, 1, 2) * free
    return Mark("watermark", paint, round(float(left)), round(float(top)))


def draw_tiled(rng: Rng, font: Font, size_HW: Size) -> Mark:
    """Repetitions in rows over the whole picture."""
    height, width = size_HW
    tile = _at_most(_mark_text(rng, font, size_HW, 0.02, 0.05), size_HW, 0.4)
    if rng.random() < 0.7:
        tile = _turned(tile, float(rng.choice([-1, 1]) * rng.uniform(15, 45)))
    step_x = tile.shape[1] + round(rng.uniform(0.06, 0.25) * width)
    step_y = tile.shape[0] + round(rng.uniform(0.06, 0.3) * height)
    canvas = np.zeros(size_HW, np.uint8)
    parts = []
    offset = int(rng.integers(0, step_x))
    for row, top in enumerate(range(int(rng.integers(-step_y // 2, 1)), height, step_y)):
        shift = row % 2 * step_x // 2 + offset
        for left in range(shift % step_x - step_x, width, step_x):
            y0, x0 = max(0, top), max(0, left)
            cut = tile[y0 - top : height - top, x0 - left : width - left]
            if cut.size and cut.any():
                place = canvas[y0 : y0 + cut.shape[0], x0 : x0 + cut.shape[1]]
                np.maximum(place, cut, out=place)
                parts.append((x0, y0, x0 + cut.shape[1], y0 + cut.shape[0]))
    paint = _painted(rng, canvas, _faint_opacity(rng))
    return Mark("watermark_tiled", paint, 0, 0, parts=tuple(parts))


def draw_logo(rng: Rng, font: Font, size_HW: Size) -> Mark:
    """A sign of 2 to 15 % of the width at a corner."""
    height, width = size_HW
    mask = _sign(rng, font, max(8, round(np.exp(rng.uniform(np.log(0.025), np.log(0.15))) * width)))
    if rng.random() < 0.4:
        words = font.mask(short_name(rng), max(7, round(mask.shape[0] * rng.uniform(0.4, 0.9))))
        mask = _beside(mask, words)
    mask = _at_most(mask, size_HW, 0.25)
    margin_x, margin_y = rng.uniform(0.015, 0.08, 2) * (width, height)
    left = margin_x if rng.random() < 0.5 else width - mask.shape[1] - margin_x
    top = margin_y if rng.random() < 0.7 else height - mask.shape[0] - margin_y
    opacity = 1.0 if rng.random() < 0.5 else rng.uniform(0.25, 0.95)
    paint = _painted(rng, mask, opacity, colored=rng.random() < 0.5)
    return Mark("corner_logo", paint, round(float(left)), round(float(top)))


def draw_subtitles(rng: Rng, font: Font, size_HW: Size) -> list[Mark]:
    """One to three in turn at one place, each of one or two lines, centered."""
    height, width = size_HW
    size_px = max(8, round(rng.uniform(0.035, 0.075) * min(height, width * 9 / 16)))
    middle = rng.uniform(0.82, 0.95) if rng.random() < 0.9 else rng.uniform(0.06, 0.15)
    style, cyrillic = int(rng.integers(0, 3)), font.has_cyrillic and rng.random() < 0.2
    color = (255, 255, 255) if rng.random() < 0.75 else (255, 230, int(rng.integers(0, 90)))
    marks = []
    bounds = np.linspace(0, 1, int(rng.integers(1, 4)) + 1)
    for start, end in itertools.pairwise(bounds):
        lines = [
            font.mask(sentence(rng, int(rng.integers(2, 8)), cyrillic=cyrillic), size_px)
            for _ in range(1 if rng.random() < 0.6 else 2)
        ]
        paint = _subtitle(_at_most(_stacked(lines, size_px // 3), size_HW, 0.92), style, color)
        left = (width - paint.shape[1]) // 2
        top = min(height - paint.shape[0], max(0, round(middle * height - paint.shape[0] / 2)))
        marks.append(Mark("subtitle", paint, left, top, (float(start), float(end))))
    return marks


def draw_banner(rng: Rng, font: Font, size_HW: Size) -> Mark:
    """Words on a strip: over the whole width, or a part of it at the left."""
    height, width = size_HW
    tall = max(10, round(rng.uniform(0.06, 0.16) * height))
    is_wide = rng.random() < 0.5
    long = width if is_wide else round(rng.uniform(0.3, 0.75) * width)
    paint = np.zeros((tall, long, 4), np.uint8)
    dark = rng.random() < 0.6
    paint[..., :3] = rng.integers(0, 90, 3) if dark else rng.integers(150, 256, 3)
    paint[..., 3] = 255 if rng.random() < 0.6 else rng.integers(120, 240)
    words = font.mask(sentence(rng, int(rng.integers(2, 9))), max(7, round(tall * 0.55)))
    words = _at_most(words, (tall, long), 0.94)
    top, left = (tall - words.shape[0]) // 2, max(1, round(0.03 * long))
    share = words[..., None].astype(np.float32) / 255
    place = paint[top : top + words.shape[0], left : left + words.shape[1]]
    ink = np.array([255, 255, 255, 255] if dark else [0, 0, 0, 255], np.float32)
    place[:] = np.round(place + share * (ink - place)).astype(np.uint8)
    y = 0 if rng.random() < 0.12 else round(rng.uniform(0.72, 1) * height) - tall
    x = 0 if is_wide or rng.random() < 0.3 else round(rng.uniform(0.02, 0.1) * width)
    return Mark("banner", paint, x, max(0, y))


def _mark_text(rng: Rng, font: Font, size_HW: Size, low: float, high: float) -> Mask:
    size_px = max(7, round(np.exp(rng.uniform(np.log(low), np.log(high))) * size_HW[0]))
    return font.mask(mark_words(rng, cyrillic=font.has_cyrillic and rng.random() < 0.15), size_px)


def _faint_opacity(rng: Rng) -> float:
    return float(np.exp(rng.uniform(np.log(0.12), 0.0)))


def _sign(rng: Rng, font: Font, side: int) -> Mask:
    """A made-up sign: shapes drawn large, two of which may cut each other out."""
    scale = 4
    full = side * scale
    canvas = np.zeros((full, full), np.uint8)
    middle, radius = full // 2, full // 2 - scale
    for level in range(int(rng.integers(1, 4))):
        reach = max(3, round(radius * (0.72**level)))
        ink = 255 if level % 2 == 0 else 0
        thick = -1 if rng.random() < 0.5 else max(scale, reach // 4)
        kind = int(rng.integers(0, 4))
        if kind == 0:
            cv2.circle(canvas, (middle, middle), reach - max(0, thick) // 2, ink, thick)
        elif kind == 1:
            low, high = middle - reach + max(0, thick), middle + reach - max(0, thick)
            cv2.rectangle(canvas, (low, low), (high, high), ink, thick)
        elif kind == 2:
            num_sides, turn = int(rng.integers(3, 8)), rng.uniform(0, 2 * np.pi)
            angles = turn + 2 * np.pi * np.arange(num_sides) / num_sides
            lengths = reach * np.where(np.arange(num_sides) % 2, rng.uniform(0.4, 1), 1.0)
            corners = middle + np.stack([np.cos(angles), np.sin(angles)], 1) * lengths[:, None]
            cv2.fillPoly(canvas, [np.round(corners).astype(np.int32)], ink)
        else:
            axes = (reach, max(2, round(reach * rng.uniform(0.3, 0.9))))
            cv2.ellipse(canvas, (middle, middle), axes, rng.uniform(0, 180), 0, 360, ink, thick)
    if not canvas.any():
        cv2.circle(canvas, (middle, middle), radius, 255, -1)
    if rng.random() < 0.4:
        letters = font.mask(short_name(rng), max(7, round(full * rng.uniform(0.25, 0.5))))
        letters = _at_most(letters, (full, full), 0.8)
        y, x = (full - letters.shape[0]) // 2, (full - letters.shape[1]) // 2
        place = canvas[y : y + letters.shape[0], x : x + letters.shape[1]]
        place[:] = np.where(letters > 127, 255 - int(place.mean() > 127) * 255, place)
    small = cv2.resize(canvas, (side, side), interpolation=cv2.INTER_AREA)
    return tight(np.asarray(small, np.uint8))


def _painted(rng: Rng, mask_HW: Mask, opacity: float, *, colored: bool = False) -> Picture:
    """Paint in one color, mostly white; at times with a dark rim or a shadow."""
    if colored:
        color = rng.integers(0, 256, 3)
    else:
        color = np.full(3, 255 if rng.random() < 0.75 else rng.integers(0, 60))
    paint = np.zeros((*mask_HW.shape, 4), np.uint8)
    paint[..., :3] = color
    shade = np.zeros_like(mask_HW)
    kind = rng.random()
    if kind < 0.2:
        shade = np.asarray(cv2.dilate(mask_HW, np.ones((3, 3), np.uint8)), np.uint8)
    elif kind < 0.4:
        shade[1:, 1:] = mask_HW[:-1, :-1]
    ink, rim = mask_HW / 255.0, shade / 255.0
    total = np.maximum(ink, rim)
    share = np.where(total > 0, ink / np.maximum(total, 1e-6), 0)[..., None]
    rim_color = 0 if color.mean() > 127 else 255
    paint[..., :3] = np.round(share * color + (1 - share) * rim_color)
    paint[..., 3] = np.round(255 * opacity * total)
    return paint


def _subtitle(mask_HW: Mask, style: int, color: tuple[int, int, int]) -> Picture:
    """0: with a dark outline; 1: on a dark box; 2: with a soft shadow."""
    pad = max(2, mask_HW.shape[0] // 12)
    mask = np.pad(mask_HW, pad)
    if style == 0:
        under = cv2.dilate(mask, np.ones((2 * (pad // 2) + 1,) * 2, np.uint8)).astype(np.float32)
    elif style == 1:
        under = np.full(mask.shape, 160.0, np.float32)
    else:
        under = cv2.GaussianBlur(mask, (0, 0), pad / 2).astype(np.float32)
    ink = mask.astype(np.float32) / 255
    alpha = np.maximum(ink, under / 255)
    share = (ink / np.maximum(alpha, 1e-6))[..., None]
    paint = np.zeros((*mask.shape, 4), np.uint8)
    paint[..., :3] = np.round(share * np.array(color))
    paint[..., 3] = np.round(255 * alpha)
    return paint


def _turned(mask_HW: Mask, degrees: float) -> Mask:
    height, width = mask_HW.shape
    side = int(np.ceil(np.hypot(height, width))) + 2
    turn = cv2.getRotationMatrix2D(((width - 1) / 2, (height - 1) / 2), degrees, 1.0)
    turn[:, 2] += ((side - width) / 2, (side - height) / 2)
    return tight(np.asarray(cv2.warpAffine(mask_HW, turn, (side, side)), np.uint8))


def _at_most(mask_HW: Mask, size_HW: Size, share: float) -> Mask:
    """Reduced until it takes at most this share of each side."""
    scale = min(share * size_HW[0] / mask_HW.shape[0], share * size_HW[1] / mask_HW.shape[1])
    if scale >= 1:
        return mask_HW
    size = (max(1, int(mask_HW.shape[1] * scale)), max(1, int(mask_HW.shape[0] * scale)))
    return np.asarray(cv2.resize(mask_HW, size, interpolation=cv2.INTER_AREA), np.uint8)


def _beside(sign_HW: Mask, words_HW: Mask) -> Mask:
    height = max(sign_HW.shape[0], words_HW.shape[0])
    gap = max(2, sign_HW.shape[1] // 5)
    joined = np.zeros((height, sign_HW.shape[1] + gap + words_HW.shape[1]), np.uint8)
    for mask, left in ((sign_HW, 0), (words_HW, sign_HW.shape[1] + gap)):
        top = (height - mask.shape[0]) // 2
        joined[top : top + mask.shape[0], left : left + mask.shape[1]] = mask
    return joined


def _stacked(lines: Sequence[Mask], gap: int) -> Mask:
    width = max(line.shape[1] for line in lines)
    height = sum(line.shape[0] for line in lines) + gap * (len(lines) - 1)
    stack = np.zeros((height, width), np.uint8)
    top = 0
    for line in lines:
        left = (width - line.shape[1]) // 2
        stack[top : top + line.shape[0], left : left + line.shape[1]] = line
        top += line.shape[0] + gap
    return stack
