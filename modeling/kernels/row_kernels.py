"""Triton kernels over rows of (B, N, D): gated sum and modulated layer norm, forward and backward.

A program walks over rows of one sample, a row at a time in registers. Sums over a sample's rows are
kept by the program and written as one partial row, so that their order never changes.
"""

# mypy: disable-error-code="no-untyped-def, untyped-decorator"

import triton  # type: ignore[import-untyped]
import triton.language as tl  # type: ignore[import-untyped]


@triton.jit
def _normed(x, inside, eps, D: tl.constexpr):
    """The normed row and one over its deviation."""
    mean = tl.sum(x, 0) / D
    centered = tl.where(inside, x - mean, 0.0)
    rstd = 1.0 / tl.sqrt(tl.sum(centered * centered, 0) / D + eps)
    return centered * rstd, rstd


@triton.jit
def forward_kernel(x_ptr, gate_ptr, y_ptr, shift_ptr, scale_ptr, sum_ptr, out_ptr, num_rows,
                   rows_each, x_stride_b, x_stride_n, y_stride_b, y_stride_n, gate_stride,
                   shift_stride, scale_stride, eps, D: tl.constexpr, DP: tl.constexpr,
                   GATE: tl.constexpr, NORM: tl.constexpr):  # fmt: skip
    """Gives sum = x + gate * y (GATE); out = norm(sum or x) * (1 + scale) + shift (NORM)."""
    b = tl.program_id(1).to(tl.int64)
    d = tl.arange(0, DP)
    inside = d < D
    gate = tl.zeros((DP,), dtype=tl.float32)
    shift = tl.zeros((DP,), dtype=tl.float32)
    scale = tl.zeros((DP,), dtype=tl.float32)
    if GATE:
        gate = tl.load(gate_ptr + b * gate_stride + d, mask=inside, other=0.0).to(tl.float32)
    if NORM:
        shift = tl.load(shift_ptr + b * shift_stride + d, mask=inside, other=0.0).to(tl.float32)
        scale = tl.load(scale_ptr + b * scale_stride + d, mask=inside, other=0.0).to(tl.float32)
    for each in range(rows_each):
        row = tl.program_id(0).to(tl.int64) * rows_each + each
        inside = (d < D) & (row < num_rows)
        to = (b * num_rows + row) * D + d
        at = x_ptr + b * x_stride_b + row * x_stride_n + d
        x = tl.load(at, mask=inside, other=0.0).to(tl.float32)
        if GATE:
            at = y_ptr + b * y_stride_b + row * y_stride_n + d
            y = tl.load(at, mask=inside, other=0.0).to(tl.float32)
            rounded = (x + gate * y).to(sum_ptr.dtype.element_ty)
            tl.store(sum_ptr + to, rounded, mask=inside)
            x = rounded.to(tl.float32)  # what the backward pass will read
        if NORM:
            normed, _ = _normed(x, inside, eps, D)
            out = normed * (1.0 + scale) + shift
            tl.store(out_ptr + to, out.to(out_ptr.dtype.element_ty), mask=inside)


@triton.jit
def backward_kernel(g_sum_ptr, g_out_ptr, x_ptr, gate_ptr, y_ptr, scale_ptr, dx_ptr, dy_ptr,
                    partial_ptr, num_rows, rows_each, g_sum_stride_b, g_sum_stride_n,
                    g_out_stride_b, g_out_stride_n, x_stride_b, x_stride_n, y_stride_b, y_stride_n,
                    gate_stride, scale_stride, eps, D: tl.constexpr, DP: tl.constexpr,
                    GATE: tl.constexpr, NORM: tl.constexpr):  # fmt: skip
    """Gradients of `forward_kernel`; x is what was normed. Partial sums: gate, shift, scale."""
    b = tl.program_id(1).to(tl.int64)
    d = tl.arange(0, DP)
    inside = d < D
    gate = tl.zeros((DP,), dtype=tl.float32)
    scale = tl.zeros((DP,), dtype=tl.float32)
    if GATE:
        gate = tl.load(gate_ptr + b * gate_stride + d, mask=inside, other=0.0).to(tl.float32)
    if NORM:
        scale = tl.load(scale_ptr + b * scale_stride + d, mask=inside, other=0.0).to(tl.float32)
    dgate = tl.zeros((DP,), dtype=tl.float32)
    dshift = tl.zeros((DP,), dtype=tl.float32)
    dscale = tl.zeros((DP,), dtype=tl.float32)
    for each in range(rows_each):
        row = tl.program_id(0).to(tl.int64) * rows_each + each
        inside = (d < D) & (row < num_rows)
        to = (b * num_rows + row) * D + d
        dx = tl.zeros((DP,), dtype=tl.float32)
        if GATE:
            at = g_sum_ptr + b * g_sum_stride_b + row * g_sum_stride_n + d
            dx = tl.load(at, mask=inside, other=0.0).to(tl.float32)
        if NORM:
            at = g_out_ptr + b * g_out_stride_b + row * g_out_stride_n + d
            g_out = tl.load(at, mask=inside, other=0.0).to(tl.float32)
            at = x_ptr + b * x_stride_b + row * x_stride_n + d
            x = tl.load(at, mask=inside, other=0.0).to(tl.float32)
            normed, rstd = _normed(x, inside, eps, D)
            dshift += g_out
            dscale += g_out * normed
            inner = g_out * (1.0 + scale)
            inner_mean = tl.sum(inner, 0) / D
            slope = tl.sum(inner * normed, 0) / D
            dx += rstd * (inner - inner_mean - normed * slope)
            tl.store(dx_ptr + to, dx.to(dx_ptr.dtype.element_ty), mask=inside)
        if GATE:
            at = y_ptr + b * y_stride_b + row * y_stride_n + d
            y = tl.load(at, mask=inside, other=0.0).to(tl.float32)
            dgate += dx * y
            tl.store(dy_ptr + to, (gate * dx).to(dy_ptr.dtype.element_ty), mask=inside)
    inside = d < D
    partial = partial_ptr + (b * tl.num_programs(0) + tl.program_id(0)) * (3 * D) + d
    if GATE:
        tl.store(partial, dgate, mask=inside)
    if NORM:
        tl.store(partial + D, dshift, mask=inside)
        tl.store(partial + 2 * D, dscale, mask=inside)
