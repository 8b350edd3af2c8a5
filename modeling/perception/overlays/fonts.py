"""Words as masks, in the fonts that Python packages carry.

Matplotlib's DejaVu and OpenCV's stroke fonts are for training; its STIX and Pillow's own font are
held out. They have Latin letters, DejaVu Cyrillic and Greek, too; none has Chinese ones.
"""

import functools
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

Mask = NDArray[np.uint8]
_DEJAVU = (
    "DejaVuSans", "DejaVuSans-Bold", "DejaVuSans-Oblique", "DejaVuSans-BoldOblique",
    "DejaVuSansMono", "DejaVuSansMono-Bold", "DejaVuSerif", "DejaVuSerif-Bold",
    "DejaVuSerif-Italic",
)  # fmt: skip
_STIX = ("STIXGeneral", "STIXGeneralBol", "STIXGeneralItalic", "STIXGeneralBolIta")
_PILLOW = "pillow"
_STROKES = {
    "hershey-plain": cv2.FONT_HERSHEY_SIMPLEX,
    "hershey-duplex": cv2.FONT_HERSHEY_DUPLEX,
    "hershey-triplex": cv2.FONT_HERSHEY_TRIPLEX,
    "hershey-script": cv2.FONT_HERSHEY_SCRIPT_COMPLEX,
}
FONTS = {"train": (*_DEJAVU, *_STROKES), "held_out": (*_STIX, _PILLOW)}
_STROKE_UNIT_PX = 22.0  # cap height of a stroke font at scale 1


@dataclass(frozen=True, slots=True)
class Font:
    name: str

    @property
    def has_cyrillic(self) -> bool:
        return self.name in _DEJAVU or self.name in _STIX

    def mask(self, text: str, size_px: int) -> Mask:
        """The words in 0 to 255 on a tight canvas; at least 1 x 1."""
        drawn = self._stroked(text, size_px) if self.name in _STROKES else self._set(text, size_px)
        return tight(drawn)

    def _set(self, text: str, size_px: int) -> Mask:
        font = _open(self.name, size_px)
        left, top, right, bottom = (round(v) for v in font.getbbox(text))
        canvas = Image.new("L", (max(1, right - left) + 8, max(1, bottom - top) + 8))
        ImageDraw.Draw(canvas).text((4 - left, 4 - top), text, font=font, fill=255)
        return np.asarray(canvas, np.uint8)

    def _stroked(self, text: str, size_px: int) -> Mask:
        face, scale = _STROKES[self.name], 0.7 * size_px / _STROKE_UNIT_PX
        thickness = max(1, round(size_px / 14))
        (width, height), below = cv2.getTextSize(text, face, scale, thickness)
        pad = 2 * thickness + 4
        canvas = np.zeros((height + below + 2 * pad, width + 2 * pad), np.uint8)
        cv2.putText(canvas, text, (pad, height + pad), face, scale, 255, thickness, cv2.LINE_AA)
        return canvas


def tight(mask_HW: Mask) -> Mask:
    """Without empty rows and columns around."""
    rows, columns = np.flatnonzero(mask_HW.any(axis=1)), np.flatnonzero(mask_HW.any(axis=0))
    if not len(rows):
        return np.zeros((1, 1), np.uint8)
    return mask_HW[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]


@functools.lru_cache(maxsize=512)
def _open(name: str, size_px: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    if name == _PILLOW:
        return ImageFont.load_default(size_px)
    return ImageFont.truetype(str(_folder() / f"{name}.ttf"), size_px)


@functools.cache
def _folder() -> Path:
    import matplotlib

    return Path(matplotlib.get_data_path()) / "fonts/ttf"
