"""The Triton kernels as PyTorch operators with gradients: torch.compile keeps them as they are.

Every operator exists twice, forward and backward, with plain allocations around one or two
launches. Gradients of gates, shifts, scales and norm weights are partial sums added in a fixed
order: equal inputs give equal bits.

Shape suffixes: B batch, N image tokens, L text tokens, T = N + L, D width, H heads, E channels of a
head, P programs.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.library import custom_op

from modeling.block_operations import NORM_EPS, BlockOperations, QkNorms
from modeling.kernels import head_kernels, row_kernels
from modeling.kernels.launch import current_launch
from modeling.rope import RopeTable


def _power_of_two(least: int) -> int:
    return 1 << (least - 1).bit_length()


def _readable(x: Tensor) -> Tensor:
    """Rows may lie apart, their values may not."""
    return x if x.stride(-1) == 1 else x.contiguous()


def _per_sample(x_B1D: Tensor) -> Tensor:
    return _readable(x_B1D.reshape(x_B1D.shape[0], x_B1D.shape[-1]))


def _num_warps(width_padded: int, values_each: int) -> int:
    return max(1, min(16, width_padded // (32 * values_each)))


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
    x = _readable(x)
    b, n, d = x.shape
    has_gate, has_norm = gate is not None, scale is not None
    # A pointer that a variant never follows is x itself.
    total = x.new_empty(x.shape) if has_gate else x
    out = x.new_empty(x.shape) if has_norm else x
    y = x if y is None else _readable(y)
    gate, shift, scale = (x[:, 0] if v is None else _per_sample(v) for v in (gate, shift, scale))
    padded, launch = _power_of_two(d), current_launch()
    rows_each, num_warps = launch.forward_rows, _num_warps(padded, launch.forward_values)
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
    g_total, g_out, x, y = (None if v is None else _readable(v) for v in (g_total, g_out, x, y))
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
    padded = _power_of_two(d)
    num_warps = _num_warps(padded, launch.backward_values)
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


@custom_op("reelsieve::turn_heads", mutates_args=())
def _turn_heads(
    qk: Tensor,
    q_weight: Tensor,
    k_weight: Tensor,
    cos: Tensor,
    sin: Tensor,
    num_heads: int,
    eps: float,
) -> tuple[Tensor, Tensor]:
    q, k = _new_heads(qk, qk.shape[1], num_heads, 2)
    _launch_heads(qk, q, k, None, (q_weight, k_weight), cos, sin, 0, eps)
    return q, k


@_turn_heads.register_fake
def _(
    qk: Tensor,
    q_weight: Tensor,
    k_weight: Tensor,
    cos: Tensor,
    sin: Tensor,
    num_heads: int,
    eps: float,
) -> tuple[Tensor, Tensor]:
    del q_weight, k_weight, cos, sin, eps
    q, k = _new_heads(qk, qk.shape[1], num_heads, 2)
    return q, k


@custom_op("reelsieve::turn_heads_backward", mutates_args=())
def _turn_heads_backward(
    dq: Tensor,
    dk: Tensor,
    qk: Tensor,
    q_weight: Tensor,
    k_weight: Tensor,
    cos: Tensor,
    sin: Tensor,
    eps: float,
) -> tuple[Tensor, Tensor, Tensor]:
    weights = (q_weight, k_weight)
    return _launch_heads_backward((dq, dk), qk, weights, cos, sin, 0, eps)


@_turn_heads_backward.register_fake
def _(
    dq: Tensor,
    dk: Tensor,
    qk: Tensor,
    q_weight: Tensor,
    k_weight: Tensor,
    cos: Tensor,
    sin: Tensor,
    eps: float,
) -> tuple[Tensor, Tensor, Tensor]:
    del dq, dk, cos, sin, eps
    return qk.new_empty(qk.shape), torch.empty_like(q_weight), torch.empty_like(k_weight)


@custom_op("reelsieve::join_streams", mutates_args=())
def _join_streams(
    image: Tensor,
    text: Tensor,
    image_q: Tensor,
    image_k: Tensor,
    text_q: Tensor,
    text_k: Tensor,
    cos: Tensor,
    sin: Tensor,
    num_heads: int,
    eps: float,
) -> tuple[Tensor, Tensor, Tensor]:
    num_image = image.shape[1]
    q, k, v = _new_heads(image, num_image + text.shape[1], num_heads, 3)
    _launch_heads(image, q, k, v, (image_q, image_k), cos, sin, 0, eps)
    _launch_heads(text, q, k, v, (text_q, text_k), None, None, num_image, eps)
    return q, k, v


@_join_streams.register_fake
def _(
    image: Tensor,
    text: Tensor,
    image_q: Tensor,
    image_k: Tensor,
    text_q: Tensor,
    text_k: Tensor,
    cos: Tensor,
    sin: Tensor,
    num_heads: int,
    eps: float,
) -> tuple[Tensor, Tensor, Tensor]:
    del image_q, image_k, text_q, text_k, cos, sin, eps
    q, k, v = _new_heads(image, image.shape[1] + text.shape[1], num_heads, 3)
    return q, k, v


@custom_op("reelsieve::join_streams_backward", mutates_args=())
def _join_streams_backward(
    dq: Tensor,
    dk: Tensor,
    dv: Tensor,
    image: Tensor,
    text: Tensor,
    image_q: Tensor,
    image_k: Tensor,
    text_q: Tensor,
    text_k: Tensor,
    cos: Tensor,
    sin: Tensor,
    eps: float,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    grads = (dq, dk, dv)
    dimage, *image_weights = _launch_heads_backward(
        grads, image, (image_q, image_k), cos, sin, 0, eps
    )
    dtext, *text_weights = _launch_heads_backward(
        grads, text, (text_q, text_k), None, None, image.shape[1], eps
    )
    return dimage, dtext, image_weights[0], image_weights[1], text_weights[0], text_weights[1]


@_join_streams_backward.register_fake
def _(
    dq: Tensor,
    dk: Tensor,
    dv: Tensor,
    image: Tensor,
    text: Tensor,
    image_q: Tensor,
    image_k: Tensor,
    text_q: Tensor,
    text_k: Tensor,
    cos: Tensor,
    sin: Tensor,
    eps: float,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    del dq, dk, dv, cos, sin, eps
    a, b, c, d = (torch.empty_like(w) for w in (image_q, image_k, text_q, text_k))
    return image.new_empty(image.shape), text.new_empty(text.shape), a, b, c, d


def _new_heads(like_BNX: Tensor, num_tokens: int, num_heads: int, num: int) -> list[Tensor]:
    """(B, T, H, E) each, of `num` parts of a row."""
    b, _, width = like_BNX.shape
    if width % (num * num_heads):
        raise ValueError(f"a row of {width} values is not {num} times {num_heads} heads")
    head_dim = width // (num * num_heads)
    return [like_BNX.new_empty(b, num_tokens, num_heads, head_dim) for _ in range(num)]


def _launch_heads(
    x: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor | None,
    weights: tuple[Tensor, Tensor],
    cos: Tensor | None,
    sin: Tensor | None,
    first_row: int,
    eps: float,
) -> None:
    x = _readable(x)
    b, n = x.shape[:2]
    out_rows, heads, e = q.shape[1:]
    num_turned = 0 if cos is None else min(n, cos.shape[0])
    cos, sin = (weights[0] if v is None else v for v in (cos, sin))
    launch = current_launch()
    pairs = launch.head_pairs
    head_kernels.forward_kernel[(-(-n * heads // pairs), b)](
        x, q, k, q if v is None else v, *weights, cos, sin, n, num_turned, first_row, out_rows,
        x.stride(0), x.stride(1), eps, H=heads, E=e, EP=_power_of_two(e), R=pairs,
        VALUES=v is not None, num_warps=launch.head_warps,
    )  # fmt: skip


def _launch_heads_backward(
    grads: Sequence[Tensor],
    x: Tensor,
    weights: tuple[Tensor, Tensor],
    cos: Tensor | None,
    sin: Tensor | None,
    first_row: int,
    eps: float,
) -> tuple[Tensor, Tensor, Tensor]:
    x = _readable(x)
    grads = [_readable(each) for each in grads]
    dq, dk = grads[:2]
    dv = grads[2] if len(grads) == 3 else dq
    b, n, width = x.shape
    heads, e = dq.shape[2:]
    num_turned = 0 if cos is None else min(n, cos.shape[0])
    cos, sin = (weights[0] if v is None else v for v in (cos, sin))
    dx = x.new_empty(x.shape)
    launch = current_launch()
    pairs, tiles_each = launch.head_backward_pairs, launch.head_backward_tiles
    num_programs = -(-n * heads // (pairs * tiles_each))
    partial_BP2E = torch.empty(b, num_programs, 2, e, device=x.device, dtype=torch.float32)
    head_kernels.backward_kernel[(num_programs, b)](
        dq, dk, dv, x, dx, partial_BP2E, *weights, cos, sin, n, num_turned, first_row,
        tiles_each, width, *dq.stride()[:3], *dk.stride()[:3], *dv.stride()[:3],
        x.stride(0), x.stride(1), eps, H=heads, E=e, EP=_power_of_two(e), R=pairs,
        VALUES=len(grads) == 3, num_warps=launch.head_backward_warps,
    )  # fmt: skip
    sums_2E = partial_BP2E.sum((0, 1))
    dq_weight, dk_weight = (
        each.to(weight.dtype, copy=True) for each, weight in zip(sums_2E, weights, strict=True)
    )
    return dx, dq_weight, dk_weight


def _keep_turn(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    del output
    *tensors, _, ctx.eps = inputs
    ctx.save_for_backward(*tensors)


def _turn_gradients(ctx: Any, dq: Tensor, dk: Tensor) -> tuple[Tensor | None, ...]:
    return (*_turn_heads_backward(dq, dk, *ctx.saved_tensors, ctx.eps), *[None] * 4)


def _join_gradients(ctx: Any, dq: Tensor, dk: Tensor, dv: Tensor) -> tuple[Tensor | None, ...]:
    return (*_join_streams_backward(dq, dk, dv, *ctx.saved_tensors, ctx.eps), *[None] * 4)


_turn_heads.register_autograd(_turn_gradients, setup_context=_keep_turn)
_join_streams.register_autograd(_join_gradients, setup_context=_keep_turn)


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


def turn_heads(
    qk_BTX: Tensor, norms: QkNorms, num_heads: int, rope: RopeTable
) -> tuple[Tensor, Tensor]:
    weights = (norm.weight for norm in norms)
    q, k = _turn_heads(qk_BTX, *weights, *rope, num_heads, _eps(norms))
    return q.transpose(1, 2), k.transpose(1, 2)


def join_streams(
    image_BNX: Tensor,
    text_BLX: Tensor,
    image_norms: QkNorms,
    text_norms: QkNorms,
    num_heads: int,
    rope: RopeTable,
) -> tuple[Tensor, Tensor, Tensor]:
    weights = (norm.weight for norm in (*image_norms, *text_norms))
    q, k, v = _join_streams(image_BNX, text_BLX, *weights, *rope, num_heads, _eps(image_norms))
    return q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2)


def _eps(norms: Sequence[nn.RMSNorm]) -> float:
    assert norms[0].eps is not None
    return norms[0].eps


FUSED = BlockOperations(norm_modulate, gated_add, gated_add_norm, turn_heads, join_streams)
