"""Norms, modulation and gates of token rows as operators with gradients.

Every operator exists twice, forward and backward, with plain allocations around one or two
launches. Gradients of gates, shifts and scales are partial sums added in a fixed order: equal
inputs give equal bits.

Shape suffixes: B batch, N tokens, D width.
"""

from typing import Any

import torch
from torch import Tensor
from torch.library import custom_op

from modeling.block_operations import NORM_EPS
from modeling.kernels import row_kernels
from modeling.kernels.launch import current_launch, power_of_two, readable, warps_for


def _per_sample(x_B1D: Tensor) -> Tensor:
    return readable(x_B1D.reshape(x_B1D.shape[0], x_B1D.shape[-1]))


@custom_op("reelsieve::norm_modulate", mutates_args=())
def _norm_modulate(x: Tensor, shift: Tensor, scale: Tensor, eps: float) -> Tensor:
    _, out = _launch_rows(x, None, None, shift, scale, eps)
    return out


@_norm_modulate.register_fake
def _(x: Tensor, shift: Tensor, scale: Tensor, eps: float) -> Tensor:
    del shift, scale, eps
    return x.new_empty(x.shape)


@custom_op("reelsieve::gated_add", mutates_args=())
def _gated_add(x: Tensor, gate: Tensor, y: Tensor) -> Tensor:
    total, _ = _launch_rows(x, gate, y, None, None, NORM_EPS)
    return total


@_gated_add.register_fake
def _(x: Tensor, gate: Tensor, y: Tensor) -> Tensor:
    del gate, y
    return x.new_empty(x.shape)


@custom_op("reelsieve::gated_add_norm", mutates_args=())
def _gated_add_norm(
    x: Tensor, gate: Tensor, y: Tensor, shift: Tensor, scale: Tensor, eps: float
) -> tuple[Tensor, Tensor]:
    return _launch_rows(x, gate, y, shift, scale, eps)


@_gated_add_norm.register_fake
def _(
    x: Tensor, gate: Tensor, y: Tensor, shift: Tensor, scale: Tensor, eps: float
) -> tuple[Tensor, Tensor]:
    del gate, y, shift, scale, eps
    return x.new_empty(x.shape), x.new_empty(x.shape)


