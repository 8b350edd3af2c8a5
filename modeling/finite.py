"""Refuse NaN and infinity at the door of a network."""

import torch
from torch import Tensor


def check_finite(x: Tensor, name: str) -> None:
    """Raise ValueError if `x` holds a value that is not finite.

    Reads one number back from the device. Skipped while tracing and for tensors without data.
    """
    if x.is_meta or torch.compiler.is_compiling():
        return
    num_bad = int((~torch.isfinite(x)).sum())
    if num_bad:
        raise ValueError(f"{name} holds {num_bad} of {x.numel()} values that are NaN or infinite")
