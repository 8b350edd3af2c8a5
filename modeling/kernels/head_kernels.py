"""Triton kernels that take queries, keys and values from the rows of a product into (B, T, H, E).

Queries and keys are RMS-normed per head and turned by their positions on the way; values are
copied. A program handles pairs of row and head; the two streams are two launches into one output.
"""

# mypy: disable-error-code="no-untyped-def, untyped-decorator"

import triton  # type: ignore[import-untyped]
import triton.language as tl  # type: ignore[import-untyped]


@triton.jit
def _turned(at, partner_at, weight, partner_weight, cos, sin, inside, eps, E: tl.constexpr):
    x = tl.load(at, mask=inside, other=0.0).to(tl.float32)
    partner = tl.load(partner_at, mask=inside, other=0.0).to(tl.float32)
    rstd = 1.0 / tl.sqrt(tl.sum(x * x, 1) / E + eps)
    turned = x * weight[None, :] * cos + partner * partner_weight[None, :] * sin
    return turned * rstd[:, None]


@triton.jit
def _turned_back(g_at, g_partner_at, x_at, weight, cos, sin, inside, eps, E: tl.constexpr):
    """Gradient of the input, and of the norm's weight summed over the tile."""
    g = tl.load(g_at, mask=inside, other=0.0).to(tl.float32)
    partner = tl.load(g_partner_at, mask=inside, other=0.0).to(tl.float32)
    x = tl.load(x_at, mask=inside, other=0.0).to(tl.float32)
    rstd = 1.0 / tl.sqrt(tl.sum(x * x, 1) / E + eps)
    normed = x * rstd[:, None]
    g = g * cos - partner * sin
    inner = g * weight[None, :]
    slope = tl.sum(inner * normed, 1) / E
    return rstd[:, None] * (inner - normed * slope[:, None]), tl.sum(g * normed, 0)


@triton.jit
def forward_kernel(x_ptr, q_ptr, k_ptr, v_ptr, q_weight_ptr, k_weight_ptr, cos_ptr, sin_ptr,
                   num_rows, num_turned, first_row, out_rows, x_stride_b, x_stride_n, eps,
                   H: tl.constexpr, E: tl.constexpr, EP: tl.constexpr, R: tl.constexpr,
                   VALUES: tl.constexpr):  # fmt: skip
    b = tl.program_id(1).to(tl.int64)
    e = tl.arange(0, EP)
    pair = tl.program_id(0) * R + tl.arange(0, R)
    n = pair // H
    h = pair % H
    inside = (n < num_rows)[:, None] & (e < E)[None, :]
    table_at = n[:, None] * E + e[None, :]
    turns = inside & (n < num_turned)[:, None]
    cos = tl.load(cos_ptr + table_at, mask=turns, other=1.0)
    sin = tl.load(sin_ptr + table_at, mask=turns, other=0.0)
    sin = tl.where((e % 2 == 0)[None, :], -sin, sin)
    row_at = x_ptr + b * x_stride_b + n.to(tl.int64)[:, None] * x_stride_n + (h * E)[:, None]
    at = row_at + e[None, :]
    partner_at = row_at + (e ^ 1)[None, :]
    to = (((b * out_rows + first_row + n) * H + h) * E)[:, None] + e[None, :]
    weight = tl.load(q_weight_ptr + e, mask=e < E, other=0.0).to(tl.float32)
    partner_weight = tl.load(q_weight_ptr + (e ^ 1), mask=e < E, other=0.0).to(tl.float32)
    q = _turned(at, partner_at, weight, partner_weight, cos, sin, inside, eps, E)
    tl.store(q_ptr + to, q.to(q_ptr.dtype.element_ty), mask=inside)
    weight = tl.load(k_weight_ptr + e, mask=e < E, other=0.0).to(tl.float32)
    partner_weight = tl.load(k_weight_ptr + (e ^ 1), mask=e < E, other=0.0).to(tl.float32)
    k = _turned(at + H * E, partner_at + H * E, weight, partner_weight, cos, sin, inside, eps, E)
    tl.store(k_ptr + to, k.to(k_ptr.dtype.element_ty), mask=inside)
    if VALUES:
        tl.store(v_ptr + to, tl.load(at + 2 * H * E, mask=inside, other=0.0), mask=inside)


