"""The VAE's operations with Triton kernels: norm, SiLU, enlargement and padding in one pass.

Everything is channels-last. One frame runs as a 2D convolution whose kernel is summed over time:
the same, because all frames that it sees are equal. Norms frame by frame stay plain.

Shape suffixes: B batch, C channels, T frames, H height, W width, P programs, S groups.
"""

from functools import lru_cache
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from modeling.kernels import vae_kernels
from modeling.kernels.launch import power_of_two
from modeling.vae_layers import PerFrameGroupNorm
from modeling.vae_operations import Sizes, VaeOperations, norm_silu_pad

_MAX_ROWS = 32  # positions a program handles at once
_MAX_VALUES = 4096  # of those positions; what the registers hold
_CHUNKS = 8  # how many times a program does so, between which it keeps its sums
_ONCE: Sizes = (1, 1, 1)
_WIDTH = 8  # tensor cores take channels in eights


@lru_cache(maxsize=512)
def _maps(sizes: Sizes, factor: Sizes, padding: Sizes, device: torch.device) -> tuple[Any, ...]:
    """Per axis: each output's source index, each source's first output (and the end), the most."""
    maps, firsts, most, out_sizes = [], [], [], []
    for axis, (size, times, pad) in enumerate(zip(sizes, factor, padding, strict=True)):
        index = torch.arange(size).repeat_interleave(times)
        if axis == 0 and times > 1:
            index = index[times - 1 :]  # the first frame is not repeated
        head = torch.full((pad,), int(index[0]))
        tail = torch.full((pad if axis else 0,), int(index[-1]))
        index = torch.cat([head, index, tail])
        first = torch.searchsorted(index, torch.arange(size + 1))
        most.append(int(first.diff().max()))
        out_sizes.append(len(index))
        maps.append(index.int().to(device))
        firsts.append(first.int().to(device))
    return (*maps, *firsts, *most, tuple(out_sizes))


def _like(x: Tensor, sizes: Sizes) -> Tensor:
    """An empty channels-last tensor of these frames, height and width."""
    shape = (x.shape[0], x.shape[1], *sizes)
    return torch.empty(shape, dtype=x.dtype, device=x.device, memory_format=torch.channels_last_3d)


