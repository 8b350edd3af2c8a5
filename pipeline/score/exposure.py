"""Light and color statistics on 8-bit values of the key frames and, for flicker, of all steps."""

from collections.abc import Sequence
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from pipeline.score.sampler import Clip
from pipeline.stage import Resources
from schemas.base import StrictModel
from schemas.scores import ExposureScore
from schemas.status import Failure

_DARK_LUMA = 16
_BRIGHT_LUMA = 239


class ExposureStage:
    name: ClassVar[str] = "exposure"
    version: ClassVar[int] = 1
    resources: ClassVar[Resources] = Resources()
    result: ClassVar[type[StrictModel]] = ExposureScore

    def setup(self) -> None:
        """Nothing to load."""

    def process(self, clips: Sequence[Clip]) -> list[ExposureScore | Failure]:
        return [_score(clip) for clip in clips]


def _score(clip: Clip) -> ExposureScore:
    luma = clip.luma_THW[:, ::2, ::2]
    mean_luma_T = luma.mean(axis=(1, 2), dtype=np.float64)
    rgb = clip.key_frames_THWC[:, ::4, ::4].astype(np.float32)
    top, bottom = rgb.max(axis=-1), rgb.min(axis=-1)
    # What a slow change of the scene explains is not flicker.
    steps = mean_luma_T - _moving_mean(mean_luma_T)
    return ExposureScore(
        mean_luma=float(mean_luma_T.mean()),
        luma_sd=float(luma.std(axis=(1, 2), dtype=np.float64).mean()),
        dark_share=float((luma <= _DARK_LUMA).mean()),
        bright_share=float((luma >= _BRIGHT_LUMA).mean()),
        saturation=float(((top - bottom) / np.maximum(top, 1.0)).mean()),
        flicker=float(steps.std()),
    )


def _moving_mean(values_T: NDArray[np.float64], width: int = 5) -> NDArray[np.float64]:
    """Centered mean over `width` values, fewer at the ends."""
    kernel = np.ones(min(width, len(values_T)))
    total = np.convolve(values_T, kernel, mode="same")
    return np.asarray(total / np.convolve(np.ones_like(values_T), kernel, mode="same"))
