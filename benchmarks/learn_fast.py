"""The forward pass of `CausalVAE` with fewer trips to memory, for training on a GPU.

Norm, SiLU and edge padding are one kernel each way (Triton), nearest-neighbor enlargement and
padding too; everything stays channels-last; images (one frame) run as 2D convolutions whose kernels
are summed over time, which is the same because all three frames they see are equal. Without a GPU
the same functions are written with plain operations. No tiling.

Shape suffixes: B batch, C channels, T frames, H height, W width, N = T * H * W.
"""

import logging
from functools import lru_cache
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from modeling.causal_conv import CausalConv3d, pad_with_edges
from modeling.gaussian import DiagonalGaussian
from modeling.vae import CausalVAE
from modeling.vae_layers import DownBlock, MidBlock, ResnetBlock, UpBlock, repeat_nearest

try:
    from benchmarks import learn_kernels as kernels
except ImportError:  # no Triton: the plain operations remain
    kernels = None  # type: ignore[assignment]

logger = logging.getLogger(__name__)

Sizes = tuple[int, int, int]
_MAX_ROWS = 32  # positions a program handles at once
_MAX_VALUES = 4096  # of those positions; what the registers hold
_CHUNKS = 8  # how many times a program does so, between which it keeps its sums


@lru_cache(maxsize=512)
def _maps(sizes: Sizes, factor: Sizes, padding: Sizes, device: torch.device) -> tuple[Any, ...]:
    """Per axis: each output's source index, each source's first output (and the end), the most."""
    maps, firsts, most, out_sizes = [], [], [], []
    for axis, (size, f, pad) in enumerate(zip(sizes, factor, padding, strict=True)):
        index = torch.arange(size).repeat_interleave(f)
        if axis == 0 and f > 1:
            index = index[f - 1 :]  # the first frame is not repeated
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


def _power_of_two(least: int) -> int:
    return 1 << (least - 1).bit_length()


