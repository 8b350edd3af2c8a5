"""Every kernel against the plain operation; one line of JSON per case. A script, not a test module.

Runs in a process of its own, because Triton reads TRITON_INTERPRET when a kernel is defined. With a
CUDA device it runs the compiled kernels there, else the interpreter on the CPU.
"""

import json
import sys
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from modeling.block_operations import PLAIN, BlockOperations
from modeling.dit import VideoDiT
from modeling.kernels.operations import FUSED
from modeling.kernels.vae_operations import FUSED_VAE
from modeling.rope import rope_table
from modeling.vae_operations import PLAIN_VAE, VaeOperations
from tests.modeling.random_networks import TINY_DIT, randomize

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
GPU_SIZES = ((1, 1, 8), (2, 5, 24), (3, 77, 1536), (2, 1001, 3072))
Case = tuple[str, Callable[[BlockOperations, list[Tensor]], Any], list[Tensor]]


def draw(*shape: int, dtype: torch.dtype, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator).to(DEVICE, dtype)


def norms(tensors: list[Tensor]) -> tuple[nn.RMSNorm, ...]:
    made = []
    for weight in tensors:
        norm = nn.RMSNorm(len(weight), eps=1e-6)
        del norm.weight
        norm.weight = weight  # type: ignore[assignment]
        made.append(norm)
    return tuple(made)


def cases(dtype: torch.dtype) -> Iterator[Case]:
    for b, n, d in ((1, 1, 8), (2, 5, 24)) if DEVICE.type == "cpu" else GPU_SIZES:
        x, y = (draw(b, n, d, dtype=dtype, seed=s) for s in (1, 2))
        # As a modulation hands them out: pieces of one row.
        gate, shift, scale = draw(b, 1, 3 * d, dtype=dtype, seed=3).chunk(3, dim=-1)
        size = f"{b}x{n}x{d}"
        yield f"norm {size}", lambda op, t: op.norm_modulate(*t), [x, shift, scale]
        yield f"gate {size}", lambda op, t: op.gated_add(*t), [x, gate, y]
        yield f"both {size}", lambda op, t: op.gated_add_norm(*t), [x, gate, y, shift, scale]
        # Rows that lie apart, as slices of a longer sequence do.
        apart = draw(b, n + 3, 2 * d, dtype=dtype, seed=4)[:, 1 : n + 1, :d]
        yield f"apart {size}", lambda op, t: op.gated_add_norm(*t), [x, gate, apart, shift, scale]
    for b, h, axes, grid, num_text in (
        (1, 1, (2, 2, 4), (1, 1, 1), 1),
        (2, 3, (4, 4, 4), (1, 2, 3), 5),
        *(((2, 12, (16, 56, 56), (3, 7, 9), 77),) if DEVICE.type == "cuda" else ()),
    ):
        e = sum(axes)
        table = rope_table(grid, axes, theta=256.0, device=DEVICE)
        num_image = len(table.cos_NE)
        weights = [draw(e, dtype=torch.float32, seed=s) for s in range(4)]
        image = draw(b, num_image, 3 * h * e, dtype=dtype, seed=5)
        text = draw(b, num_text, 3 * h * e, dtype=dtype, seed=6)

        def join(op: BlockOperations, t: list[Tensor], h: int = h, table: Any = table) -> Any:
            pairs = norms(t[2:])
            return op.join_streams(t[0], t[1], pairs[:2], pairs[2:], h, table)  # type: ignore[arg-type]

        def turn(op: BlockOperations, t: list[Tensor], h: int = h, table: Any = table) -> Any:
            return op.turn_heads(t[0], norms(t[1:]), h, table)  # type: ignore[arg-type]

        size = f"{b}x{num_image}+{num_text}x{h}x{e}"
        yield f"join {size}", join, [image, text, *weights]
        hidden = draw(b, num_image + num_text, 5 * h * e, dtype=dtype, seed=7)
        yield f"turn {size}", turn, [hidden[..., : 2 * h * e], *weights[:2]]


def outputs_and_gradients(run: Any, op: Any, tensors: list[Tensor]) -> list[Tensor]:
    leaves = [t.detach().requires_grad_() for t in tensors]
    found = run(op, leaves)
    outs = [found] if isinstance(found, Tensor) else list(found)
    wanted = [draw(*out.shape, dtype=torch.float32, seed=90 + i) for i, out in enumerate(outs)]
    loss = sum((out.float() * w).sum() for out, w in zip(outs, wanted, strict=True))
    grads = torch.autograd.grad(loss, leaves)  # type: ignore[arg-type]
    return [*(out.detach() for out in outs), *grads]


