"""Queries and keys: norm, positions and attention's layout as operators with gradients.

Every operator exists twice, forward and backward, with plain allocations around one or two
launches. Gradients of norm weights are partial sums added in a fixed order: equal inputs give
equal bits.

Shape suffixes: B batch, N image tokens, L text tokens, T = N + L, X values of a row, H heads,
E channels of a head.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.library import custom_op

from modeling.block_operations import QkNorms
from modeling.kernels import head_kernels
from modeling.kernels.launch import current_launch, power_of_two, readable
from modeling.rope import RopeTable


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
    x = readable(x)
    b, n = x.shape[:2]
    out_rows, heads, e = q.shape[1:]
    num_turned = 0 if cos is None else min(n, cos.shape[0])
    cos, sin = (weights[0] if v is None else v for v in (cos, sin))
    launch = current_launch()
    pairs = launch.head_pairs
    head_kernels.forward_kernel[(-(-n * heads // pairs), b)](
        x, q, k, q if v is None else v, *weights, cos, sin, n, num_turned, first_row, out_rows,
        x.stride(0), x.stride(1), eps, H=heads, E=e, EP=power_of_two(e), R=pairs,
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
    x = readable(x)
    grads = [readable(each) for each in grads]
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
        x.stride(0), x.stride(1), eps, H=heads, E=e, EP=power_of_two(e), R=pairs,
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