def _rows(channels_padded: int) -> int:
    return max(4, min(_MAX_ROWS, _MAX_VALUES // channels_padded))


class _Gather(torch.autograd.Function):
    """(norm, SiLU,) enlarge by repetition, pad with edges."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, gamma: Tensor | None, beta: Tensor | None, groups: int, eps: float,
        factor: Sizes, padding: Sizes,
    ) -> Tensor:  # fmt: skip
        x = x.contiguous(memory_format=torch.channels_last_3d)
        b, c = x.shape[:2]
        sizes = cast(Sizes, tuple(x.shape[2:]))
        num, padded = sizes[0] * sizes[1] * sizes[2], power_of_two(c)
        rows = _rows(padded)
        mt, mh, mw, lt, lh, lw, most_t, most_h, most_w, out_sizes = _maps(
            sizes, factor, padding, x.device
        )
        scale = shift = mean = rstd = x  # unused without a norm
        if gamma is not None and beta is not None:
            num_programs = -(-num // (rows * _CHUNKS))
            partial_BP2C = torch.empty(b, num_programs, 2, c, device=x.device)
            vae_kernels.sums_kernel[(num_programs, b)](
                x, partial_BP2C, num, C=c, CP=padded, R=rows, K=_CHUNKS
            )
            count = num * (c // groups)
            sums_B2S = partial_BP2C.sum(1).view(b, 2, groups, -1).sum(3) / count
            mean = sums_B2S[:, 0]
            rstd = (sums_B2S[:, 1] - mean.square()).clamp_min(0).add(eps).rsqrt()
            mean, rstd = (v.repeat_interleave(c // groups, 1) for v in (mean, rstd))
            scale = (gamma.float() * rstd).contiguous()
            shift = (beta.float() - mean * scale).contiguous()
        out = _like(x, out_sizes)
        out_num = out_sizes[0] * out_sizes[1] * out_sizes[2]
        vae_kernels.gather_kernel[(-(-out_num // rows), b)](
            x, scale, shift, out, mt, mh, mw, out_num, *sizes, *out_sizes,
            C=c, CP=padded, R=rows, NORM=gamma is not None,
        )  # fmt: skip
        ctx.save_for_backward(x, gamma, scale, shift, mean, rstd, lt, lh, lw)
        ctx.plan = (groups, sizes, out_sizes, (most_t, most_h, most_w))
        return out

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Any:
        x, gamma, scale, shift, mean, rstd, lt, lh, lw = ctx.saved_tensors
        groups, sizes, out_sizes, most = ctx.plan
        g = g.contiguous(memory_format=torch.channels_last_3d)
        b, c = x.shape[:2]
        num, padded = sizes[0] * sizes[1] * sizes[2], power_of_two(c)
        rows = _rows(padded)
        num_programs = -(-num // (rows * _CHUNKS))
        dz = _like(x, sizes)
        partial_BP2C = torch.empty(b, num_programs, 2, c, device=x.device)
        vae_kernels.scatter_kernel[(num_programs, b)](
            g, x, scale, shift, dz, partial_BP2C, lt, lh, lw, num, *sizes[1:], *out_sizes,
            C=c, CP=padded, R=rows, K=_CHUNKS, NORM=gamma is not None,
            MT=most[0], MH=most[1], MW=most[2],
        )  # fmt: skip
        if gamma is None:
            return dz, None, None, None, None, None, None
        sums_B2C = partial_BP2C.sum(1)
        d_beta, d_gamma = sums_B2C[:, 0], (sums_B2C[:, 1] - mean * sums_B2C[:, 0]) * rstd
        count = num * (c // groups)

        def group_mean(v_BC: Tensor) -> Tensor:
            total = (v_BC * gamma.float()).view(b, groups, -1).sum(2) / count
            spread: Tensor = total.repeat_interleave(c // groups, 1)
            return spread

        m1, m2 = group_mean(d_beta), group_mean(d_gamma)
        slope = -rstd.square() * m2
        coefficients = torch.stack([scale, slope, -rstd * m1 - slope * mean], 1).contiguous()
        gx = _like(x, sizes)
        vae_kernels.combine_kernel[(-(-num // rows), b)](
            dz, x, coefficients, gx, num, C=c, CP=padded, R=rows
        )
        return gx, d_gamma.sum(0).to(gamma.dtype), d_beta.sum(0).to(gamma.dtype), *[None] * 4


def _gather(x: Tensor, norm: nn.GroupNorm | None, factor: Sizes, padding: Sizes) -> Tensor:
    """An image needs neither copies of itself in the past nor an enlargement in time."""
    if x.shape[2] == 1:
        factor, padding = (1, *factor[1:]), (0, *padding[1:])
    parameters: tuple[Any, ...] = (None, None, 1, 0.0)
    if norm is not None:
        parameters = (norm.weight, norm.bias, norm.num_groups, norm.eps)
    return cast(Tensor, _Gather.apply(x, *parameters, factor, padding))


def _pad(x_BCTHW: Tensor, padding_THW: Sizes) -> Tensor:
    if padding_THW == (0, 0, 0):
        return x_BCTHW
    if missing := -x_BCTHW.shape[1] % _WIDTH:
        x_BCTHW = F.pad(x_BCTHW, (0, 0, 0, 0, 0, 0, 0, missing))
    return _gather(x_BCTHW, None, _ONCE, padding_THW)


def _norm_silu_pad(norm: nn.GroupNorm, x_BCTHW: Tensor, padding_THW: Sizes) -> Tensor:
    if isinstance(norm, PerFrameGroupNorm):
        return norm_silu_pad(norm, x_BCTHW, padding_THW)
    return _gather(x_BCTHW, norm, _ONCE, padding_THW)


def _enlarge_pad(x_BCTHW: Tensor, factor_THW: Sizes, padding_THW: Sizes) -> Tensor:
    return _gather(x_BCTHW, None, factor_THW, padding_THW)


def _convolve(conv: nn.Conv3d, padded_BCTHW: Tensor) -> Tensor:
    weight, bias = conv.weight, conv.bias
    if conv.kernel_size == _ONCE:
        return F.conv3d(padded_BCTHW, weight, bias)
    more_in = padded_BCTHW.shape[1] - conv.in_channels
    more_out = -conv.out_channels % _WIDTH
    if more_in or more_out:
        weight = F.pad(weight, (0, 0, 0, 0, 0, 0, 0, more_in, 0, more_out))
        bias = None if bias is None else F.pad(bias, (0, more_out))
    if padded_BCTHW.shape[2] > 1:
        out = F.conv3d(padded_BCTHW, weight, bias, conv.stride)
    else:
        flat = F.conv2d(padded_BCTHW[:, :, 0], weight.sum(2), bias, conv.stride[1:])
        out = flat[:, :, None]
    result: Tensor = out[:, : conv.out_channels]
    return result


FUSED_VAE = VaeOperations(_pad, _norm_silu_pad, _enlarge_pad, _convolve)
