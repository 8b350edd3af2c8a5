"""How the work of the kernels is cut into programs. `benchmarks.tune_kernels` measures it."""

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True, slots=True)
class Launch:
    """More programs hide latency; fewer write fewer partial sums."""

    forward_rows: int = 2  # that a program walks over
    forward_values: int = 16  # of a row that a thread holds
    backward_programs: int = 528  # four for each multiprocessor of a Hopper GPU
    backward_values: int = 16
    head_pairs: int = 8  # of row and head in a tile
    head_warps: int = 2
    head_backward_pairs: int = 8
    head_backward_warps: int = 2
    head_backward_tiles: int = 4  # that a program walks over


_launch = Launch()


def current_launch() -> Launch:
    return _launch


def use_launch(other: Launch) -> None:
    """From the next call on, in this process."""
    global _launch
    _launch = other


def power_of_two(least: int) -> int:
    return 1 << (least - 1).bit_length()


def readable(x: Tensor) -> Tensor:
    """Rows may lie apart, their values may not."""
    return x if x.stride(-1) == 1 else x.contiguous()


def warps_for(width_padded: int, values_each: int) -> int:
    return max(1, min(16, width_padded // (32 * values_each)))
