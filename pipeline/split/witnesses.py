"""What PySceneDetect's detectors see in the small pictures, and a witness for what fools them.

Both detectors look at the mean change of hue, saturation and value from one frame to the next, so
it is computed once. Fast motion and flashes change many pixels too; unlike across a cut, the
structure and the colors of the picture can be found again, a little displaced, on the other side.
"""

from array import array
from collections import deque
from typing import Any, TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray
from scenedetect import AdaptiveDetector, ContentDetector, FrameTimecode, SceneDetector

from pipeline.split.config import EvidenceConfig
from pipeline.split.mixing import LONGEST_FRAMES, STEP_FRAMES, mixed_window

_PICTURE_SHORT_SIDE_PX = 36
_MAX_SHIFT_PX = 4  # of the compared pictures, each way: a ninth of the short side
_MIN_SD = 2.0  # 8-bit levels; flatter pictures have no structure to compare
# Frames (before, after) a boundary that are compared. A flash of up to five frames is seen
# through by the second pair where it begins and by the third where it ends.
_PAIRS = ((-2, 1), (-2, 6), (-7, 1))
_LAST_OFFSET = max(after for _, after in _PAIRS)
_FIRST_OFFSET = min(before for before, _ in _PAIRS)
_SLOW_STEP = 8  # frames between two looks for gradual change
_SLOW_LAG = 16  # frames over which it is looked for


Scores: TypeAlias = "array[float] | NDArray[np.float32]"


class ScoredAdaptiveDetector(AdaptiveDetector):  # type: ignore[misc]
    """Proposes cuts like its base; keeps every frame's content score.

    The score is the base's with its default weights, computed in one sweep instead of nine.
    """

    def __init__(self, config: EvidenceConfig) -> None:
        super().__init__(
            adaptive_threshold=config.min_ratio, min_content_val=config.min_content, min_scene_len=1
        )
        self.content = array("f")
        self._last_hsv: NDArray[Any] | None = None

    def _calculate_frame_score(
        self, timecode: FrameTimecode, frame_img: NDArray[np.uint8]
    ) -> float:
        hsv = cv2.cvtColor(frame_img, cv2.COLOR_BGR2HSV)
        last, self._last_hsv = self._last_hsv, hsv
        return 0.0 if last is None else sum(cv2.mean(cv2.absdiff(hsv, last))[:3]) / 3

    def process_frame(
        self, timecode: FrameTimecode, frame_img: NDArray[np.uint8]
    ) -> list[FrameTimecode]:
        cuts: list[FrameTimecode] = super().process_frame(timecode, frame_img)
        assert self._frame_score is not None
        self.content.append(self._frame_score)
        return cuts


class SharedContentDetector(ContentDetector):  # type: ignore[misc]
    """ContentDetector with its default threshold on scores that another one has computed."""

    def __init__(self, scored: ScoredAdaptiveDetector) -> None:
        super().__init__(min_scene_len=0)
        self._scored = scored

    def _calculate_frame_score(
        self, timecode: FrameTimecode, frame_img: NDArray[np.uint8]
    ) -> float:
        return self._scored.content[-1]


