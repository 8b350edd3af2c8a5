"""Natural-scene statistics of picture patches: the 36 features of NIQE.

Luma is normalized by its local mean and deviation (MSCN coefficients); a generalized Gaussian is
fitted to them and an asymmetric one to the products of neighbors in four directions, at full and
at half scale. Mittal, Moorthy and Bovik (BRISQUE, 2012); moment matching after Lasmar et al. 2009.
"""

from functools import cache
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.special import gamma

FloatArray = NDArray[np.float64]

_WINDOW_PX = 7
_WINDOW_SIGMA_PX = 7 / 6
_MIN_MSCN = 1e-4  # one level of a pixel in strong texture makes a hundred times more
_NEIGHBORS = ((0, 1), (1, 0), (1, 1), (1, -1))  # rows, columns
# Half size as a bicubic kernel stretched over the reduction sees it (a = -0.5, distances in
# half-size pixels); symmetric, eight taps.
_HALF_TAPS = (0.25, 0.75, 1.25, 1.75)


def patch_features(luma_HW: NDArray[Any], patch_px: int) -> FloatArray:
    """N x 36, one row per whole patch of the picture; NaN where a patch is perfectly flat."""
    # About the mean, so that 32 bits hold the squares; they cost a third of 64.
    luma = (luma_HW - np.float64(luma_HW.mean())).astype(np.float32)
    full = _scale_features(luma, patch_px)
    return np.concatenate([full, _scale_features(_halved(luma), patch_px // 2)], axis=1)


def _scale_features(luma_HW: NDArray[np.float32], patch_px: int) -> FloatArray:
    rows = luma_HW.shape[0] // patch_px
    # One row of patches at a time stays in the processor's cache.
    moments_N54 = np.concatenate([_row_moments(luma_HW, patch_px, row) for row in range(rows)])
    shape, left, right, _ = _asymmetric_fit(moments_N54[:, 0], patch_px**2)
    features = [shape, (left + right) / 2]
    for index, (down, aside) in enumerate(_NEIGHBORS, start=1):
        shape, left, right, mean = _asymmetric_fit(moments_N54[:, index], patch_px**2)
        # The published pristine model holds the left scale twice for the diagonals.
        features += [shape, mean, left, left if down and aside else right]
    return np.stack(features, axis=1)


def _row_moments(luma_HW: NDArray[np.float32], patch_px: int, row: int) -> FloatArray:
    """Patches x 5 x 4: moments of the coefficients and of their products with four neighbors."""
    columns = luma_HW.shape[1] // patch_px
    mscn = _normalized(luma_HW, row * patch_px, (row + 1) * patch_px)[:, : columns * patch_px]
    patches = np.ascontiguousarray(mscn.reshape(patch_px, columns, patch_px).swapaxes(0, 1))
    found = [_moments(patches)]
    for neighbor in _NEIGHBORS:
        products = np.roll(patches, neighbor, axis=(1, 2))
        products *= patches
        found.append(_moments(products))
    return np.stack(found, axis=1)


def _moments(values_NHW: NDArray[np.float32]) -> FloatArray:
    """N x 4: how many values are negative, and the sums of |x|, x^2 and x |x|."""
    values = values_NHW.reshape(len(values_NHW), -1)
    magnitude = np.abs(values)
    is_negative = values < 0
    return np.stack(
        [
            np.array([np.count_nonzero(patch) for patch in is_negative], np.float64),
            magnitude.sum(axis=1),
            np.einsum("np,np->n", values, values),
            np.einsum("np,np->n", values, magnitude),
        ],
        axis=1,
    )


def _normalized(luma_HW: NDArray[np.float32], top: int, bottom: int) -> NDArray[np.float32]:
    """MSCN coefficients of the rows from `top` to before `bottom`."""
    first = max(0, top - _WINDOW_PX // 2)
    last = min(luma_HW.shape[0], bottom + _WINDOW_PX // 2)
    luma = luma_HW[first:last]
    size = (_WINDOW_PX, _WINDOW_PX)
    mean = cv2.GaussianBlur(luma, size, _WINDOW_SIGMA_PX, borderType=cv2.BORDER_REPLICATE)
    square = cv2.multiply(luma, luma)
    square = cv2.GaussianBlur(square, size, _WINDOW_SIGMA_PX, borderType=cv2.BORDER_REPLICATE)
    deviation = cv2.sqrt(cv2.absdiff(square, cv2.multiply(mean, mean)))
    mscn = cv2.divide(cv2.subtract(luma, mean), deviation + np.float32(1.0))
    mscn = mscn[top - first : bottom - first]
    # What rounding leaves of an even area is not detail.
    return np.asarray(cv2.threshold(np.abs(mscn), _MIN_MSCN, 1.0, cv2.THRESH_BINARY)[1] * mscn)


def _asymmetric_fit(
    moments_N4: FloatArray, num_pixels: int
) -> tuple[FloatArray, FloatArray, FloatArray, FloatArray]:
    """Shape, left and right scale, and mean of an asymmetric generalized Gaussian per patch."""
    num_left, magnitude_sum, square_sum, signed_sum = moments_N4.T  # signed: right minus left
    left_sum = np.maximum(0.0, square_sum - signed_sum) / 2
    right_sum = np.maximum(0.0, square_sum + signed_sum) / 2
    with np.errstate(divide="ignore", invalid="ignore"):
        left_sd = np.sqrt(left_sum / num_left)
        right_sd = np.sqrt(right_sum / (num_pixels - num_left))
        ratio = left_sd / right_sd
        moment = magnitude_sum**2 / num_pixels / square_sum
        wanted = moment * (ratio**3 + 1) * (ratio + 1) / (ratio**2 + 1) ** 2
    shapes, moments = _shape_table()
    above = np.clip(np.searchsorted(moments, wanted), 1, len(moments) - 1)
    nearest = above - (wanted - moments[above - 1] < moments[above] - wanted)
    shape = np.where(np.isfinite(wanted), shapes[nearest], np.nan)
    to_scale = np.sqrt(gamma(1 / shape) / gamma(3 / shape))
    left, right = left_sd * to_scale, right_sd * to_scale
    mean = (right - left) * gamma(2 / shape) / gamma(1 / shape)
    return shape, left, right, mean


@cache
def _shape_table() -> tuple[FloatArray, FloatArray]:
    """Shapes 0.2 to 10 and the moment ratio (E|x|)^2 / E x^2 of each, which grows with them."""
    shapes = np.arange(0.2, 10.0005, 0.001)
    return shapes, gamma(2 / shapes) ** 2 / (gamma(1 / shapes) * gamma(3 / shapes))


def _halved(luma_HW: NDArray[np.float32]) -> NDArray[np.float32]:
    distances = np.array(_HALF_TAPS)
    near = 1.5 * distances**3 - 2.5 * distances**2 + 1
    far = -0.5 * distances**3 + 2.5 * distances**2 - 4 * distances + 2
    taps = np.where(distances <= 1, near, far)
    kernel = np.concatenate([taps[::-1], taps])
    kernel /= kernel.sum()
    # The output pixel lies between two input pixels: anchor on the left one.
    filtered = cv2.sepFilter2D(
        luma_HW, cv2.CV_32F, kernel, kernel, anchor=(3, 3), borderType=cv2.BORDER_REFLECT
    )
    height, width = (side // 2 * 2 for side in luma_HW.shape)
    return np.ascontiguousarray(filtered[:height:2, :width:2], np.float32)
