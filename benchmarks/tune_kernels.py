"""The launch parameters of the DiT's fused kernels: time on the GPU alone, one kernel at a time.

Sizes are those of 4 x 4352 image and 4 x 256 text tokens at a width of 1536. "GB/s" counts what a
kernel must read and write at the least.

Run: python -m benchmarks.tune_kernels --out OUT.json [--seconds 100]
"""

import argparse
import importlib
import itertools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import torch
import triton  # type: ignore[import-untyped]

from benchmarks.step_timer import Record, machine
from modeling.block_operations import NORM_EPS
from modeling.kernels.launch import Launch, use_launch

importlib.import_module("modeling.kernels.operations")  # defines the operators
_OPS = torch.ops.reelsieve


@dataclass(frozen=True)
class Kernel:
    name: str
    call: Callable[[], object]
    num_bytes: int
    choices: Mapping[str, tuple[int, ...]]  # of fields of Launch


def kernels(device: torch.device, *, tiny: bool) -> Iterator[Kernel]:
    batch, num_image, num_text, heads, e = (1, 6, 2, 2, 16) if tiny else (4, 4352, 256, 12, 128)
    total, width = num_image + num_text, heads * e

    def rows(num: int, wide: int) -> torch.Tensor:
        return torch.randn(batch, num, wide, device=device).bfloat16()

    def vector() -> torch.Tensor:
        return torch.randn(batch, 1, width, device=device).bfloat16()

    x, y, g, g_out, shift, scale, gate = (
        *(rows(num_image, width) for _ in range(4)),
        *(vector() for _ in range(3)),
    )
    once = x.nbytes
    forward = {"forward_rows": (4, 1, 2, 8), "forward_values": (8, 4, 16, 32)}
    backward = {"backward_programs": (1056, 528, 2112, 4224), "backward_values": (8, 4, 16, 32)}
    yield Kernel(
        "norm_modulate", lambda: _OPS.norm_modulate(x, shift, scale, NORM_EPS), 2 * once, forward
    )
    yield Kernel(
        "norm_modulate_backward",
        lambda: _OPS.norm_modulate_backward(g, x, scale, NORM_EPS), 3 * once, backward,
    )  # fmt: skip
    yield Kernel(
        "gated_add_norm_backward",
        lambda: _OPS.gated_add_norm_backward(g, g_out, x, gate, y, scale, NORM_EPS),
        6 * once, backward,
    )  # fmt: skip
    yield Kernel(
        "gated_add_backward", lambda: _OPS.gated_add_backward(g, gate, y), 3 * once, backward
    )
    yield Kernel("gated_add", lambda: _OPS.gated_add(x, gate, y), 3 * once, forward)
    qk = rows(total, 2 * width)
    dq, dk = (rows(total, width).view(batch, total, heads, e) for _ in range(2))
    weights = [torch.randn(e, device=device) for _ in range(2)]
    angle = torch.randn(num_image, e, device=device)
    rope = angle.cos(), angle.sin()
    yield Kernel(
        "turn_heads_backward",
        lambda: _OPS.turn_heads_backward(dq, dk, qk, *weights, *rope, NORM_EPS), 3 * qk.nbytes,
        {
            "head_backward_tiles": (16, 1, 2, 4, 8),
            "head_backward_pairs": (16, 8, 32),
            "head_backward_warps": (4, 2, 8),
        },
    )  # fmt: skip
    yield Kernel(
        "turn_heads",
        lambda: _OPS.turn_heads(qk, *weights, *rope, heads, NORM_EPS), 2 * qk.nbytes,
        {"head_pairs": (16, 8, 32, 64), "head_warps": (4, 2, 8)},
    )  # fmt: skip


def measure(record: Record, kernel: Kernel, device: torch.device) -> None:
    """Every combination, the present one first."""
    for values in itertools.product(*kernel.choices.values()):
        parameters = dict(zip(kernel.choices, values, strict=True))

        def run(parameters: dict[str, int] = parameters) -> dict[str, Any]:
            use_launch(Launch(**parameters))
            kernel.call()
            if device.type == "cpu":
                return parameters
            milliseconds = triton.testing.do_bench(kernel.call, warmup=10, rep=40)
            rate = kernel.num_bytes / milliseconds / 1e6
            return {**parameters, "us": round(1e3 * milliseconds, 1), "GB/s": round(rate)}

        record.attempt(kernel.name, ", ".join(map(str, values)), 1, run)
    use_launch(Launch())


def best(record: Record) -> dict[str, dict[str, Any]]:
    """The fastest row of each kernel."""
    return {
        name: min(
            (row for row in rows if "us" in row), key=lambda row: float(row["us"]), default={}
        )
        for name, rows in record.rows.items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--out", type=Path, default=Path("tune_kernels.json"))
    parser.add_argument("--seconds", type=float, default=100)
    parser.add_argument("--tiny", action="store_true", help="try the program")
    arguments = parser.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if device.type == "cpu" and not arguments.tiny:
        raise SystemExit("no CUDA device: only --tiny runs on a CPU, in Triton's interpreter")
    record = Record(arguments.out, arguments.seconds)
    record.about |= machine() | {"parameters": [field.name for field in fields(Launch)]}

    for kernel in kernels(device, tiny=arguments.tiny):
        measure(record, kernel, device)
    for name, row in best(record).items():
        print(f"best {name}: {row}")


if __name__ == "__main__":
    main()