def difference(found: list[Tensor], expected: list[Tensor]) -> float:
    worst = 0.0
    for a, b in zip(found, expected, strict=True):
        assert a.shape == b.shape, (a.shape, b.shape)
        # A single value's norm is 0 whatever it was; then the difference itself counts.
        scale = max(float(b.float().norm()), 1e-3 * b.numel() ** 0.5)
        worst = max(worst, float((a.float() - b.float()).norm()) / scale)
        if not bool(a.isfinite().all()):
            worst = float("inf")
    return worst


def report(name: str, value: float) -> None:
    sys.stdout.write(json.dumps({"case": name, "difference": value}) + "\n")


def whole_network() -> float:
    """Output and gradients of a small DiT whose compiled blocks hold the kernels."""
    torch.manual_seed(0)
    sizes = {"num_layers": 1, "num_single_layers": 1, "num_refiner_layers": 1}
    network = randomize(VideoDiT(TINY_DIT.model_copy(update=sizes))).to(DEVICE)
    fields = {
        "latent_BCTHW": draw(2, 4, 1, 2, 4, dtype=torch.float32, seed=1),
        "sigma_B": torch.tensor([0.9, 0.4], device=DEVICE),
        "text_BLD": draw(2, 3, 24, dtype=torch.float32, seed=2),
        "text_lengths_B": torch.tensor([3, 3]),
        "pooled_BD": draw(2, 12, dtype=torch.float32, seed=3),
        "guidance_B": torch.tensor([6.0, 2.0], device=DEVICE),
    }
    results = []
    for op in (PLAIN, FUSED):
        for block in [*network.double_blocks, *network.single_blocks]:
            block.operations = op
            if op is FUSED:
                block.compile(backend="aot_eager", fullgraph=True)
        network.zero_grad()
        out = network(**fields)
        torch.autograd.backward(out.square().mean())
        grads = [p.grad for p in network.parameters() if p.grad is not None]
        results.append([out.detach(), torch.cat([g.flatten() for g in grads])])
    if results[0][1].abs().max() == 0:
        raise AssertionError("no gradient to compare")
    return difference(results[1], results[0])


def vae_cases(dtype: torch.dtype) -> Iterator[tuple[str, Any, list[Tensor]]]:
    """Of a clip and of an image; twelve channels are neither a power of two nor of eights."""
    channels, groups, edges = 12, 3, (2, 1, 1)
    for frames in (1, 3):
        x = draw(2, channels, frames, 2, 3, dtype=dtype, seed=frames)
        gamma, beta = (draw(channels, dtype=torch.float32, seed=s) for s in (8, 9))
        weight = draw(5, channels, 3, 3, 3, dtype=dtype, seed=10)

        def normed(op: VaeOperations, t: list[Tensor], frames: int = frames) -> Tensor:
            norm = nn.GroupNorm(groups, channels, eps=1e-6)
            del norm.weight, norm.bias
            norm.weight, norm.bias = t[1], t[2]  # type: ignore[assignment]
            return whole_padding(op.norm_silu_pad(norm, t[0], edges), frames)

        def convolved(op: VaeOperations, t: list[Tensor]) -> Tensor:
            conv = nn.Conv3d(channels, 5, 3, bias=False)
            del conv.weight
            conv.weight = t[1]
            return op.convolve(conv, op.pad(t[0], edges))

        def enlarged(op: VaeOperations, t: list[Tensor], frames: int = frames) -> Tensor:
            return whole_padding(op.enlarge_pad(t[0], (2, 2, 2), edges), frames)

        yield f"vae-norm {frames}", normed, [x, gamma, beta]
        yield f"vae-enlarge {frames}", enlarged, [x]
        yield f"vae-conv {frames}", convolved, [x, weight]


def whole_padding(padded: Tensor, num_frames: int) -> Tensor:
    """An image's copies in the past, which the fused operations leave out."""
    return padded.expand(-1, -1, 3, -1, -1) if num_frames == 1 else padded


def main() -> None:
    torch.set_num_threads(1)
    torch.backends.cudnn.allow_tf32 = False  # rounding of the convolutions, not of the kernels
    # Expected values come from float32 whatever the kernel computes in: bf16 differs by rounding.
    for dtype in (torch.float32, torch.bfloat16):
        for name, run, tensors in cases(dtype):
            expected = outputs_and_gradients(run, PLAIN, [t.float() for t in tensors])
            found = outputs_and_gradients(run, FUSED, tensors)
            report(f"{name} {str(dtype).removeprefix('torch.')}", difference(found, expected))
        for name, run, tensors in vae_cases(dtype):
            expected = outputs_and_gradients(run, PLAIN_VAE, [t.float() for t in tensors])
            found = outputs_and_gradients(run, FUSED_VAE, tensors)
            report(f"{name} {str(dtype).removeprefix('torch.')}", difference(found, expected))
    report("network float32", whole_network())


if __name__ == "__main__":
    main()
