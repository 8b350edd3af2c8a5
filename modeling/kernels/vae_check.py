"""Whether the VAE's fused operations are right on this machine: against the plain ones.

Shape suffixes: B batch, C channels, T frames, H height, W width.
"""

import torch
from torch import Tensor

from modeling.vae import VAE_CONFIGS, CausalVAE
from modeling.vae_operations import PLAIN_VAE, VaeOperations

# Of a whole network, whose convolutions a GPU rounds to TF32 in either form: 1.2 % was seen.
_TOLERANCE = 5e-2
# In bf16 the plain operations are off from float32 by 5 to 15 % themselves (it is a network with
# drawn weights), and by how much depends on the convolutions that cuDNN picks. What they are off
# by, and half as much more, is allowed there; no padding at the edges makes 120 %.
_OF_PLAIN = 1.5
_SEED = 1
_SIZES = ((2, 5, 32, 24), (2, 1, 32, 24))  # a clip and an image: B, T, H, W


def apply_vae_operations(vae: CausalVAE, operations: VaeOperations) -> None:
    """Give every convolution these operations."""
    for convolution in vae.causal_convolutions():
        convolution.operations = operations


def find_vae_fault(fused: VaeOperations, device: torch.device, dtype: torch.dtype) -> str | None:
    """What is wrong with reconstructions or gradients of a small VAE; None if nothing is.

    In float32 first, where a fault is plain to see, then in `dtype`.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(_SEED)
        vae = CausalVAE(VAE_CONFIGS["tiny"])
        videos = [torch.randn(b, 3, *sizes) for b, *sizes in _SIZES]
    vae.to(device)
    for video in videos:
        name = "an image" if video.shape[2] == 1 else "a clip"
        exact = _results(vae, PLAIN_VAE, video.to(device), torch.float32)
        for checked in dict.fromkeys((torch.float32, dtype)):
            usual = _results(vae, PLAIN_VAE, video.to(device), checked)
            own = _results(vae, fused, video.to(device), checked)
            for index, what in enumerate(("result", "gradient")):
                limit = max(_TOLERANCE, _OF_PLAIN * _relative_error(usual[index], exact[index]))
                error = _relative_error(own[index], exact[index])
                if not error <= limit:  # NaN is no pass
                    return f"the {what} of {name} is off by {error:.2g}, allowed is {limit:.2g}"
    return None


def _relative_error(found: Tensor, expected: Tensor) -> float:
    return float((found - expected).norm() / expected.norm())


def _results(
    vae: CausalVAE, operations: VaeOperations, video_BCTHW: Tensor, dtype: torch.dtype
) -> tuple[Tensor, Tensor]:
    """The reconstruction and the gradients of all weights."""
    apply_vae_operations(vae, operations)
    vae.zero_grad()
    with (
        torch.enable_grad(),
        torch.autocast(video_BCTHW.device.type, dtype, enabled=dtype != torch.float32),
    ):
        decoded = vae.decode(vae.encode(video_BCTHW).mean)
    torch.autograd.backward(decoded.float().square().mean())
    gradients = [p.grad.float().flatten() for p in vae.parameters() if p.grad is not None]
    return decoded.detach().float().flatten(), torch.cat(gradients)