def _rows(channels_padded: int) -> int:
    return max(4, min(_MAX_ROWS, _MAX_VALUES // channels_padded))


def _blocks(num: int, rows: int, batch: int) -> tuple[int, int]:
    return (-(-num // rows), batch)


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
        num, cp = sizes[0] * sizes[1] * sizes[2], _power_of_two(c)
        mt, mh, mw, lt, lh, lw, most_t, most_h, most_w, out_sizes = _maps(
            sizes, factor, padding, x.device
        )
        scale = shift = mean = rstd = x  # unused without a norm
        if gamma is not None and beta is not None:
            sums = torch.zeros(b, 2, c, device=x.device)
            grid = _blocks(num, _rows(cp) * _CHUNKS, b)
            kernels.sums_kernel[grid](x, sums, num, C=c, CP=cp, R=_rows(cp), K=_CHUNKS)
            count = num * (c // groups)
            sums_BSG = sums.view(b, 2, groups, -1).sum(3) / count
            mean = sums_BSG[:, 0]
            rstd = (sums_BSG[:, 1] - mean.square()).clamp_min(0).add(eps).rsqrt()
            mean, rstd = (v.repeat_interleave(c // groups, 1) for v in (mean, rstd))
            scale = (gamma.float() * rstd).contiguous()
            shift = (beta.float() - mean * scale).contiguous()
        out = _like(x, out_sizes)
        out_num = out_sizes[0] * out_sizes[1] * out_sizes[2]
        kernels.gather_kernel[_blocks(out_num, _rows(cp), b)](
            x, scale, shift, out, mt, mh, mw, out_num, *sizes, *out_sizes,
            C=c, CP=cp, R=_rows(cp), NORM=gamma is not None,
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
        num, cp = sizes[0] * sizes[1] * sizes[2], _power_of_two(c)
        dz = _like(x, sizes)
        sums = torch.zeros(b, 2, c, device=x.device)
        kernels.scatter_kernel[_blocks(num, _rows(cp) * _CHUNKS, b)](
            g, x, scale, shift, dz, sums, lt, lh, lw, num, *sizes[1:], *out_sizes,
            C=c, CP=cp, R=_rows(cp), K=_CHUNKS, NORM=gamma is not None,
            MT=most[0], MH=most[1], MW=most[2],
        )  # fmt: skip
        if gamma is None:
            return dz, None, None, None, None, None, None
        d_beta, d_gamma = sums[:, 0], (sums[:, 1] - mean * sums[:, 0]) * rstd
        count = num * (c // groups)

        def group_mean(v_BC: Tensor) -> Tensor:
            total = (v_BC * gamma.float()).view(b, groups, -1).sum(2) / count
            spread: Tensor = total.repeat_interleave(c // groups, 1)
            return spread

        m1, m2 = group_mean(d_beta), group_mean(d_gamma)
        slope = -rstd.square() * m2
        coefficients = torch.stack([scale, slope, -rstd * m1 - slope * mean], 1).contiguous()
        gx = _like(x, sizes)
        kernels.combine_kernel[_blocks(num, _rows(cp), b)](
            dz, x, coefficients, gx, num, C=c, CP=cp, R=_rows(cp)
        )
        return gx, d_gamma.sum(0).to(gamma.dtype), d_beta.sum(0).to(gamma.dtype), *[None] * 4


class FastVae:
    """Encode and decode with the weights of a `CausalVAE` without attention."""

    def __init__(self, vae: CausalVAE, *, fused: bool) -> None:
        if vae.config.per_frame_norm:
            raise ValueError("the fast pass knows no norms per frame")
        self.vae = vae
        self.fused = fused

    def encode(self, video_BCTHW: Tensor) -> DiagonalGaussian:
        encoder = self.vae.encoder
        if self.fused:  # tensor cores want channels in eights; the convolution pads its kernel
            video_BCTHW = F.pad(video_BCTHW, (0, 0, 0, 0, 0, 0, 0, -video_BCTHW.shape[1] % 8))
        h = self._conv(encoder.conv_in, self._pad(video_BCTHW))
        for block in cast("list[DownBlock]", [*encoder.down_blocks]):
            for layer in block.resnets:
                h = self._resnet(cast(ResnetBlock, layer), h)
            for down in block.downsamplers:
                conv = cast(CausalConv3d, down.conv)
                h = self._conv(conv, self._pad(h))
        h = self._middle(encoder.mid_block, h)
        h = self._conv(encoder.conv_out, self._norm_pad(encoder.conv_norm_out, h))
        return DiagonalGaussian.from_moments(self._pointwise(self.vae.quant_conv, h))

    def decode(self, latent_BCTHW: Tensor) -> Tensor:
        decoder = self.vae.decoder
        h = self._pointwise(self.vae.post_quant_conv, latent_BCTHW)
        h = self._conv(decoder.conv_in, self._pad(h))
        h = self._middle(decoder.mid_block, h)
        for block in cast("list[UpBlock]", [*decoder.up_blocks]):
            for layer in block.resnets:
                h = self._resnet(cast(ResnetBlock, layer), h)
            for up in block.upsamplers:
                h = self._conv(
                    cast(CausalConv3d, up.conv), self._enlarge(h, cast(Sizes, up.factor_THW))
                )
        return self._conv(decoder.conv_out, self._norm_pad(decoder.conv_norm_out, h))

    def _middle(self, block: MidBlock, h: Tensor) -> Tensor:
        for layer in block.layers():
            h = self._resnet(layer, h) if isinstance(layer, ResnetBlock) else layer(h)
        return h

    def _resnet(self, block: ResnetBlock, x: Tensor) -> Tensor:
        h = self._conv(block.conv1, self._norm_pad(block.norm1, x))
        h = self._conv(block.conv2, self._norm_pad(block.norm2, h))
        skip = x if block.conv_shortcut is None else self._pointwise(block.conv_shortcut.conv, x)
        return skip + h

    def _norm_pad(self, norm: nn.GroupNorm, x: Tensor) -> Tensor:
        padding = (2 if x.shape[2] > 1 else 0, 1, 1)
        if self.fused:
            return cast(Tensor, _Gather.apply(
                x, norm.weight, norm.bias, norm.num_groups, norm.eps, (1, 1, 1), padding
            ))  # fmt: skip
        return pad_with_edges(F.silu(norm(x)), padding)

    def _pad(self, x: Tensor) -> Tensor:
        padding = (2 if x.shape[2] > 1 else 0, 1, 1)
        if self.fused:
            return cast(Tensor, _Gather.apply(x, None, None, 1, 0.0, (1, 1, 1), padding))
        return pad_with_edges(x, padding)

    def _enlarge(self, x: Tensor, factor: Sizes) -> Tensor:
        padding = (2 if x.shape[2] > 1 else 0, 1, 1)
        if self.fused:
            factor = factor if x.shape[2] > 1 else (1, *factor[1:])
            return cast(Tensor, _Gather.apply(x, None, None, 1, 0.0, factor, padding))
        first = repeat_nearest(x[:, :, :1], (1, *factor[1:]))
        rest = repeat_nearest(x[:, :, 1:], factor)
        return pad_with_edges(torch.cat([first, rest], dim=2), padding)

    def _conv(self, layer: CausalConv3d, padded: Tensor) -> Tensor:
        conv = layer.conv
        weight, bias = conv.weight, conv.bias
        more_in, more_out = padded.shape[1] - conv.in_channels, -conv.out_channels % 8
        if self.fused and (more_in or more_out):
            weight = F.pad(weight, (0, 0, 0, 0, 0, 0, 0, more_in, 0, more_out))
            bias = None if bias is None else F.pad(bias, (0, more_out))
        if padded.shape[2] > 1:
            out = F.conv3d(padded, weight, bias, conv.stride)
        else:  # all three frames are the same one
            out = F.conv2d(padded[:, :, 0], weight.sum(2), bias, conv.stride[1:])[:, :, None]
        result: Tensor = out[:, : conv.out_channels]
        return result

    def _pointwise(self, conv: nn.Conv3d, x: Tensor) -> Tensor:
        return F.conv3d(x, conv.weight, conv.bias)


def fused_pass_is_right(vae: CausalVAE, device: torch.device) -> bool:
    """Whether the kernels work on this machine: outputs and gradients against plain operations."""
    worst = 0.0
    try:
        for num_frames in (5, 1):
            video = torch.randn(2, 3, num_frames, 32, 32, device=device)
            results = []
            for fused in (False, True):
                fast = FastVae(vae, fused=fused)
                vae.zero_grad()
                decoded = fast.decode(fast.encode(video).mean)
                torch.autograd.backward(decoded.square().mean())
                gradients = [p.grad.flatten() for p in vae.parameters() if p.grad is not None]
                results.append((decoded.detach().flatten(), torch.cat(gradients)))
            vae.zero_grad()
            for plain, fused_values in zip(*results, strict=True):
                worst = max(worst, float((plain - fused_values).norm() / plain.norm()))
    except Exception:  # any failure of an experimental compiler means: do without
        logger.exception("no fused kernels")
        return False
    logger.info("fused kernels differ by %.1e", worst)
    return worst < 2e-2
