"""Random numbers by name instead of by turn: noise, timestep, crop, dropout.

Each draw comes from a generator of its own, whose seed is a hash of what the draw is for. So there
is no state to save, and nothing depends on the number of ranks, workers or restarts. A stream is a
short name of the purpose ("noise", "sigma", "crop").

PyTorch's CPU generator uses 32 bits of its seed, the CUDA generator 64; the two give different
numbers from one seed.
"""

import hashlib

import numpy as np
import torch
from numpy.typing import NDArray


def seed_of(seed: int, *, key: str, step: int, stream: str) -> int:
    """63 bits that depend on every argument. `key` is a sample's draw key, or "" for a step's."""
    text = f"{seed}\0{stream}\0{step}\0{key}"
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big") >> 1


def generator(
    seed: int, *, key: str, step: int, stream: str, device: torch.device | str = "cpu"
) -> torch.Generator:
    """A generator on the device for one purpose of one sample at one step."""
    made = torch.Generator(device=device)
    made.manual_seed(seed_of(seed, key=key, step=step, stream=stream))
    return made


def normal_like(
    shape: tuple[int, ...],
    *,
    seed: int,
    keys: tuple[str, ...],
    step: int,
    stream: str,
    device: torch.device | str = "cpu",
) -> torch.Tensor:
    """Standard normal float32 numbers, (B, *shape), one generator per key."""
    return torch.stack(
        [
            torch.randn(
                shape,
                generator=generator(seed, key=key, step=step, stream=stream, device=device),
                device=device,
            )
            for key in keys
        ]
    )


def whole_number(bound: int, *, seed: int, key: str, step: int, stream: str) -> int:
    """Uniform in [0, bound), for bounds far below 2^63."""
    return seed_of(seed, key=key, step=step, stream=stream) % bound


def share(*, seed: int, key: str, step: int, stream: str) -> float:
    """Uniform in [0, 1)."""
    return (seed_of(seed, key=key, step=step, stream=stream) >> 10) / float(1 << 53)


def permutation(num: int, *, seed: int, key: str, step: int, stream: str) -> NDArray[np.int64]:
    """A shuffle of 0 .. num - 1, equal for all versions of numpy.

    It sorts the raw 64-bit words of Philox, which numpy keeps stable; `Generator.permutation` may
    change.
    """
    bits = np.random.Philox(key=seed_of(seed, key=key, step=step, stream=stream))
    return np.argsort(bits.random_raw(num), kind="stable")
