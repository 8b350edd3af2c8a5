"""How sharp a frame is against its neighbors in the same clip. Cheap enough for every frame.

The Laplacian is taken on a few rows of the decoded luma, so that nothing is scaled or copied. Rows
are cut into short pieces: a piece's Laplacian is divided by its own contrast, flat pieces do not
count, and the 90th percentile lets a sharp subject before a blurred background stay sharp. The
number has no meaning beyond the clip.
"""

from typing import Any

import cv2
import numpy as np
from av.video.frame import VideoFrame
from av.video.reformatter import VideoReformatter
from numpy.typing import NDArray

_NUM_ROWS = 12
_PIECE_PX = 16
_SHORT_SIDE_PX = 540  # larger pictures are read on a coarser grid, as if reduced to this
_MIN_PIECE_SD = 4.0  # 8-bit levels
_PERCENTILE = 90


class SharpnessMeter:
    """Keeps one scaler for the pixel formats whose luma cannot be read in place."""

    def __init__(self) -> None:
        self._scaler = VideoReformatter()

    def measure(self, frame: VideoFrame) -> float:
        luma_HW = _luma_in_place(frame)
        if luma_HW is None:
            gray = self._scaler.reformat(frame, format="gray", threads=1)
            luma_HW = np.asarray(gray.to_ndarray())
        return row_sharpness(luma_HW)


def row_sharpness(luma_HW: NDArray[np.uint8]) -> float:
    """At least 0; 0 for a picture without detail."""
    step = max(1, min(luma_HW.shape) // _SHORT_SIDE_PX)
    height, width = luma_HW.shape[0], luma_HW.shape[1] // step
    num_pieces = width // _PIECE_PX
    if num_pieces == 0 or height < 2 * step + 1:
        return 0.0
    rows = (step + (np.arange(_NUM_ROWS) + 0.5) * (height - 2 * step) / _NUM_ROWS).astype(int)
    # Three rows for each of them, one below the other: the middle one's Laplacian is true.
    bands = luma_HW[np.stack([rows - step, rows, rows + step], axis=1).ravel(), ::step]
    laplacian = cv2.Laplacian(bands, cv2.CV_32F)[1::3]
    contrast = _piece_variance(bands[1::3].astype(np.float32), num_pieces)
    detailed = contrast >= _MIN_PIECE_SD**2
    if not detailed.any():
        return 0.0
    edges = _piece_variance(laplacian, num_pieces)[detailed]
    squared = (edges + 1) / np.sqrt(contrast[detailed] + 1)
    rank = (len(squared) - 1) * _PERCENTILE // 100
    return float(np.sqrt(np.partition(squared, rank)[rank]))


def _piece_variance(x_RW: NDArray[Any], num_pieces: int) -> NDArray[np.float32]:
    x_RW = x_RW[:, : num_pieces * _PIECE_PX]
    size = (num_pieces, len(x_RW))
    mean = cv2.resize(x_RW, size, interpolation=cv2.INTER_AREA)
    mean_of_squares = cv2.resize(cv2.multiply(x_RW, x_RW), size, interpolation=cv2.INTER_AREA)
    variance: NDArray[np.float32] = mean_of_squares - cv2.multiply(mean, mean)
    return variance


def _luma_in_place(frame: VideoFrame) -> NDArray[np.uint8] | None:
    """The luma plane itself, without a copy; None where the format has no 8-bit one."""
    pixels = frame.format
    if pixels.is_rgb or not pixels.is_planar or pixels.components[0].bits != 8:
        return None
    plane = frame.planes[0]
    luma = np.frombuffer(plane, np.uint8)  # type: ignore[call-overload]
    image: NDArray[np.uint8] = luma.reshape(-1, plane.line_size)[: plane.height, : plane.width]
    return image
