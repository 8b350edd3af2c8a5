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
    version: ClassVar[int] = 2
    resources: ClassVar[Resources] = Resources()
    result: ClassVar[type[StrictModel]] = ExposureScore

    def setup(self) -> None:
        """Nothing to load."""

    def process(self, clips: Sequence[Clip]) -> list[ExposureScore | Failure]:
        return [_score(clip) for clip in clips]


def _score(clip: Clip) -> ExposureScore:
    shares_TL = np.stack([_level_shares(luma[::2, ::2]) for luma in clip.luma_THW])
    levels_L = np.arange(256.0)
    mean_luma_T = shares_TL @ levels_L
    variance_T = np.maximum(0.0, shares_TL @ levels_L**2 - mean_luma_T**2)
    red, green, blue = np.moveaxis(clip.key_frames_THWC[:, ::4, ::4], -1, 0).astype(np.float32)
    top = np.maximum(np.maximum(red, green), blue)  # ten times faster than along the last axis
    bottom = np.minimum(np.minimum(red, green), blue)
    # What a slow change of the scene explains is not flicker.
    steps = mean_luma_T - _moving_mean(mean_luma_T)
    return ExposureScore(
        mean_luma=float(mean_luma_T.mean()),
        luma_sd=float(np.sqrt(variance_T).mean()),
        dark_share=min(1.0, float(shares_TL[:, : _DARK_LUMA + 1].sum(axis=1).mean())),
        bright_share=min(1.0, float(shares_TL[:, _BRIGHT_LUMA:].sum(axis=1).mean())),
        saturation=float(((top - bottom) / np.maximum(top, 1.0)).mean()),
        flicker=float(steps.std()),
    )


def _level_shares(luma_HW: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Share of the pixels at each of the 256 levels."""
    return np.asarray(np.bincount(luma_HW.ravel(), minlength=256) / luma_HW.size)


def _moving_mean(values_T: NDArray[np.float64], width: int = 5) -> NDArray[np.float64]:
    """Centered mean over `width` values, fewer at the ends."""
    kernel = np.ones(min(width, len(values_T)))
    total = np.convolve(values_T, kernel, mode="same")
    return np.asarray(total / np.convolve(np.ones_like(values_T), kernel, mode="same"))
