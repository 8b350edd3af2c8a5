"""Encode and decode in overlapping tiles, blended linearly: bounded memory at any size.

The network sees one tile at a time. Time is cut outside, space inside; a temporal tile takes
one frame more than its length, because the first frame of a causal network stands alone, and
every tile but the first gives its own first frame away. Tiles are independent (group norm and
the causal padding start anew in each), which is why their overlaps are blended. In encode the
blend is on the moments. Out of place, so it is differentiable.

Shape suffixes: B batch, C channels, T frames, H height, W width.
"""

from collections.abc import Callable, Iterator
from typing import Annotated, NamedTuple, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor

from schemas.base import StrictModel

Positive = Annotated[int, Field(gt=0)]


class TilingConfig(StrictModel):
    """Tile lengths and strides in pixels and frames of the video. Overlap = length - stride.

    A video is cut along an axis only if it is longer than the tile there (in time: longer than
    num_frames + 1). The defaults are the released model's.
    """

    height: Positive = 256
    width: Positive = 256
    num_frames: Positive = 64
    stride_height: Positive = 192
    stride_width: Positive = 192
    stride_num_frames: Positive = 48

    @model_validator(mode="after")
    def _check_strides(self) -> Self:
        for axis in ("height", "width", "num_frames"):
            length, stride = getattr(self, axis), getattr(self, f"stride_{axis}")
            if not length // 2 <= stride <= length:
                # Below one half, three tiles would overlap and the blend would see only two.
                raise ValueError(
                    f"stride_{axis} must lie in [{axis} / 2, {axis}], got {stride} and {length}"
                )
        return self

    def check_multiples(self, *, spatial: int, temporal: int) -> None:
        """Raise ValueError unless every length and stride is whole in the latent."""
        for axis, ratio in (("height", spatial), ("width", spatial), ("num_frames", temporal)):
            for name in (axis, f"stride_{axis}"):
                if getattr(self, name) % ratio:
                    raise ValueError(
                        f"tiling {name} must be a multiple of {ratio}, got {getattr(self, name)}"
                    )


class AxisTiling(NamedTuple):
    """One axis as the tiles see it: input length and stride, output stride and overlap."""

    length: int
    stride: int
    out_stride: int
    out_overlap: int


class TilePlan(NamedTuple):
    time: AxisTiling
    height: AxisTiling
    width: AxisTiling


def encode_plan(tiling: TilingConfig, *, spatial: int, temporal: int) -> TilePlan:
    """Pixels in, latents out."""

    def axis(length: int, stride: int, ratio: int) -> AxisTiling:
        return AxisTiling(length, stride, stride // ratio, (length - stride) // ratio)

    return TilePlan(
        axis(tiling.num_frames, tiling.stride_num_frames, temporal),
        axis(tiling.height, tiling.stride_height, spatial),
        axis(tiling.width, tiling.stride_width, spatial),
    )


def decode_plan(tiling: TilingConfig, *, spatial: int, temporal: int) -> TilePlan:
    """Latents in, pixels out."""

    def axis(length: int, stride: int, ratio: int) -> AxisTiling:
        return AxisTiling(length // ratio, stride // ratio, stride, length - stride)

    return TilePlan(
        axis(tiling.num_frames, tiling.stride_num_frames, temporal),
        axis(tiling.height, tiling.stride_height, spatial),
        axis(tiling.width, tiling.stride_width, spatial),
    )


def tiled(run_tile: Callable[[Tensor], Tensor], x_BCTHW: Tensor, plan: TilePlan) -> Tensor:
    """The whole output of `iter_tiled`."""
    return torch.cat(list(iter_tiled(run_tile, x_BCTHW, plan)), dim=2)


def iter_tiled(
    run_tile: Callable[[Tensor], Tensor], x_BCTHW: Tensor, plan: TilePlan
) -> Iterator[Tensor]:
    """Yield the output piece by piece in time. At most two temporal tiles are alive at once."""
    num_frames = x_BCTHW.shape[2]
    length, stride, out_stride, overlap = plan.time
    if num_frames <= length + 1:
        yield _tiled_in_space(run_tile, x_BCTHW, plan)
        return
    previous_tail: Tensor | None = None
    # A tile that holds one frame would give it away: it adds nothing.
    for start in range(0, num_frames - 1, stride):
        out = _tiled_in_space(run_tile, x_BCTHW[:, :, start : start + length + 1], plan)
        if previous_tail is None:
            num_kept = out_stride + 1
        else:
            out = blend(previous_tail, out[:, :, 1:], dim=2, overlap=overlap)
            num_kept = out_stride
        previous_tail = _tail(out, dim=2, num=overlap)
        yield out[:, :, :num_kept]


def _tiled_in_space(
    run_tile: Callable[[Tensor], Tensor], x_BCTHW: Tensor, plan: TilePlan
) -> Tensor:
    """One temporal tile, row of tiles by row of tiles. Only the overlaps of a row are kept."""
    height, width = x_BCTHW.shape[3:]
    if height <= plan.height.length and width <= plan.width.length:
        return run_tile(x_BCTHW)
    rows: list[Tensor] = []
    tails_above: list[Tensor] = []
    for top in range(0, height, plan.height.stride):
        row: list[Tensor] = []
        tails: list[Tensor] = []
        tail_left: Tensor | None = None
        for column, left in enumerate(range(0, width, plan.width.stride)):
            tile = run_tile(
                x_BCTHW[:, :, :, top : top + plan.height.length, left : left + plan.width.length]
            )
            if tails_above:
                tile = blend(tails_above[column], tile, dim=3, overlap=plan.height.out_overlap)
            if tail_left is not None:
                tile = blend(tail_left, tile, dim=4, overlap=plan.width.out_overlap)
            tail_left = _tail(tile, dim=4, num=plan.width.out_overlap)
            tails.append(_tail(tile, dim=3, num=plan.height.out_overlap))
            row.append(tile[:, :, :, : plan.height.out_stride, : plan.width.out_stride])
        tails_above = tails
        rows.append(torch.cat(row, dim=4))
    return torch.cat(rows, dim=3)


def _tail(x: Tensor, *, dim: int, num: int) -> Tensor:
    """The last `num` values, copied: a view would keep the whole tile alive."""
    num = min(num, x.shape[dim])
    return x.narrow(dim, x.shape[dim] - num, num).clone()


def blend(previous: Tensor, current: Tensor, *, dim: int, overlap: int) -> Tensor:
    """`current` with its head mixed with the end of `previous`; the new tile's weight is y / e.

    e is the overlap, or less where a tile is shorter than that. A new tensor is returned.
    """
    num = min(previous.shape[dim], current.shape[dim], overlap)
    if num == 0:
        return current
    shape = [1] * current.ndim
    shape[dim] = num
    weight = torch.arange(num, device=current.device, dtype=torch.float32).div(num).view(shape)
    weight = weight.to(current.dtype)
    head = _tail(previous, dim=dim, num=num) * (1 - weight)
    head = head + current.narrow(dim, 0, num) * weight
    return torch.cat([head, current.narrow(dim, num, current.shape[dim] - num)], dim=dim)