@triton.jit
def backward_kernel(dq_ptr, dk_ptr, dv_ptr, x_ptr, dx_ptr, partial_ptr, q_weight_ptr,
                    k_weight_ptr, cos_ptr, sin_ptr, num_rows, num_turned, first_row, tiles_each,
                    dx_stride_n, dq_stride_b, dq_stride_n, dq_stride_h, dk_stride_b, dk_stride_n,
                    dk_stride_h, dv_stride_b, dv_stride_n, dv_stride_h, x_stride_b, x_stride_n, eps,
                    H: tl.constexpr, E: tl.constexpr, EP: tl.constexpr, R: tl.constexpr,
                    VALUES: tl.constexpr):  # fmt: skip
    """The gradient dx has rows of 2 or 3 widths. Partial sums: weights of queries, of keys."""
    b = tl.program_id(1).to(tl.int64)
    e = tl.arange(0, EP)
    q_weight = tl.load(q_weight_ptr + e, mask=e < E, other=0.0).to(tl.float32)
    k_weight = tl.load(k_weight_ptr + e, mask=e < E, other=0.0).to(tl.float32)
    q_total = tl.zeros((EP,), dtype=tl.float32)
    k_total = tl.zeros((EP,), dtype=tl.float32)
    for tile in range(tiles_each):
        pair = (tl.program_id(0) * tiles_each + tile) * R + tl.arange(0, R)
        n = pair // H
        h = pair % H
        inside = (n < num_rows)[:, None] & (e < E)[None, :]
        table_at = n[:, None] * E + e[None, :]
        turns = inside & (n < num_turned)[:, None]
        cos = tl.load(cos_ptr + table_at, mask=turns, other=1.0)
        sin = tl.load(sin_ptr + table_at, mask=turns, other=0.0)
        sin = tl.where((e % 2 == 0)[None, :], -sin, sin)
        row = n.to(tl.int64)
        x_at = x_ptr + b * x_stride_b + row[:, None] * x_stride_n + (h * E)[:, None] + e[None, :]
        dx_at = dx_ptr + ((b * num_rows + row) * dx_stride_n + h * E)[:, None] + e[None, :]
        g_row = row + first_row
        g_at = dq_ptr + (b * dq_stride_b + g_row * dq_stride_n + h * dq_stride_h)[:, None]
        dx, dw = _turned_back(
            g_at + e[None, :], g_at + (e ^ 1)[None, :], x_at, q_weight, cos, sin, inside, eps, E
        )
        q_total += dw
        tl.store(dx_at, dx.to(dx_ptr.dtype.element_ty), mask=inside)
        g_at = dk_ptr + (b * dk_stride_b + g_row * dk_stride_n + h * dk_stride_h)[:, None]
        dx, dw = _turned_back(
            g_at + e[None, :], g_at + (e ^ 1)[None, :], x_at + H * E, k_weight, cos, sin, inside,
            eps, E,
        )  # fmt: skip
        k_total += dw
        tl.store(dx_at + H * E, dx.to(dx_ptr.dtype.element_ty), mask=inside)
        if VALUES:
            g_at = dv_ptr + (b * dv_stride_b + g_row * dv_stride_n + h * dv_stride_h)[:, None]
            dv = tl.load(g_at + e[None, :], mask=inside, other=0.0)
            tl.store(dx_at + 2 * H * E, dv.to(dx_ptr.dtype.element_ty), mask=inside)
    partial = partial_ptr + (b * tl.num_programs(0) + tl.program_id(0)) * (2 * E) + e
    tl.store(partial, q_total, mask=e < E)
    tl.store(partial + E, k_total, mask=e < E)
