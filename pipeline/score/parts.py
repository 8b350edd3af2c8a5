"""Parts of a clip's frames at the picture's own scale, for networks that judge single pixels.

Wear shows in detail that a reduced picture no longer has, so nothing is reduced but pictures above
a limit. The places are fixed: a choice by texture would prefer noise to what it covers.
"""

import cv2
import numpy as np
from numpy.typing import NDArray

from pipeline.score.sampler import Clip, evenly
from schemas.model_card import ModelCard

_PLACES = ((0.3, 0.3), (0.7, 0.7), (0.7, 0.3), (0.3, 0.7))  # of the room, down and across


def native_parts(clip: Clip, card: ModelCard, max_short_side: int) -> NDArray[np.uint8]:
    """1 x T x H x W x 3, all three channels the luma; smaller pictures are mirrored at the edge."""
    num_parts = card.num_frames or len(_PLACES)
    num_frames = -(-num_parts // len(_PLACES))
    lumas = clip.native_luma_THW
    chosen = np.resize(evenly(len(lumas), num_frames), num_frames)
    fitted = [_fitted(lumas[index], card, max_short_side) for index in np.sort(chosen)]
    parts = [
        _part(fitted[number // len(_PLACES)], card, *_PLACES[number % len(_PLACES)])
        for number in range(num_parts)
    ]
    return np.repeat(np.stack(parts)[None, ..., None], 3, axis=4)


def _fitted(luma_HW: NDArray[np.uint8], card: ModelCard, max_short_side: int) -> NDArray[np.uint8]:
    height, width = luma_HW.shape
    scale = max_short_side / min(height, width)
    if scale < 1.0:
        size = (round(width * scale), round(height * scale))
        luma_HW = np.asarray(cv2.resize(luma_HW, size, interpolation=cv2.INTER_AREA), np.uint8)
        height, width = luma_HW.shape
    missing = ((0, max(0, card.height - height)), (0, max(0, card.width - width)))
    return np.pad(luma_HW, missing, mode="symmetric") if any(map(any, missing)) else luma_HW


def _part(
    luma_HW: NDArray[np.uint8], card: ModelCard, down: float, across: float
) -> NDArray[np.uint8]:
    top = round(down * (luma_HW.shape[0] - card.height))
    left = round(across * (luma_HW.shape[1] - card.width))
    return luma_HW[top : top + card.height, left : left + card.width]
