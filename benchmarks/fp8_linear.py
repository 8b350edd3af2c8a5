"""Linear layers whose products run in 8 bits, for measuring what that gains and costs.

Scales are taken anew at every call. "tensorwise": one scale a tensor, all three products in 8 bits.
"rowwise": one scale a row or column (the finer), the gradient of the weights in bf16, because its
sum runs over all tokens. Weights stay in float32.

Shape suffixes: M tokens, K inputs, N outputs.
"""

from typing import Any, Literal, cast

import torch
from torch import Tensor, nn

Recipe = Literal["tensorwise", "rowwise"]

_FP8 = torch.float8_e4m3fn
_MAX = 448.0  # the largest value of _FP8
_MULTIPLE = 16  # what the matrix units want of every size


def quantize(x: Tensor, dim: int | None) -> tuple[Tensor, Tensor]:
    """The values in 8 bits and their scale: one, or one for each row (dim=1) or column (dim=0)."""
    most = x.abs().amax() if dim is None else x.abs().amax(dim, keepdim=True)
    scale = most.float().clamp(min=1e-12) / _MAX
    return (x.float() / scale).clamp(-_MAX, _MAX).to(_FP8), scale


def product(a_MK: Tensor, a_scale: Tensor, b_KN: Tensor, b_scale: Tensor) -> Tensor:
    """a @ b in bf16; `b_KN` lies column by column in memory."""
    if not a_MK.is_cuda:
        return ((a_MK.float() * a_scale) @ (b_KN.float() * b_scale)).bfloat16()
    return torch._scaled_mm(
        a_MK, b_KN, scale_a=a_scale, scale_b=b_scale, out_dtype=torch.bfloat16, use_fast_accum=True
    )


def _by_columns(x: Tensor) -> Tensor:
    return x.t().contiguous().t()


class _Tensorwise(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x_MK: Tensor, weight_NK: Tensor) -> Tensor:
        (x, x_scale), (weight, weight_scale) = quantize(x_MK, None), quantize(weight_NK, None)
        ctx.save_for_backward(x, x_scale, weight, weight_scale)
        ctx.weight_dtype = weight_NK.dtype
        return product(x, x_scale, weight.t(), weight_scale)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor]:
        x, x_scale, weight, weight_scale = ctx.saved_tensors
        g, g_scale = quantize(gradients[0], None)
        dx = product(g, g_scale, _by_columns(weight), weight_scale)
        dw = product(g.t().contiguous(), g_scale, _by_columns(x), x_scale)
        return dx, dw.to(ctx.weight_dtype)


class _Rowwise(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x_MK: Tensor, weight_NK: Tensor) -> Tensor:
        ctx.save_for_backward(x_MK, weight_NK)
        (x, x_scale), (weight, weight_scale) = quantize(x_MK, 1), quantize(weight_NK, 1)
        return product(x, x_scale, weight.t(), weight_scale.t())

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor]:
        x_MK, weight_NK = ctx.saved_tensors
        g_MN = gradients[0]
        (g, g_scale), (weight, weight_scale) = quantize(g_MN, 1), quantize(weight_NK, 0)
        dx = product(g, g_scale, _by_columns(weight), weight_scale)
        dw = g_MN.to(x_MK.dtype).t() @ x_MK
        return dx, dw.to(weight_NK.dtype)


class Fp8Linear(nn.Linear):
    recipe: Recipe

    def forward(self, x: Tensor) -> Tensor:
        rows = x.reshape(-1, x.shape[-1]).bfloat16()
        function = _Tensorwise if self.recipe == "tensorwise" else _Rowwise
        out = cast(Tensor, function.apply(rows, self.weight))
        if self.bias is not None:
            out = out + self.bias.to(out.dtype)
        return out.view(*x.shape[:-1], -1)


def use_fp8(blocks: nn.Module, recipe: Recipe) -> int:
    """Turn the wide linear layers inside into 8-bit ones; the modulations, a row each, stay.

    Returns how many there are.
    """
    num = 0
    for name, module in blocks.named_modules():
        if type(module) is not nn.Linear or "mod" in name:
            continue
        if module.in_features % _MULTIPLE or module.out_features % _MULTIPLE:
            continue
        module.__class__ = Fp8Linear
        cast(Fp8Linear, module).recipe = recipe
        num += 1
    return num


def relative_error(recipe: Recipe, device: torch.device) -> dict[str, float]:
    """Output and gradients of one layer against float32."""
    torch.manual_seed(0)
    layer = nn.Linear(256, 512, device=device)
    x = torch.randn(384, 256, device=device)
    g = torch.randn(384, 512, device=device)
    results: list[list[Tensor]] = []
    for linear in (layer, layer):
        if results:
            use_fp8(nn.Sequential(linear), recipe)
        leaf = x.clone().requires_grad_()
        out = linear(leaf)
        grads = torch.autograd.grad(out, [leaf, layer.weight], g.to(out.dtype))
        results.append([out.detach(), *grads])
    return {
        name: float((b.float() - a).norm() / a.norm())
        for name, a, b in zip(("output", "dx", "dw"), *results, strict=True)
    }
