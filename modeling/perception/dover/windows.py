"""Which positions of a video see each other in shifted windows, and across which fragments.

Shape letters: T, H, W positions in time, height and width; K windows in time, S windows in the
picture, P positions of a window (time first, then rows, then columns).
"""

from dataclasses import dataclass

import torch
from torch import Tensor

WINDOW_THW = (8, 7, 7)
_SHIFT_THW = (4, 3, 3)
NUM_FRAGMENTS = 7  # rows and columns of them in the stitched picture
NUM_OFFSETS = 15 * 13 * 13  # between two positions of one window


@dataclass(frozen=True, slots=True)
class Windows:
    """A division of T x H x W positions, which must be whole windows."""

    size_THW: tuple[int, int, int]
    shift_THW: tuple[int, int, int]

    @classmethod
    def over(cls, size_THW: tuple[int, int, int], *, shifted: bool) -> "Windows":
        """Raises ValueError where the size is not a multiple of the window."""
        if any(size % window for size, window in zip(size_THW, WINDOW_THW, strict=True)):
            raise ValueError(f"{size_THW} positions are no whole windows of {WINDOW_THW}")
        # An axis of one window is not shifted: each position already sees all of it.
        shift = [
            amount if shifted and size > window else 0
            for size, window, amount in zip(size_THW, WINDOW_THW, _SHIFT_THW, strict=True)
        ]
        return cls(size_THW, (shift[0], shift[1], shift[2]))

    @property
    def is_shifted(self) -> bool:
        return any(self.shift_THW)

    @property
    def num_windows(self) -> tuple[int, int, int]:
        (t, h, w), (wt, wh, ww) = self.size_THW, WINDOW_THW
        return t // wt, h // wh, w // ww

    def divide(self, x_BTHWC: Tensor) -> Tensor:
        """To B x K x S x P x C."""
        back = [-amount for amount in self.shift_THW]
        if self.is_shifted:
            x_BTHWC = torch.roll(x_BTHWC, back, dims=(1, 2, 3))
        (k, rows, columns), (wt, wh, ww) = self.num_windows, WINDOW_THW
        channels = x_BTHWC.shape[-1]
        split = x_BTHWC.reshape(-1, k, wt, rows, wh, columns, ww, channels)
        together = split.permute(0, 1, 3, 5, 2, 4, 6, 7)
        return together.reshape(-1, k, rows * columns, wt * wh * ww, channels)

    def join(self, x_BKSPC: Tensor) -> Tensor:
        """The inverse of `divide`."""
        (k, rows, columns), (wt, wh, ww) = self.num_windows, WINDOW_THW
        channels = x_BKSPC.shape[-1]
        split = x_BKSPC.reshape(-1, k, rows, columns, wt, wh, ww, channels)
        x_BTHWC = split.permute(0, 1, 4, 2, 5, 3, 6, 7).reshape(-1, *self.size_THW, channels)
        if self.is_shifted:
            x_BTHWC = torch.roll(x_BTHWC, list(self.shift_THW), dims=(1, 2, 3))
        return x_BTHWC

    def regions(self) -> Tensor:
        """K x S x P: positions of one window with other numbers were no neighbors before."""
        region = torch.zeros(self.size_THW)
        for axis, (size, window, shift) in enumerate(
            zip(self.size_THW, WINDOW_THW, self.shift_THW, strict=True)
        ):
            position = torch.arange(size)
            label = (position >= size - window).float() + (position >= size - shift).float()
            shape = [1, 1, 1]
            shape[axis] = size
            if shift:
                region = region * 3 + label.reshape(shape)
        unshifted = Windows(self.size_THW, (0, 0, 0))
        return unshifted.divide(region[None, ..., None])[0, ..., 0]

    def fragment_rows_and_columns(self) -> Tensor:
        """S x P' x 2 for the P' positions of one time step: which fragment shows them."""
        _, height, width = self.size_THW
        row_H = torch.arange(height) * NUM_FRAGMENTS // height
        column_W = torch.arange(width) * NUM_FRAGMENTS // width
        both_HW2 = torch.stack(torch.meshgrid(row_H, column_W, indexing="ij"), dim=-1).float()
        video = both_HW2.expand(*self.size_THW, 2)[None]
        first = WINDOW_THW[1] * WINDOW_THW[2]
        return self.divide(video)[0, 0, :, :first]


def offset_rows() -> Tensor:
    """P x P: which row of the bias tables belongs to a query (first) and a key."""
    axes = torch.meshgrid(*[torch.arange(size) for size in WINDOW_THW], indexing="ij")
    position_P3 = torch.stack(axes, dim=-1).reshape(-1, 3)
    apart = position_P3[:, None] - position_P3[None] + torch.tensor(WINDOW_THW) - 1
    return apart[..., 0] * 169 + apart[..., 1] * 13 + apart[..., 2]
