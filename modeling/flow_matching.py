"""Rectified flow between data and noise: the only file that owns the sign and direction of time.

sigma = 0 is data, sigma = 1 is noise, and the model predicts the velocity dx/dsigma:

    x_sigma = (1 - sigma) * data + sigma * noise
    velocity = noise - data

Source: Liu et al., arXiv:2209.03003, with time reversed as in SD3 (Esser et al., arXiv:2403.03206),
which is also the source of logit-normal sampling and of the shift. HunyuanVideo's text
(arXiv:2412.03603, 4.5.1) names the two ends the other way round; the mathematics is the same.
"""

import itertools
import math
from collections.abc import Callable
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor

from schemas.base import StrictModel

# velocity(x, sigma), where sigma is one number for the whole batch.
VelocityField = Callable[[Tensor, float], Tensor]

_SIGMA_MARGIN = 1e-5  # training sigmas stay inside (margin, 1 - margin)


class FlowConfig(StrictModel):
    """How sigmas are drawn in training.

    `shift` moves mass toward noise, which large latents need: a fixed number, or "resolution" for
    sqrt(tokens / base_tokens), never under 1. The paper states logit-normal sampling; its training
    shift is not published, so the default (none) and `base_tokens` (a 256x256 image: 16 x 16
    tokens) are ours.
    """

    distribution: Literal["logit_normal", "uniform"] = "logit_normal"
    logit_mean: float = 0.0
    logit_std: Annotated[float, Field(gt=0)] = 1.0
    stratified: bool = False
    shift: Annotated[float, Field(gt=0)] | Literal["resolution"] = 1.0
    base_tokens: Annotated[int, Field(gt=0)] = 256

    def shift_for(self, num_tokens: int) -> float:
        """The shift for samples of num_tokens DiT tokens (frames x height x width)."""
        if self.shift != "resolution":
            return self.shift
        return max(1.0, math.sqrt(num_tokens / self.base_tokens))


def _per_sample(sigma_B: Tensor, like: Tensor) -> Tensor:
    return sigma_B.view(-1, *[1] * (like.ndim - 1))


def interpolate(data: Tensor, noise: Tensor, sigma_B: Tensor) -> Tensor:
    """The noisy sample at sigma. `data` and `noise` are (B, ...), sigma_B is (B,) in [0, 1]."""
    sigma = _per_sample(sigma_B, data)
    return (1 - sigma) * data + sigma * noise


def velocity_target(data: Tensor, noise: Tensor) -> Tensor:
    """What the model must predict. It does not depend on sigma: the path is straight."""
    return noise - data


def data_estimate(x_sigma: Tensor, velocity: Tensor, sigma_B: Tensor) -> Tensor:
    """The data that a velocity implies, at sigma."""
    return x_sigma - _per_sample(sigma_B, x_sigma) * velocity


def noise_estimate(x_sigma: Tensor, velocity: Tensor, sigma_B: Tensor) -> Tensor:
    """The noise that a velocity implies, at sigma."""
    return x_sigma + (1 - _per_sample(sigma_B, x_sigma)) * velocity


def velocity_loss(predicted: Tensor, data: Tensor, noise: Tensor) -> Tensor:
    """Mean squared error per sample, shape (B,), always computed in at least float32."""
    dtype = torch.promote_types(predicted.dtype, torch.float32)
    error = predicted.to(dtype) - velocity_target(data.to(dtype), noise.to(dtype))
    return error.square().flatten(1).mean(1)


def shift_sigma(sigma: Tensor, shift: float) -> Tensor:
    """Keep 0 and 1, move the middle toward noise: shift * sigma / (1 + (shift - 1) * sigma)."""
    return shift * sigma / (1 + (shift - 1) * sigma)