class PictureWitness(SceneDetector):  # type: ignore[misc]
    """Brightness and contrast of every frame; likeness across every frame of notable change.

    `likeness` [0, 1] is 1 for the same structure and colors on both sides and about 0 for two
    unrelated pictures; NaN where the change was too small to ask. `mixed` holds the first and last
    frames of windows in which one picture is mixed with another.
    """

    def __init__(self, config: EvidenceConfig, scored: ScoredAdaptiveDetector) -> None:
        super().__init__()
        self.luma_mean = array("f")
        self.luma_sd = array("f")
        self.likeness = array("f")
        self.mixed: list[tuple[int, int]] = []
        self._config = config
        self._scored = scored
        self._recent: deque[NDArray[np.uint8]] = deque(maxlen=max(_SLOW_LAG, LONGEST_FRAMES) + 1)
        self._size_WH: tuple[int, int] | None = None

    def process_frame(
        self, timecode: FrameTimecode, frame_img: NDArray[np.uint8]
    ) -> list[FrameTimecode]:
        gray = cv2.cvtColor(frame_img, cv2.COLOR_BGR2GRAY)
        mean, sd = cv2.meanStdDev(gray)
        self.luma_mean.append(float(mean[0, 0]))
        self.luma_sd.append(float(sd[0, 0]))
        self.likeness.append(np.nan)
        if self._size_WH is None:
            self._size_WH = _compared_size(gray.shape[:2])
        small = cv2.resize(frame_img, self._size_WH, interpolation=cv2.INTER_AREA)
        self._recent.append(np.asarray(small, np.uint8))
        index = len(self.likeness) - 1
        self._compare_across(index - _LAST_OFFSET)
        if index % STEP_FRAMES == 0:
            length = mixed_window(self._recent, _structure_likeness)
            if length is not None:
                self.mixed.append((index - length, index))
        return []

    def post_process(self, timecode: FrameTimecode) -> list[FrameTimecode]:
        num_frames = len(self.likeness)
        for index in range(max(0, num_frames - _LAST_OFFSET), num_frames):
            self._compare_across(index)
        return []

    def find_doubt(self, index: int) -> int | None:
        """A frame near `index` that the cheap witnesses cannot tell from a boundary, or None."""
        doubt = index - _LAST_OFFSET
        if doubt > 0 and self._is_doubtful(doubt):
            return doubt
        if index % _SLOW_STEP == 0 and index >= _SLOW_LAG and self._changed_slowly(index):
            return index - _SLOW_LAG // 2
        return None

    def _is_doubtful(self, index: int) -> bool:
        content = self._scored.content
        if content[index] < self._config.min_content or not is_peak(content, index):
            return False
        ratio = change_ratio(content, index)
        if ratio < self._config.min_ratio:
            return False
        strength = hard_strength(content[index], self.likeness[index], self._config)
        return strength < self._config.sure_strength or ratio < self._config.sure_ratio

    def _changed_slowly(self, index: int) -> bool:
        """Another picture than a moment ago, and no abrupt change in between."""
        recent = range(index - _SLOW_LAG + 1, index + 1)
        content = self._scored.content
        if max(content[i] for i in recent) >= self._config.full_content / 2:
            return False
        return (
            likeness_of(self._recent[-1 - _SLOW_LAG], self._recent[-1])
            < self._config.max_slow_likeness
        )

    def _compare_across(self, index: int) -> None:
        if index <= 0 or self._scored.content[index] < self._config.min_content:
            return
        num_frames = len(self.likeness)
        oldest = num_frames - len(self._recent)
        self.likeness[index] = max(
            likeness_of(
                self._recent[max(0, index + before - oldest)],
                self._recent[min(num_frames - 1, index + after) - oldest],
            )
            for before, after in _PAIRS
        )


def change_ratio(content: Scores, index: int) -> float:
    """Change at a frame over the mean change at its neighbors, two on either side; at most 255."""
    near = [
        float(content[i])
        for i in range(index - 2, index + 3)
        if i != index and 0 < i < len(content)
    ]
    mean = sum(near) / len(near) if near else 0.0
    return min(float(content[index]) / mean, 255.0) if mean > 1e-5 else 255.0


def is_peak(content: Scores, index: int, radius: int = 2) -> bool:
    """Highest within `radius` frames; of equals, the first."""
    before = content[max(0, index - radius) : index]
    after = content[index + 1 : index + 1 + radius]
    return all(x < content[index] for x in before) and all(x <= content[index] for x in after)


def hard_strength(content: float, likeness: float, config: EvidenceConfig) -> float:
    """Evidence for a cut in [0, 1]: how much changed, times how little is found again."""
    if np.isnan(likeness):
        return 0.0
    return float(min(content / config.full_content, 1.0) * (1.0 - likeness))


def likeness_of(first_HWC: NDArray[np.uint8], second_HWC: NDArray[np.uint8]) -> float:
    """Likeness of structure times likeness of colors, each in [0, 1]; small BGR pictures."""
    colors = float(np.sqrt(_color_shares(first_HWC) * _color_shares(second_HWC)).sum())
    if colors == 0.0:
        return 0.0
    first_HW, second_HW = (cv2.cvtColor(x, cv2.COLOR_BGR2GRAY) for x in (first_HWC, second_HWC))
    return colors * _structure_likeness(first_HW, second_HW)


def _structure_likeness(first_HW: NDArray[Any], second_HW: NDArray[Any]) -> float:
    """Highest normalized correlation of the middle of one picture over small displacements."""
    shift_y, shift_x = (min(_MAX_SHIFT_PX, side // 4) for side in first_HW.shape)
    height, width = first_HW.shape
    middle = first_HW[shift_y : height - shift_y, shift_x : width - shift_x]
    is_flat = [float(picture.std()) < _MIN_SD for picture in (middle, second_HW)]
    if any(is_flat):
        return 1.0 if all(is_flat) else 0.0
    return max(0.0, float(cv2.matchTemplate(second_HW, middle, cv2.TM_CCOEFF_NORMED).max()))


def _color_shares(picture_HWC: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Share of the pixels in each of 512 coarse colors."""
    coarse = picture_HWC.astype(np.int32) // 32
    bins = (coarse[..., 0] * 64 + coarse[..., 1] * 8 + coarse[..., 2]).ravel()
    return np.bincount(bins, minlength=512) / len(bins)


def _compared_size(size_HW: tuple[int, ...]) -> tuple[int, int]:
    height, width = size_HW
    scale = min(1.0, _PICTURE_SHORT_SIDE_PX / min(height, width))
    return max(1, round(width * scale)), max(1, round(height * scale))


assert _SLOW_LAG >= _LAST_OFFSET - _FIRST_OFFSET
