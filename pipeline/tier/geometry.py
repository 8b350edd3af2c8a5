"""From a clean crop to a bucket: how many frames fit, which shape, which pixels.

Everything works on whole columns (one array element a clip) and on whole numbers of pixels, so
that what a tier decides is what the packer later cuts out.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.media.window import MAX_FPS, effective_fps
from schemas.clip import ClipRow
from schemas.tier import Bucket

IntArray = NDArray[np.int64]
FloatArray = NDArray[np.float64]

ASPECTS = ((1, 1), (4, 3), (3, 4), (16, 9), (9, 16))  # width : height
_SIDE_STEP = 16  # 8x from the VAE, 2x from the patches
_VARIABLE_CLIP = ClipRow(
    clip_id="", source_uri="", source_sha256="", media_kind="video", end_frame=1, is_vfr=True
)


def bucket_sizes(area_px: int) -> tuple[tuple[int, int], ...]:
    """(height, width) for each of ASPECTS: about the area, sides the nearest multiples of 16."""
    sizes = []
    for across, down in ASPECTS:
        height = math.sqrt(area_px * down / across)
        width = math.sqrt(area_px * across / down)
        sizes.append((_nearest_step(height), _nearest_step(width)))
    return tuple(sizes)


def buckets_of(area_px: int, frames: Sequence[int]) -> tuple[Bucket, ...]:
    """Every bucket that a tier can fill."""
    return tuple(
        Bucket(num_frames=count, height=height, width=width)
        for count in frames
        for height, width in bucket_sizes(area_px)
    )


def effective_rates(fps: FloatArray, is_vfr: NDArray[np.bool_]) -> FloatArray:
    """The constant rate of each clip's samples, as `pipeline.media.window` has it; NaN for NaN."""
    rates = fps / np.maximum(np.ceil(fps / MAX_FPS), 1)
    variable = np.flatnonzero(is_vfr & ~np.isnan(fps))
    measured, place = np.unique(fps[variable], return_inverse=True)
    usual = [effective_fps(_VARIABLE_CLIP.model_copy(update={"fps": rate})) for rate in measured]
    rates[variable] = np.array(usual, dtype=np.float64)[place]
    return rates


def available_frames(
    *, num_frames: IntArray, duration_s: FloatArray, fps: FloatArray, is_vfr: NDArray[np.bool_]
) -> IntArray:
    """Samples between the clear frame and the clip's end, given what is left of it from there."""
    stride = np.nan_to_num(np.maximum(np.ceil(fps / MAX_FPS), 1), nan=1).astype(np.int64)
    at_constant_rate = -(-num_frames // stride)
    if not is_vfr.any():
        return at_constant_rate
    resampled = np.floor(np.nan_to_num(duration_s * effective_rates(fps, is_vfr)) + 1e-6)
    return np.where(is_vfr, resampled.astype(np.int64), at_constant_rate)


def longest_fitting(available: IntArray, frames: Sequence[int]) -> IntArray:
    """The largest listed count that is at most `available`; 0 where none is."""
    counts = np.array([0, *frames], dtype=np.int64)
    position = np.searchsorted(counts[1:], available, side="right")
    return counts[position]


@dataclass(frozen=True, slots=True)
class PixelCrops:
    """Rectangles in displayed pixels of their own pictures, one per clip."""

    left: IntArray
    top: IntArray
    width: IntArray
    height: IntArray


@dataclass(frozen=True, slots=True)
class Shapes:
    """The bucket side lengths for each clip and the pixels that fill them."""

    bucket_height: IntArray
    bucket_width: IntArray
    crop: PixelCrops
    kept_area: FloatArray  # share of the clean crop that the bucket's aspect leaves


def clean_pixels(
    box_LTRB: tuple[FloatArray, FloatArray, FloatArray, FloatArray],
    width_px: IntArray,
    height_px: IntArray,
) -> PixelCrops:
    """Shares of the picture as pixels; NaN shares give an empty crop."""
    left, top, right, bottom = (np.nan_to_num(side) for side in box_LTRB)
    left_px, right_px = _pixels(left, width_px), _pixels(right, width_px)
    top_px, bottom_px = _pixels(top, height_px), _pixels(bottom, height_px)
    return PixelCrops(left_px, top_px, right_px - left_px, bottom_px - top_px)


def fit(clean: PixelCrops, area_px: int) -> Shapes:
    """The bucket of the nearest aspect, and the largest centered crop of exactly that aspect."""
    sizes = np.array(bucket_sizes(area_px), dtype=np.int64)
    log_aspects = np.log(sizes[:, 1] / sizes[:, 0])
    clip_aspect = np.log(np.maximum(clean.width, 1) / np.maximum(clean.height, 1))
    nearest = np.zeros(len(clip_aspect), dtype=np.int64)
    distance = np.abs(clip_aspect - log_aspects[0])
    for choice in range(1, len(sizes)):
        other = np.abs(clip_aspect - log_aspects[choice])
        closer = other < distance
        nearest[closer], distance[closer] = choice, other[closer]
    bucket_height, bucket_width = sizes[nearest, 0], sizes[nearest, 1]

    width = np.minimum(clean.width, clean.height * bucket_width // bucket_height)
    height = np.minimum(clean.height, clean.width * bucket_height // bucket_width)
    left = clean.left + (clean.width - width) // 2
    top = clean.top + (clean.height - height) // 2
    kept_area = (width * height) / np.maximum(clean.width * clean.height, 1)
    return Shapes(bucket_height, bucket_width, PixelCrops(left, top, width, height), kept_area)


def _nearest_step(side: float) -> int:
    return max(_SIDE_STEP, round(side / _SIDE_STEP) * _SIDE_STEP)


def _pixels(share: FloatArray, size_px: IntArray) -> IntArray:
    return np.rint(share * size_px).astype(np.int64)
