"""The largest clean crop: without borders, bars, subtitles, banners, insets and corner logos."""

from collections.abc import Sequence
from typing import ClassVar

from pipeline.score.config import CropConfig, OverlaysConfig
from pipeline.score.overlays import in_corner
from pipeline.score.rectangles import PixelBox, largest_free_box
from pipeline.score.sampler import Clip, evenly
from pipeline.score.text import TextStage
from schemas.base import StrictModel
from schemas.scores import (
    FULL_PICTURE,
    BorderScore,
    Box,
    CropScore,
    Overlay,
    OverlayScore,
    TextScore,
)

_PERSISTENT_PRESENCE = 0.5
_CORNER_KINDS = ("corner_logo", "watermark", "unknown")
_EDGE_KINDS = ("subtitle", "banner", "picture_in_picture")  # the crop goes around them anywhere
_BAR_KINDS = ("border", "blurred_fill")
_MIN_BAR_LEFT = 0.2  # of a bar: less of it inside the measured borders is the same bar


class Cropper:
    """Fills the field `crop` from what borders, text and overlays found in the same clip."""

    name: ClassVar[str] = "crop"
    version: ClassVar[int] = 2
    result: ClassVar[type[StrictModel]] = CropScore

    def __init__(self, config: CropConfig, overlays: OverlaysConfig, text: TextStage) -> None:
        self._config = config
        self._corner_share = overlays.corner_share
        self._text = text

    def crop(
        self, clip: Clip, borders: BorderScore, text: TextScore, overlays: OverlayScore
    ) -> CropScore:
        size_HW = (clip.native_luma_THW.shape[1], clip.native_luma_THW.shape[2])
        obstacles = obstacles_of(text, overlays, self._corner_share)
        box = clean_crop(size_HW, borders, obstacles, self._config, bars_of(overlays))
        mean_area, max_area = self._text_left(clip, text, box)
        return CropScore(
            box=box,
            kept_area=box.area,
            text_mean_area=mean_area,
            text_max_area=max_area,
            overlay_area=min(1.0, sum(_shared(o.box, box) for o in overlays.overlays) / box.area),
        )

    def _text_left(self, clip: Clip, text: TextScore, box: Box) -> tuple[float, float]:
        """Text is looked for again inside the crop; where none was found before, none is left."""
        if box == FULL_PICTURE or text.max_area == 0:
            return text.mean_area, text.max_area
        frames = clip.cropped(box).key_frames_THWC
        areas = self._text.areas(frames[evenly(len(frames), text.num_frames)])
        return sum(areas) / len(areas), max(areas)


def obstacles_of(text: TextScore, overlays: OverlayScore, corner_share: float) -> list[Box]:
    """What the crop goes around: subtitles, banners, insets, and what rests in a corner.

    Marks over the middle and collages are none: no crop is without them, so they stay and count.
    """
    obstacles = [o.box for o in overlays.overlays if _is_obstacle(o, corner_share)]
    if text.subtitle_band is not None:
        obstacles.append(text.subtitle_band)
    if overlays.comparable:  # in a resting picture a sign of the scene rests, too
        obstacles += [
            track.box
            for track in text.tracks
            if track.presence >= _PERSISTENT_PRESENCE and in_corner(track.box, corner_share)
        ]
    return obstacles


def bars_of(overlays: OverlayScore) -> list[Box]:
    """Bars at the edges and blurred fills, which the measured borders may not know."""
    return [o.box for o in overlays.overlays if o.kind in _BAR_KINDS]


def clean_crop(
    size_HW: tuple[int, int],
    borders: BorderScore,
    obstacles: Sequence[Box],
    config: CropConfig,
    bars: Sequence[Box] = (),
) -> Box:
    """The largest box of even pixels inside the borders and bars that touches no obstacle.

    Where it would keep less than the configured share of the picture, or be too long or too tall,
    the obstacles stay and only borders and bars go.
    """
    height, width = size_HW
    inside = PixelBox(
        left=_even_up(borders.left_px),
        top=_even_up(borders.top_px),
        right=max(_even_up(borders.left_px) + 1, _even_down(width - borders.right_px, width)),
        bottom=max(_even_up(borders.top_px) + 1, _even_down(height - borders.bottom_px, height)),
    )
    inside = _without_bars(inside, [_padded_pixels(b, size_HW, config.padding) for b in bars])
    padded = [_padded_pixels(box, size_HW, config.padding) for box in obstacles]
    best = largest_free_box(inside, padded)
    if best is not None and not _is_good(best, size_HW, config):
        best = None
    chosen = best or inside
    return Box(
        left=chosen.left / width,
        top=chosen.top / height,
        right=chosen.right / width,
        bottom=chosen.bottom / height,
    )


def _without_bars(inside: PixelBox, bars: Sequence[PixelBox]) -> PixelBox:
    others = [bar for bar in bars if _overlap(bar, inside).area >= _MIN_BAR_LEFT * bar.area]
    return largest_free_box(inside, others) or inside


def _overlap(a: PixelBox, b: PixelBox) -> PixelBox:
    left, top = max(a.left, b.left), max(a.top, b.top)
    return PixelBox(left, top, max(left, min(a.right, b.right)), max(top, min(a.bottom, b.bottom)))


def _is_good(box: PixelBox, size_HW: tuple[int, int], config: CropConfig) -> bool:
    aspect = (box.right - box.left) / (box.bottom - box.top)
    kept = box.area / (size_HW[0] * size_HW[1])
    return kept >= config.min_kept_area and config.min_aspect <= aspect <= config.max_aspect


def _padded_pixels(box: Box, size_HW: tuple[int, int], padding: float) -> PixelBox:
    """Outward to even pixels."""
    height, width = size_HW
    return PixelBox(
        left=_even_down(int((box.left - padding) * width), width),
        top=_even_down(int((box.top - padding) * height), height),
        right=_even_up(int(-(-(box.right + padding) * width // 1))),
        bottom=_even_up(int(-(-(box.bottom + padding) * height // 1))),
    )


def _even_up(value: int) -> int:
    return max(0, value + value % 2)


def _even_down(value: int, limit: int) -> int:
    """The picture's own end may be odd: there it stays."""
    return limit if value >= limit else max(0, value - value % 2)


def _is_obstacle(overlay: Overlay, corner_share: float) -> bool:
    is_corner_mark = overlay.kind in _CORNER_KINDS and in_corner(overlay.box, corner_share)
    return is_corner_mark or overlay.kind in _EDGE_KINDS


def _shared(a: Box, b: Box) -> float:
    width = max(0.0, min(a.right, b.right) - max(a.left, b.left))
    return width * max(0.0, min(a.bottom, b.bottom) - max(a.top, b.top))
