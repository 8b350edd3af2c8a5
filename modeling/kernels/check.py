"""Whether the fused operations are right on this machine: against the plain ones, before training.

Shape suffixes: B batch, N image tokens, L text tokens, D width.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from modeling.block_operations import NORM_EPS, PLAIN, BlockOperations
from modeling.rope import rope_table

_TOLERANCE = {torch.float32: 1e-4, torch.bfloat16: 2e-2}

Run = Callable[[BlockOperations, list[Tensor]], Any]


def find_fault(fused: BlockOperations, device: torch.device, dtype: torch.dtype) -> str | None:
    """What is wrong with an operation's results or gradients; None if nothing is."""
    for name, run, tensors in cases(device, dtype):
        expected = _results(run, PLAIN, [t.float() for t in tensors])
        error = _relative_error(_results(run, fused, tensors), expected)
        if not error <= _TOLERANCE[dtype]:  # NaN is no pass
            return f"{name} is off by {error:.2g}"
    return None


def cases(
    device: torch.device,
    dtype: torch.dtype,
    *,
    batch: int = 2,
    grid: tuple[int, int, int] = (3, 5, 7),
    num_text: int = 19,
    num_heads: int = 3,
    axes: tuple[int, int, int] = (16, 24, 24),
) -> list[tuple[str, Run, list[Tensor]]]:
    """Each operation's name, how to call it, and tensors to call it with."""
    generator = torch.Generator().manual_seed(0)

    def draw(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator).to(device, dtype)

    head_dim = sum(axes)
    width = num_heads * head_dim
    table = rope_table(grid, axes, theta=256.0, device=device)
    num_image = len(table.cos_NE)
    x, y = draw(batch, num_image, width), draw(batch, num_image, width)
    gate, shift, scale = draw(batch, 1, 3 * width).chunk(3, dim=-1)
    image, text = draw(batch, num_image, 3 * width), draw(batch, num_text, 3 * width)
    hidden = draw(batch, num_image + num_text, 5 * width)[..., : 2 * width]
    weights = [draw(head_dim).float() for _ in range(4)]

    def join(op: BlockOperations, t: list[Tensor]) -> Any:
        a, b, c, d = (_norm(weight) for weight in t[2:])
        return op.join_streams(t[0], t[1], (a, b), (c, d), num_heads, table)

    def turn(op: BlockOperations, t: list[Tensor]) -> Any:
        return op.turn_heads(t[0], (_norm(t[1]), _norm(t[2])), num_heads, table)

    return [
        ("norm_modulate", lambda op, t: op.norm_modulate(t[0], t[1], t[2]), [x, shift, scale]),
        ("gated_add", lambda op, t: op.gated_add(t[0], t[1], t[2]), [x, gate, y]),
        (
            "gated_add_norm",
            lambda op, t: op.gated_add_norm(t[0], t[1], t[2], t[3], t[4]),
            [x, gate, y, shift, scale],
        ),
        ("join_streams", join, [image, text, *weights]),
        ("turn_heads", turn, [hidden, *weights[:2]]),
    ]


def _norm(weight: Tensor) -> nn.RMSNorm:
    norm = nn.RMSNorm(len(weight), eps=NORM_EPS, device="meta")
    del norm.weight
    norm.weight = weight  # type: ignore[assignment]
    return norm


def _results(run: Run, op: BlockOperations, tensors: list[Tensor]) -> list[Tensor]:
    leaves = [t.detach().requires_grad_() for t in tensors]
    with torch.enable_grad():
        found = run(op, leaves)
        outs = [found] if isinstance(found, Tensor) else list(found)
        # Any weighting that differs from place to place.
        loss = torch.stack([(out.float().sin() * out.float()).sum() for out in outs]).sum()
        return [*(out.detach() for out in outs), *torch.autograd.grad(loss, leaves)]


def _relative_error(found: list[Tensor], expected: list[Tensor]) -> float:
    errors = [
        (a.float() - b.float()).norm() / b.float().norm()
        for a, b in zip(found, expected, strict=True)
    ]
    return float(torch.stack(errors).max())
