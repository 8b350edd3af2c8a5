"""Whether the VAE's fused operations are right on this machine: against the plain ones.

Shape suffixes: B batch, C channels, T frames, H height, W width.
"""

from collections.abc import Iterator

import torch
from torch import Tensor

from modeling.vae import VAE_CONFIGS, CausalVAE
from modeling.vae_operations import PLAIN_VAE, VaeOperations

# Of a whole network: convolutions on a GPU round to TF32 or bf16 in either form.
_TOLERANCE = {torch.float32: 1e-2, torch.bfloat16: 5e-2}
_SIZES = ((2, 5, 32, 24), (2, 1, 32, 24))  # a clip and an image: B, T, H, W


def apply_vae_operations(vae: CausalVAE, operations: VaeOperations) -> None:
    """Give every convolution these operations."""
    for convolution in vae.causal_convolutions():
        convolution.operations = operations


def find_vae_fault(fused: VaeOperations, device: torch.device, dtype: torch.dtype) -> str | None:
    """What is wrong with reconstructions or gradients of a small VAE; None if nothing is."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        vae = CausalVAE(VAE_CONFIGS["tiny"])
        videos = [torch.randn(b, 3, *sizes) for b, *sizes in _SIZES]
    vae.to(device)
    for video in videos:
        name = "an image" if video.shape[2] == 1 else "a clip"
        plain = list(_results(vae, PLAIN_VAE, video.to(device), dtype))
        own = list(_results(vae, fused, video.to(device), dtype))
        for what, found, expected in zip(("result", "gradient"), own, plain, strict=True):
            error = float((found - expected).norm() / expected.norm())
            if not error <= _TOLERANCE[dtype]:  # NaN is no pass
                return f"the {what} of {name} is off by {error:.2g}"
    return None


def _results(
    vae: CausalVAE, operations: VaeOperations, video_BCTHW: Tensor, dtype: torch.dtype
) -> Iterator[Tensor]:
    """The reconstruction, then the gradients of all weights."""
    apply_vae_operations(vae, operations)
    vae.zero_grad()
    with (
        torch.enable_grad(),
        torch.autocast(video_BCTHW.device.type, dtype, enabled=dtype != torch.float32),
    ):
        decoded = vae.decode(vae.encode(video_BCTHW).mean)
    torch.autograd.backward(decoded.float().square().mean())
    yield decoded.detach().float().flatten()
    yield torch.cat([p.grad.float().flatten() for p in vae.parameters() if p.grad is not None])