def sample_sigma(
    batch_size: int,
    *,
    config: FlowConfig,
    generator: torch.Generator,
    num_tokens: int | None = None,
) -> Tensor:
    """Training sigmas, float32, shape (B,), strictly inside (0, 1), on the generator's device.

    Stratified draws take one sample from each of B equal slices of probability, in random order:
    the same distribution with less variance of the batch's loss. `num_tokens` is needed for the
    resolution-aware shift only.
    """
    device = generator.device
    quantile_B = torch.rand(batch_size, generator=generator, device=device, dtype=torch.float64)
    if config.stratified:
        slice_B = torch.randperm(batch_size, generator=generator, device=device)
        quantile_B = (slice_B + quantile_B) / batch_size
    if config.distribution == "uniform":
        sigma_B = quantile_B
    else:
        normal_B = torch.special.ndtri(quantile_B.clamp(1e-12, 1 - 1e-12))
        sigma_B = torch.sigmoid(config.logit_mean + config.logit_std * normal_B)
    if config.shift == "resolution" and num_tokens is None:
        raise ValueError("shift = 'resolution' needs num_tokens, got None")
    sigma_B = shift_sigma(sigma_B, config.shift_for(num_tokens or 0))
    return sigma_B.clamp(_SIGMA_MARGIN, 1 - _SIGMA_MARGIN).float()


def default_sampling_shift(num_steps: int) -> float:
    """The paper's choice (5.1): 7 for ordinary sampling, 17 under 20 steps."""
    return 17.0 if num_steps < 20 else 7.0


def sampling_sigmas(num_steps: int, shift: float | None = None) -> list[float]:
    """num_steps + 1 sigmas from 1 (noise) down to 0 (data), evenly spaced before the shift."""
    if num_steps < 1:
        raise ValueError(f"num_steps must be at least 1, got {num_steps}")
    if shift is None:
        shift = default_sampling_shift(num_steps)
    if shift <= 0:
        raise ValueError(f"shift must be positive, got {shift}")
    even = torch.linspace(1, 0, num_steps + 1, dtype=torch.float64)
    return [float(sigma) for sigma in shift_sigma(even, shift)]


def euler_step(x: Tensor, velocity: Tensor, sigma: float, next_sigma: float) -> Tensor:
    """Move from sigma to next_sigma; next_sigma < sigma removes noise."""
    return x + (next_sigma - sigma) * velocity


def heun_step(x: Tensor, velocity_at: VelocityField, sigma: float, next_sigma: float) -> Tensor:
    """Second-order step: the mean of the velocities at both ends. Euler's on the step to data.

    The exception keeps the model away from sigma = 0, which training never shows it.
    """
    velocity = velocity_at(x, sigma)
    guess = euler_step(x, velocity, sigma, next_sigma)
    if next_sigma == 0:
        return guess
    return euler_step(x, (velocity + velocity_at(guess, next_sigma)) / 2, sigma, next_sigma)


def integrate(
    velocity_at: VelocityField,
    noise: Tensor,
    sigmas: list[float],
    *,
    method: Literal["euler", "heun"] = "euler",
    on_step: Callable[[int], None] | None = None,
) -> Tensor:
    """Carry noise to data along the velocity field. The state is kept in the dtype of `noise`.

    Args:
        velocity_at: the model with its conditions already bound.
        noise: (B, ...), float32 recommended.
        sigmas: falling, from `sampling_sigmas`.
        method: "heun" asks the model twice a step, but for the last.
        on_step: called with the number of finished steps.

    """
    x = noise
    for step, (sigma, next_sigma) in enumerate(itertools.pairwise(sigmas), start=1):
        if method == "heun":
            x = heun_step(x, velocity_at, sigma, next_sigma).to(noise.dtype)
        else:
            x = euler_step(x, velocity_at(x, sigma), sigma, next_sigma).to(noise.dtype)
        if on_step is not None:
            on_step(step)
    return x


def classifier_free_guidance(conditional: Tensor, unconditional: Tensor, scale: float) -> Tensor:
    """Ho and Salimans, arXiv:2207.12598. Scale 1 is the conditional prediction, 0 the other."""
    return unconditional + scale * (conditional - unconditional)
