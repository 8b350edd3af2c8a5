"""Weights and pictures from NumPy's legacy generator, the same everywhere."""

from typing import Any

import numpy as np
import torch
from torch import Tensor


def drawn_branch(shapes: dict[str, tuple[int, ...]]) -> dict[str, Tensor]:
    """One branch with its head: the key at sorted position j is drawn from seed 1000 + j."""
    state = {}
    for position, key in enumerate(sorted(shapes)):
        shape = shapes[key]
        z = np.random.RandomState(1000 + position).standard_normal(shape)
        state[key] = torch.from_numpy(_scaled(key, z).astype(np.float32))
    return state


def drawn_dover(model: Any) -> dict[str, Tensor]:
    """All tensors of a Dover, each branch drawn for itself."""
    state: dict[str, Tensor] = {}
    for branch in ("technical", "aesthetic"):
        shapes = {k: tuple(v.shape) for k, v in model.state_dict().items() if k.startswith(branch)}
        state |= drawn_branch(shapes)
    return state


def drawn_video() -> Tensor:
    """1 x 3 x 32 x 224 x 224, standard normal."""
    values = np.random.RandomState(7).standard_normal((1, 3, 32, 224, 224))
    return torch.from_numpy(values.astype(np.float32))


def _scaled(key: str, z: Any) -> Any:
    if key.endswith("position_bias_table"):
        return 0.5 * z
    if key.endswith((".bias", ".beta")):
        return 0.05 * z
    if key.endswith("grn.gamma"):
        return 0.2 * z
    if key.endswith("gamma"):
        return 0.3 + 0.1 * z
    if z.ndim == 1:
        return 1 + 0.1 * z
    return z / np.sqrt(np.prod(z.shape[1:]))
