"""The eight ways a stored picture may have to be turned or mirrored to stand upright."""

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Degrees = Literal[0, 90, 180, 270]


@dataclass(frozen=True, slots=True)
class Orientation:
    """Transpose first (if `is_transposed`), then mirror left-right, then top-bottom."""

    is_transposed: bool = False
    mirror_x: bool = False
    mirror_y: bool = False

    @property
    def rotation_deg(self) -> Degrees:
        """The clockwise turn; for a mirrored picture the turn that is left beside the mirror."""
        if self.is_transposed:
            return 90 if self.mirror_x else 270
        return 180 if self.mirror_y else 0

    def turn_size(self, stored_HW: tuple[int, int]) -> tuple[int, int]:
        """Stored size to upright size, and back: the swap is its own inverse."""
        return (stored_HW[1], stored_HW[0]) if self.is_transposed else stored_HW

    def upright(self, image: NDArray[Any]) -> NDArray[Any]:
        """The picture as it is meant to be seen; H x W or H x W x C, contiguous."""
        if self.is_transposed:
            image = image.swapaxes(0, 1)
        if self.mirror_x:
            image = image[:, ::-1]
        if self.mirror_y:
            image = image[::-1]
        return np.ascontiguousarray(image)


UPRIGHT = Orientation()


def from_display_matrix(matrix: NDArray[np.int32]) -> Orientation:
    """A 3 x 3 matrix (9 values) as ISO/IEC 14496-12 stores it: x' = a x + c y, y' = b x + d y.

    Only its direction counts; an odd angle is snapped to the nearest right angle.
    """
    a, b, _, c, d = (int(value) for value in matrix[:5])
    if abs(a) + abs(d) >= abs(b) + abs(c):
        return Orientation(mirror_x=a < 0, mirror_y=d < 0)
    return Orientation(is_transposed=True, mirror_x=c < 0, mirror_y=b < 0)
