"""Validation loss of a DiT by noise level, with fixed noise.

Shape suffixes: B batch (here the noise levels of one sample), C channels, T frames, H height,
W width.
"""

from collections.abc import Iterable

import torch
from torch import Tensor

from modeling.data.draw import normal_like, share
from modeling.dit import VideoDiT
from modeling.evaluate.samples import Sample
from modeling.evaluate.subject import DitSubject
from modeling.flow_matching import interpolate, velocity_loss
from modeling.text_encoder import Medium, TextEncoding
from modeling.train import compute
from modeling.train.parts import to_video
from schemas.base import StrictModel
from schemas.tier import Bucket


class BinnedLoss(StrictModel):
    """Mean squared error of the velocity. Bin k holds sigmas in [k, k + 1) / num_bins."""

    num_samples: int
    loss: float
    loss_by_bin: tuple[float, ...]


@torch.no_grad()
def binned_losses(
    subject: DitSubject,
    samples: Iterable[Sample],
    bucket: Bucket,
    *,
    num_bins: int,
    seed: int,
    dtype: torch.dtype,
) -> dict[str, BinnedLoss]:
    """By weights ("raw", "ema"). All of them see the same noise, sigmas and texts.

    Latents are means of the posterior. A network with a guidance embedding is asked at scale 1.
    """
    device = next(next(iter(subject.networks.values())).parameters()).device
    rows: dict[str, list[Tensor]] = {name: [] for name in subject.networks}
    for sample in samples:
        latent = _latent(subject, sample, device, dtype) * subject.vae.config.scaling_factor
        keys = tuple(f"{sample.key}.{k}" for k in range(num_bins))
        noise = normal_like(
            tuple(latent.shape[1:]), seed=seed, keys=keys, step=0, stream="evaluation noise"
        ).to(device)
        inside = [share(seed=seed, key=key, step=0, stream="evaluation sigma") for key in keys]
        sigma_B = torch.tensor([(k + part) / num_bins for k, part in enumerate(inside)])
        sigma_B = sigma_B.to(device)
        medium: Medium = "image" if bucket.num_frames == 1 else "video"
        text = subject.text_encoder([sample.text], medium=medium, allow_empty=True, cut_long=True)
        for name, network in subject.networks.items():
            losses = []
            for k in range(num_bins):  # one at a time: memory as for sampling
                one = slice(k, k + 1)
                x = interpolate(latent, noise[one], sigma_B[one])
                with compute.autocast(device, dtype):
                    predicted = network(x, sigma_B[one], *_conditions(network, text))
                losses.append(velocity_loss(predicted, latent, noise[one]))
            rows[name].append(torch.cat(losses).double().cpu())
    return {name: _mean(torch.stack(found)) for name, found in rows.items()}


def _conditions(
    network: VideoDiT, text: TextEncoding
) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
    guidance_B = None
    if network.config.guidance_embeds:
        guidance_B = torch.ones(1, device=text.states_BLD.device)
    return text.states_BLD, text.lengths_B.cpu(), text.pooled_BD, guidance_B


def _latent(
    subject: DitSubject, sample: Sample, device: torch.device, dtype: torch.dtype
) -> Tensor:
    if "mean" in sample.tensors:
        return sample.tensors["mean"].to(device).float()
    with compute.autocast(device, dtype):
        posterior = subject.vae.encode(to_video(sample.tensors["pixels"], device))
    return posterior.mean.float()


def _mean(losses_NB: Tensor) -> BinnedLoss:
    by_bin = tuple(round(float(value), 6) for value in losses_NB.mean(0))
    return BinnedLoss(
        num_samples=len(losses_NB), loss=round(float(losses_NB.mean()), 6), loss_by_bin=by_bin
    )