def _launch_rows(
    x: Tensor,
    gate: Tensor | None,
    y: Tensor | None,
    shift: Tensor | None,
    scale: Tensor | None,
    eps: float,
) -> tuple[Tensor, Tensor]:
    x = readable(x)
    b, n, d = x.shape
    has_gate, has_norm = gate is not None, scale is not None
    # A pointer that a variant never follows is x itself.
    total = x.new_empty(x.shape) if has_gate else x
    out = x.new_empty(x.shape) if has_norm else x
    y = x if y is None else readable(y)
    gate, shift, scale = (x[:, 0] if v is None else _per_sample(v) for v in (gate, shift, scale))
    padded, launch = power_of_two(d), current_launch()
    rows_each, num_warps = launch.forward_rows, warps_for(padded, launch.forward_values)
    row_kernels.forward_kernel[(-(-n // rows_each), b)](
        x, gate, y, shift, scale, total, out, n, rows_each, x.stride(0), x.stride(1),
        y.stride(0), y.stride(1), gate.stride(0), shift.stride(0), scale.stride(0), eps,
        D=d, DP=padded, GATE=has_gate, NORM=has_norm, num_warps=num_warps,
    )  # fmt: skip
    return total, out


@custom_op("reelsieve::norm_modulate_backward", mutates_args=())
def _norm_modulate_backward(
    g_out: Tensor, x: Tensor, scale: Tensor, eps: float
) -> tuple[Tensor, Tensor, Tensor]:
    dx, _, _, dshift, dscale = _launch_rows_backward(None, g_out, x, None, None, scale, eps)
    return dx, dshift, dscale


@_norm_modulate_backward.register_fake
def _(g_out: Tensor, x: Tensor, scale: Tensor, eps: float) -> tuple[Tensor, Tensor, Tensor]:
    del g_out, eps
    return x.new_empty(x.shape), scale.new_empty(scale.shape), scale.new_empty(scale.shape)


@custom_op("reelsieve::gated_add_backward", mutates_args=())
def _gated_add_backward(g_total: Tensor, gate: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    _, dy, dgate, _, _ = _launch_rows_backward(g_total, None, None, gate, y, None, NORM_EPS)
    return dy, dgate


@_gated_add_backward.register_fake
def _(g_total: Tensor, gate: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    del g_total
    return y.new_empty(y.shape), gate.new_empty(gate.shape)


@custom_op("reelsieve::gated_add_norm_backward", mutates_args=())
def _gated_add_norm_backward(
    g_total: Tensor,
    g_out: Tensor,
    total: Tensor,
    gate: Tensor,
    y: Tensor,
    scale: Tensor,
    eps: float,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    return _launch_rows_backward(g_total, g_out, total, gate, y, scale, eps)


@_gated_add_norm_backward.register_fake
def _(
    g_total: Tensor,
    g_out: Tensor,
    total: Tensor,
    gate: Tensor,
    y: Tensor,
    scale: Tensor,
    eps: float,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    del g_total, g_out, eps
    sums = [v.new_empty(v.shape) for v in (gate, scale, scale)]
    return total.new_empty(total.shape), y.new_empty(y.shape), sums[0], sums[1], sums[2]


def _launch_rows_backward(
    g_total: Tensor | None,
    g_out: Tensor | None,
    x: Tensor | None,
    gate: Tensor | None,
    y: Tensor | None,
    scale: Tensor | None,
    eps: float,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Gradients of x, y, gate, shift and scale; those that a variant lacks are without meaning."""
    has_gate, has_norm = gate is not None, scale is not None
    g_total, g_out, x, y = (None if v is None else readable(v) for v in (g_total, g_out, x, y))
    like = next(v for v in (x, y) if v is not None)
    b, n, d = like.shape
    dx = like.new_empty(like.shape) if has_norm else like
    dy = like.new_empty(like.shape) if y is None else y.new_empty(y.shape)
    if not has_gate:
        dy = like
    g_total, g_out, x, y = (like if v is None else v for v in (g_total, g_out, x, y))
    gate_BD, scale_BD = (like[:, 0] if v is None else _per_sample(v) for v in (gate, scale))
    launch = current_launch()
    rows_each = max(1, -(-n * b // launch.backward_programs))
    num_programs = -(-n // rows_each)
    partial_BP3D = torch.empty(b, num_programs, 3, d, device=like.device, dtype=torch.float32)
    padded = power_of_two(d)
    num_warps = warps_for(padded, launch.backward_values)
    row_kernels.backward_kernel[(num_programs, b)](
        g_total, g_out, x, gate_BD, y, scale_BD, dx, dy, partial_BP3D, n, rows_each,
        g_total.stride(0), g_total.stride(1), g_out.stride(0), g_out.stride(1), x.stride(0),
        x.stride(1), y.stride(0), y.stride(1), gate_BD.stride(0), scale_BD.stride(0), eps,
        D=d, DP=padded, GATE=has_gate, NORM=has_norm, num_warps=num_warps,
    )  # fmt: skip
    sums = partial_BP3D.sum(1).unbind(1)
    # Copies: results of an operator must not share memory.
    dgate = like if gate is None else sums[0].to(gate.dtype, copy=True).view(gate.shape)
    dshift = dscale = like
    if scale is not None:
        dshift, dscale = (each.to(scale.dtype, copy=True).view(scale.shape) for each in sums[1:])
    return dx, dy, dgate, dshift, dscale


def _keep_norm(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    del output
    x, _, scale, eps = inputs
    ctx.save_for_backward(x, scale)
    ctx.eps = eps


def _norm_gradients(ctx: Any, g_out: Tensor) -> tuple[Tensor | None, ...]:
    x, scale = ctx.saved_tensors
    return (*_norm_modulate_backward(g_out, x, scale, ctx.eps), None)


def _keep_gate(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    del output
    ctx.save_for_backward(*inputs[1:])


def _gate_gradients(ctx: Any, g_total: Tensor) -> tuple[Tensor, ...]:
    gate, y = ctx.saved_tensors
    dy, dgate = _gated_add_backward(g_total, gate, y)
    return g_total, dgate, dy


def _keep_both(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    _, gate, y, _, scale, eps = inputs
    ctx.save_for_backward(output[0], gate, y, scale)
    ctx.eps = eps


def _both_gradients(ctx: Any, g_total: Tensor, g_out: Tensor) -> tuple[Tensor | None, ...]:
    total, gate, y, scale = ctx.saved_tensors
    dx, dy, dgate, dshift, dscale = _gated_add_norm_backward(
        g_total, g_out, total, gate, y, scale, ctx.eps
    )
    return dx, dgate, dy, dshift, dscale, None


_norm_modulate.register_autograd(_norm_gradients, setup_context=_keep_norm)
_gated_add.register_autograd(_gate_gradients, setup_context=_keep_gate)
_gated_add_norm.register_autograd(_both_gradients, setup_context=_keep_both)


def norm_modulate(x_BND: Tensor, shift_B1D: Tensor, scale_B1D: Tensor) -> Tensor:
    out: Tensor = _norm_modulate(x_BND, shift_B1D, scale_B1D, NORM_EPS)
    return out


def gated_add(x_BND: Tensor, gate_B1D: Tensor, y_BND: Tensor) -> Tensor:
    total: Tensor = _gated_add(x_BND, gate_B1D, y_BND)
    return total


def gated_add_norm(
    x_BND: Tensor, gate_B1D: Tensor, y_BND: Tensor, shift_B1D: Tensor, scale_B1D: Tensor
) -> tuple[Tensor, Tensor]:
    total, out = _gated_add_norm(x_BND, gate_B1D, y_BND, shift_B1D, scale_B1D, NORM_EPS)
    return total, out
