"""Sharpness that can be compared between clips, and the picture height that the detail supports.

Sharpness: tiles of 8 x 8 pixels at short side 540; the Laplacian's variance of a tile is divided
by the tile's own contrast; flat tiles do not count, and the 90th percentile lets a sharp subject
before a blurred background stay sharp.

Effective height: the spatial frequency below which 97 % of the whitened energy lies, as a share
of the highest one that the pixels could carry. An enlarged picture has a cliff there.
"""

from collections.abc import Sequence
from functools import lru_cache
from typing import ClassVar

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy import fft

from pipeline.score.config import ClarityConfig
from pipeline.score.sampler import Clip
from pipeline.stage import Resources
from schemas.base import StrictModel
from schemas.scores import ClarityScore
from schemas.status import Failure

_TILE_PX = 8
_MIN_TILE_SD = 4.0  # 8-bit levels; flatter tiles say nothing about focus
_NOISE_SIGMA_PX = 0.7
_SPECTRUM_PX = 256
_NUM_SPECTRA = 4  # tiles per frame, those with most texture
_ENERGY_SHARE = 0.97


class ClarityStage:
    name: ClassVar[str] = "clarity"
    version: ClassVar[int] = 2
    resources: ClassVar[Resources] = Resources()
    result: ClassVar[type[StrictModel]] = ClarityScore

    def __init__(self, config: ClarityConfig) -> None:
        self._config = config

    def setup(self) -> None:
        cv2.setNumThreads(1)

    def process(self, clips: Sequence[Clip]) -> list[ClarityScore | Failure]:
        return [self._score(clip) for clip in clips]

    def _score(self, clip: Clip) -> ClarityScore | Failure:
        sharpness, variance, cutoff = [], [], []
        for luma in clip.native_luma_THW:
            small = _reduced(luma, self._config.short_side)
            spread = cv2.meanStdDev(cv2.Laplacian(small, cv2.CV_16S))[1]
            variance.append(float(spread[0, 0]) ** 2)
            tile_sharpness = sharpness_of(small)
            if tile_sharpness is not None:
                sharpness.append(tile_sharpness)
                cutoff.append(cutoff_share(luma))
        if not sharpness:
            return Failure(error_class="flat_picture", error="no tile with detail in any frame")
        return ClarityScore(
            sharpness=float(np.median(sharpness)),
            laplacian_variance=float(np.median(variance)),
            effective_height=float(np.median(cutoff)) * clip.native_luma_THW.shape[1],
        )


def sharpness_of(luma_HW: NDArray[np.uint8]) -> float | None:
    """Log ratio of Laplacian to contrast in the sharp tiles; None without a tile of detail."""
    smooth = np.asarray(
        cv2.GaussianBlur(luma_HW.astype(np.float32), (0, 0), _NOISE_SIGMA_PX), np.float32
    )
    variance = _tile_variance(smooth)
    detailed = variance >= _MIN_TILE_SD**2
    if not detailed.any():
        return None
    edges = _tile_variance(np.asarray(cv2.Laplacian(smooth, cv2.CV_32F), np.float32))
    score = np.log(edges + 1.0) - 0.5 * np.log(variance + 1.0)
    return float(np.percentile(score[detailed], 90))


def cutoff_share(luma_HW: NDArray[np.uint8]) -> float:
    """In (0, 1]: 1 when the detail reaches up to the pixel grid's own limit."""
    size = int(min(_SPECTRUM_PX, *luma_HW.shape))
    window = _window(size)
    spectrum = np.zeros((size, size // 2 + 1))
    for tile in _textured_tiles(luma_HW, size):
        centered = tile.astype(np.float32) - np.float32(tile.mean())
        spectrum += np.abs(fft.rfft2(centered * window)) ** 2  # in 32 bits, unlike NumPy's
    inside, ring = _rings(size)
    power = np.bincount(ring, spectrum[inside]) / np.maximum(np.bincount(ring), 1)
    # Natural pictures fall as 1/f^2: whitened, each frequency weighs the same.
    energy = np.cumsum(power * np.arange(len(power)) ** 2.0)
    if energy[-1] <= 0:
        return 2.0 / size
    reached = int(np.searchsorted(energy, _ENERGY_SHARE * energy[-1]))
    return min(1.0, float(reached / (size * _ENERGY_SHARE * 0.5)))


@lru_cache(maxsize=4)
def _window(size: int) -> NDArray[np.float32]:
    return np.asarray(np.hanning(size)[:, None] * np.hanning(size)[None, :], np.float32)


@lru_cache(maxsize=4)
def _rings(size: int) -> tuple[NDArray[np.bool_], NDArray[np.int64]]:
    """Which frequencies of the half spectrum lie inside the pixels' limit, and their rings."""
    fy = np.fft.fftfreq(size)[:, None]
    fx = np.fft.rfftfreq(size)[None, :]
    radius = np.hypot(fy, fx)
    inside = radius <= 0.5
    return inside, np.round(radius[inside] * size).astype(int)


def _textured_tiles(luma_HW: NDArray[np.uint8], size: int) -> list[NDArray[np.uint8]]:
    rows = [size * r for r in range(luma_HW.shape[0] // size)]
    columns = [size * c for c in range(luma_HW.shape[1] // size)]
    tiles = [luma_HW[y : y + size, x : x + size] for y in rows for x in columns]
    order = sorted(range(len(tiles)), key=lambda i: -float(cv2.meanStdDev(tiles[i])[1][0, 0]))
    return [tiles[i] for i in order[:_NUM_SPECTRA]]


def _reduced(luma_HW: NDArray[np.uint8], short_side: int) -> NDArray[np.uint8]:
    height, width = luma_HW.shape
    scale = short_side / min(height, width)
    if scale >= 1.0:
        return luma_HW
    size = (round(width * scale), round(height * scale))
    return np.asarray(cv2.resize(luma_HW, size, interpolation=cv2.INTER_AREA), np.uint8)


def _tile_variance(image: NDArray[np.float32]) -> NDArray[np.float32]:
    rows, columns = (max(1, side // _TILE_PX) for side in image.shape)
    tile_height, tile_width = image.shape[0] // rows, image.shape[1] // columns
    tiles = image[: rows * tile_height, : columns * tile_width]
    tiles = tiles - np.float32(tiles.mean())  # so that squares do not drown the differences
    # A reduction over areas is the mean of each tile, many times faster than a tile at a time.
    mean = cv2.resize(tiles, (columns, rows), interpolation=cv2.INTER_AREA)
    square = cv2.resize(cv2.multiply(tiles, tiles), (columns, rows), interpolation=cv2.INTER_AREA)
    return np.maximum(0.0, np.asarray(square - mean * mean, np.float32))
