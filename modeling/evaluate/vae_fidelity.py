"""How well a VAE gives the samples of a bucket back."""

from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor

from modeling.evaluate.fidelity import Fidelity, measure
from modeling.evaluate.samples import Sample
from modeling.evaluate.subject import VaeSubject
from modeling.kernels.select import speed_up
from modeling.train import compute
from modeling.train.parts import to_video
from modeling.vae import CausalVAE
from modeling.vae_tiling import TilingConfig


def fidelities(
    subject: VaeSubject,
    samples: Sequence[Sample],
    *,
    dtype: torch.dtype,
    tile_above_pixels: int,
) -> dict[str, Fidelity]:
    """By weights ("raw", "ema"): means over the samples. The latent is the posterior's mean."""
    found = {}
    for name, network in subject.networks.items():
        device = next(network.parameters()).device
        speed_up(network, dtype)
        videos = (to_video(sample.tensors["pixels"], device) for sample in samples)
        through = partial(round_trip, network, dtype=dtype, tile_above_pixels=tile_above_pixels)
        found[name] = measure(through, videos)
    return found


@torch.no_grad()
def round_trip(
    vae: CausalVAE, video_BCTHW: Tensor, *, dtype: torch.dtype, tile_above_pixels: int
) -> Tensor:
    """Encode and decode; in tiles above that many pixels (frames x height x width)."""
    before = vae.tiling
    if video_BCTHW[0, 0].numel() > tile_above_pixels:
        vae.enable_tiling(TilingConfig())
    try:
        with compute.autocast(video_BCTHW.device, dtype):
            decoded: Tensor = vae.decode(vae.encode(video_BCTHW).mode())
    finally:
        vae.tiling = before
    return decoded
