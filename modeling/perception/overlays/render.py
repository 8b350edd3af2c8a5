"""Pictures with overlays whose boxes are known, each drawn from its number alone.

A recipe holds what stays over a clip; its pictures may move beneath it. Compression and rescaling
come last, so that they change overlay and content alike. Boxes are shares of the picture and
hold at every size. Sources: HunyuanVideo (arXiv 2412.03603) names the overlays, not the renderer.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from modeling.perception.overlays.backgrounds import Backgrounds
from modeling.perception.overlays.classes import CLASS_INDEX, SCENE_TEXT
from modeling.perception.overlays.fonts import FONTS, Font
from modeling.perception.overlays.layouts import (
    Layout,
    cover,
    draw_blurred_fill,
    draw_border,
    draw_collage,
    draw_inset,
)
from modeling.perception.overlays.marks import (
    Mark,
    Picture,
    PixelBox,
    Rng,
    Size,
    draw_banner,
    draw_logo,
    draw_subtitles,
    draw_tiled,
    draw_watermark,
)
from modeling.perception.overlays.negatives import add_negatives

NONE_SHARE = 0.3
_NEGATIVE_SHARE = 0.35
_MIN_CHANGE = 0.03  # mean change under the paint; weaker marks count neither way
_MIN_SIDE_PX = 3
_KIND_WEIGHTS = {
    "corner_logo": 0.22, "watermark": 0.2, "watermark_tiled": 0.08, "subtitle": 0.13,
    "banner": 0.1, "border": 0.09, "blurred_fill": 0.06, "picture_in_picture": 0.06,
    "collage": 0.06,
}  # fmt: skip
LAYOUTS = {
    "border": draw_border,
    "blurred_fill": draw_blurred_fill,
    "picture_in_picture": draw_inset,
    "collage": draw_collage,
}
_ASPECTS = (16 / 9, 16 / 9, 16 / 9, 16 / 9, 4 / 3, 2.35, 1.0, 3 / 4, 9 / 16)
_LONG_SIDES_PX = (400, 900)


@dataclass(frozen=True, slots=True, eq=False)
class Truth:
    """Boxes: left, top, right, bottom in shares; labels index CLASSES; ignored: not counted."""

    boxes_N4: NDArray[np.float32]
    labels_N: NDArray[np.int64]
    ignored_N: NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Recipe:
    """What lies over a clip."""

    size_HW: Size
    layout: Layout | None
    marks: tuple[Mark, ...]

    @property
    def num_pictures(self) -> int:
        return 1 if self.layout is None else min(9, len(self.layout.windows))

    def paint(
        self,
        pictures: Sequence[Picture],
        moment: float = 0.0,
        scene_text: Sequence[PixelBox] = (),
    ) -> tuple[Picture, Truth]:
        """The picture at a moment, 0 to 1 of the clip. `scene_text`: words of the first picture."""
        found: list[tuple[str, PixelBox, bool]] = []
        if self.layout is None:
            image = cover(pictures[0], self.size_HW).copy()
            found += [(SCENE_TEXT, box, False) for box in scene_text]
        else:
            image = self.layout.compose(pictures)
            found += [(self.layout.kind, box, False) for box in self.layout.boxes]
        for mark in self.marks:
            if not mark.shown[0] <= moment < mark.shown[1] + (mark.shown[1] == 1.0):
                continue
            change, box = mark.lay_over(image), mark.box(self.size_HW)
            if box is not None:
                found.append((mark.kind, box, change < _MIN_CHANGE))
                found += [("watermark", part, True) for part in mark.parts]
        return image, truth_of(found, self.size_HW)


def truth_of(found: Sequence[tuple[str, PixelBox, bool]], size_HW: Size) -> Truth:
    height, width = size_HW
    kept = [
        row for row in found if min(row[1][2] - row[1][0], row[1][3] - row[1][1]) >= _MIN_SIDE_PX
    ]
    boxes = np.array([row[1] for row in kept], np.float32).reshape(-1, 4)
    return Truth(
        np.asarray(boxes / np.array([width, height, width, height], np.float32), np.float32),
        np.array([CLASS_INDEX[row[0]] for row in kept], np.int64),
        np.array([row[2] for row in kept], np.bool_),
    )


def draw_recipe(rng: Rng, size_HW: Size, font_split: str, watermark_factor: float = 1.0) -> Recipe:
    """None of them three times in ten, else one to three kinds.

    `watermark_factor`: how much likelier watermarks are than in the usual mixture.
    """
    if rng.random() < NONE_SHARE:
        return Recipe(size_HW, None, ())
    count = int(rng.choice([1, 2, 3], p=[0.55, 0.33, 0.12]))
    weights = _KIND_WEIGHTS
    if watermark_factor != 1:
        more = weights | {"watermark": watermark_factor * weights["watermark"]}
        weights = {kind: weight / sum(more.values()) for kind, weight in more.items()}
    kinds = rng.choice(list(weights), count, replace=False, p=list(weights.values()))
    layout: Layout | None = None
    marks: list[Mark] = []
    for kind in sorted(str(k) for k in kinds):
        if kind in LAYOUTS:
            layout = layout or LAYOUTS[kind](rng, size_HW)
        else:
            marks += draw_marks(rng, kind, size_HW, font_split)
    return Recipe(size_HW, layout, tuple(marks))


def draw_marks(rng: Rng, kind: str, size_HW: Size, font_split: str) -> list[Mark]:
    """One mark of this kind, or the subtitles of a clip."""
    font = draw_font(rng, font_split)
    if kind == "subtitle":
        return draw_subtitles(rng, font, size_HW)
    draw = {
        "corner_logo": draw_logo,
        "watermark": draw_watermark,
        "watermark_tiled": draw_tiled,
        "banner": draw_banner,
    }[kind]
    return [draw(rng, font, size_HW)]


def draw_font(rng: Rng, split: str) -> Font:
    return Font(str(rng.choice(FONTS[split])))


def draw_size(rng: Rng) -> Size:
    """Height and width, even, of a usual shape."""
    aspect = float(rng.choice(_ASPECTS))
    long = rng.uniform(*_LONG_SIDES_PX)
    height, width = (long / aspect, long) if aspect >= 1 else (long, long * aspect)
    return max(2, round(height / 2) * 2), max(2, round(width / 2) * 2)


def render_sample(
    number: int, seed: int, backgrounds: Backgrounds, input_HW: Size, font_split: str,
    watermark_factor: float = 1.0,
) -> tuple[Picture, Truth]:  # fmt: skip
    """Sample `number` at the network's size: the same picture and boxes wherever it is drawn."""
    rng = np.random.default_rng([seed, number])
    size_HW = draw_size(rng)
    recipe = draw_recipe(rng, size_HW, font_split, watermark_factor)
    pictures = backgrounds.draw(rng, size_HW, recipe.num_pictures)
    scene_text: list[PixelBox] = []
    if rng.random() < _NEGATIVE_SHARE:
        pictures[0], scene_text = add_negatives(rng, pictures[0], draw_font(rng, font_split))
    image, truth = recipe.paint(pictures, float(rng.random()), scene_text)
    image = degrade(rng, image)
    fitted = cv2.resize(image, input_HW[::-1], interpolation=cv2.INTER_AREA)
    return np.asarray(fitted, np.uint8), truth


def degrade(rng: Rng, image_HWC: Picture) -> Picture:
    """Rescaled, with noise, through JPEG: each at times."""
    height, width = image_HWC.shape[:2]
    if rng.random() < 0.4:
        scale = rng.uniform(0.45, 0.9)
        small = (max(8, round(width * scale)), max(8, round(height * scale)))
        image_HWC = np.asarray(
            cv2.resize(cv2.resize(image_HWC, small, interpolation=cv2.INTER_AREA), (width, height)),
            np.uint8,
        )
    if rng.random() < 0.25:
        noise = rng.normal(0, rng.uniform(1, 7), (height, width, 1))
        image_HWC = np.asarray(np.clip(np.round(image_HWC + noise), 0, 255), np.uint8)
    if rng.random() < 0.8:
        quality = [cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(25, 96))]
        _, data = cv2.imencode(".jpg", image_HWC[..., ::-1], quality)
        decoded = cv2.imdecode(data, cv2.IMREAD_COLOR)
        assert decoded is not None
        image_HWC = np.asarray(decoded[..., ::-1], np.uint8)
    return image_HWC
