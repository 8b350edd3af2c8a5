"""Triton kernels of the VAE: norm, SiLU, enlargement and padding in one pass each way.

Tensors are channels-last, rows are positions. A map from output to input positions is given per
axis; it never falls, so that every input's outputs are an interval, and the backward pass gathers
instead of adding atomically. Sums over positions are kept by a program and written as one partial
row, so that their order never changes.
"""

# mypy: disable-error-code="no-untyped-def, untyped-decorator"

import triton  # type: ignore[import-untyped]
import triton.language as tl  # type: ignore[import-untyped]


@triton.jit
def sums_kernel(x_ptr, partial_ptr, num, C: tl.constexpr, CP: tl.constexpr, R: tl.constexpr,
                K: tl.constexpr):  # fmt: skip
    """Partial sums of x and of its square, by channel."""
    b = tl.program_id(1)
    c = tl.arange(0, CP)
    total = tl.zeros((CP,), dtype=tl.float32)
    squares = tl.zeros((CP,), dtype=tl.float32)
    for k in range(K):
        n = (tl.program_id(0) * K + k) * R + tl.arange(0, R)
        inside = (n[:, None] < num) & (c[None, :] < C)
        where = (b.to(tl.int64) * num + n[:, None]) * C + c[None, :]
        x = tl.load(x_ptr + where, mask=inside, other=0.0).to(tl.float32)
        total += tl.sum(x, 0)
        squares += tl.sum(x * x, 0)
    partial = partial_ptr + (b * tl.num_programs(0) + tl.program_id(0)) * (2 * C) + c
    tl.store(partial, total, mask=c < C)
    tl.store(partial + C, squares, mask=c < C)


@triton.jit
def gather_kernel(x_ptr, scale_ptr, shift_ptr, out_ptr, map_t, map_h, map_w, num, T, H, W,
                   TO, HO, WO, C: tl.constexpr, CP: tl.constexpr, R: tl.constexpr,
                   NORM: tl.constexpr):  # fmt: skip
    """Out at n = x at the maps of n; with NORM, of SiLU(x * scale + shift)."""
    b = tl.program_id(1)
    c = tl.arange(0, CP)
    n = tl.program_id(0) * R + tl.arange(0, R)
    here = n < num
    t = tl.load(map_t + n // (HO * WO), mask=here, other=0)
    h = tl.load(map_h + (n // WO) % HO, mask=here, other=0)
    w = tl.load(map_w + n % WO, mask=here, other=0)
    source = (t * H + h) * W + w
    inside = here[:, None] & (c[None, :] < C)
    x = tl.load(
        x_ptr + (b.to(tl.int64) * (T * H * W) + source[:, None]) * C + c[None, :],
        mask=inside, other=0.0,
    ).to(tl.float32)  # fmt: skip
    if NORM:
        scale = tl.load(scale_ptr + b * C + c, mask=c < C, other=0.0)
        shift = tl.load(shift_ptr + b * C + c, mask=c < C, other=0.0)
        z = x * scale[None, :] + shift[None, :]
        x = z / (1.0 + tl.exp(-z))
    where = (b.to(tl.int64) * num + n[:, None]) * C + c[None, :]
    tl.store(out_ptr + where, x.to(out_ptr.dtype.element_ty), mask=inside)


@triton.jit
def scatter_kernel(g_ptr, x_ptr, scale_ptr, shift_ptr, dz_ptr, partial_ptr, lo_t, lo_h, lo_w,
                    num, H, W, TO, HO, WO, C: tl.constexpr, CP: tl.constexpr,
                    R: tl.constexpr, K: tl.constexpr, NORM: tl.constexpr,
                    MT: tl.constexpr, MH: tl.constexpr, MW: tl.constexpr):  # fmt: skip
    """dz: the gradients of all outputs of a position; with NORM, back through SiLU.

    Partial sums of dz and of dz * x, by channel.
    """
    b = tl.program_id(1)
    c = tl.arange(0, CP)
    if NORM:
        scale = tl.load(scale_ptr + b * C + c, mask=c < C, other=0.0)
        shift = tl.load(shift_ptr + b * C + c, mask=c < C, other=0.0)
        total = tl.zeros((CP,), dtype=tl.float32)
        products = tl.zeros((CP,), dtype=tl.float32)
    for k in range(K):
        n = (tl.program_id(0) * K + k) * R + tl.arange(0, R)
        here = n < num
        t, h, w = n // (H * W), (n // W) % H, n % W
        t0 = tl.load(lo_t + t, mask=here, other=0)
        t1 = tl.load(lo_t + t + 1, mask=here, other=0)
        h0 = tl.load(lo_h + h, mask=here, other=0)
        h1 = tl.load(lo_h + h + 1, mask=here, other=0)
        w0 = tl.load(lo_w + w, mask=here, other=0)
        w1 = tl.load(lo_w + w + 1, mask=here, other=0)
        dz = tl.zeros((R, CP), dtype=tl.float32)
        for i in range(MT):
            for j in range(MH):
                for m in range(MW):
                    counts = (t0 + i < t1) & (h0 + j < h1) & (w0 + m < w1) & here
                    q = ((t0 + i) * HO + h0 + j) * WO + w0 + m
                    g_at = (b.to(tl.int64) * (TO * HO * WO) + q[:, None]) * C + c[None, :]
                    counted = counts[:, None] & (c[None, :] < C)
                    dz += tl.load(g_ptr + g_at, mask=counted, other=0.0).to(tl.float32)
        inside = here[:, None] & (c[None, :] < C)
        where = (b.to(tl.int64) * num + n[:, None]) * C + c[None, :]
        if NORM:
            x = tl.load(x_ptr + where, mask=inside, other=0.0).to(tl.float32)
            z = x * scale[None, :] + shift[None, :]
            s = 1.0 / (1.0 + tl.exp(-z))
            dz = dz * s * (1.0 + z * (1.0 - s))
            total += tl.sum(dz, 0)
            products += tl.sum(dz * x, 0)
        tl.store(dz_ptr + where, dz.to(dz_ptr.dtype.element_ty), mask=inside)
    if NORM:
        partial = partial_ptr + (b * tl.num_programs(0) + tl.program_id(0)) * (2 * C) + c
        tl.store(partial, total, mask=c < C)
        tl.store(partial + C, products, mask=c < C)


@triton.jit
def combine_kernel(dz_ptr, x_ptr, coefficients_ptr, out_ptr, num, C: tl.constexpr,
                    CP: tl.constexpr, R: tl.constexpr):  # fmt: skip
    """Gradient of x: dz * u + x * v + r, with three coefficients by channel."""
    b = tl.program_id(1)
    c = tl.arange(0, CP)
    n = tl.program_id(0) * R + tl.arange(0, R)
    inside = (n[:, None] < num) & (c[None, :] < C)
    where = (b.to(tl.int64) * num + n[:, None]) * C + c[None, :]
    dz = tl.load(dz_ptr + where, mask=inside, other=0.0).to(tl.float32)
    x = tl.load(x_ptr + where, mask=inside, other=0.0).to(tl.float32)
    base = coefficients_ptr + b * 3 * C + c
    u = tl.load(base, mask=c < C, other=0.0)
    v = tl.load(base + C, mask=c < C, other=0.0)
    r = tl.load(base + 2 * C, mask=c < C, other=0.0)
    gx = dz * u[None, :] + x * v[None, :] + r[None, :]
    tl.store(out_ptr + where, gx.to(out_ptr.dtype.element_ty), mask=inside)
