"""The losses that train the VAE: L1 + 0.1 perceptual + 0.05 adversarial + 1e-6 KL.

Weights: HunyuanVideo, arXiv:2412.03603, section 4.1. The paper does not say how the terms are
reduced, and that matters: latent-diffusion code sums L1 and KL over everything and divides both by
the batch size, and 1e-6 belongs to that convention. Here L1, perceptual and adversarial terms are
means, so the KL (a sum over the latent) is divided by the number of values of the input video. The
ratio of KL to L1 is then that of the summed convention, whatever the size.

Shape suffixes: B batch, C channels, T frames, H height, W width.
"""

import logging
import math
from dataclasses import dataclass, fields
from typing import Annotated, Literal, cast

import torch
from pydantic import Field
from torch import Tensor, nn

from modeling.discriminator import (
    hinge_discriminator_loss,
    hinge_generator_loss,
    r1_penalty,
)
from modeling.gaussian import DiagonalGaussian
from modeling.perceptual import frame_distance
from schemas.base import StrictModel

logger = logging.getLogger(__name__)

NonNegative = Annotated[float, Field(ge=0)]

_ADAPTIVE_EPS = 1e-4
_MAX_ADAPTIVE_WEIGHT = 1e4


class VaeLossConfig(StrictModel):
    """The paper's four weights, and what it leaves open (start, adaptive weight, R1: ours).

    `adversarial_start` is the step at which the discriminator's verdict enters the VAE's loss; the
    discriminator itself trains from `discriminator_start`. With `adversarial_mode` "adaptive" the
    weight is multiplied by the ratio of gradient norms at the decoder's last layer (Esser et al.,
    arXiv:2012.09841); "fixed" uses it as it is. `perceptual_frames` bounds how many frames of a
    clip, drawn at random, the perceptual term looks at; None is all of them.
    """

    l1_weight: NonNegative = 1.0
    perceptual_weight: NonNegative = 0.1
    adversarial_weight: NonNegative = 0.05
    kl_weight: NonNegative = 1e-6
    adversarial_start: Annotated[int, Field(ge=0)] = 5000
    discriminator_start: Annotated[int, Field(ge=0)] = 4000
    adversarial_mode: Literal["fixed", "adaptive"] = "adaptive"
    perceptual_frames: Annotated[int, Field(gt=0)] | None = None
    r1_weight: NonNegative = 0.0
    r1_every: Annotated[int, Field(gt=0)] = 16
    max_frame_interval: Annotated[int, Field(gt=0)] = 8


@dataclass(frozen=True, slots=True)
class LossTerms:
    """Unweighted terms (scalars) and their weighted sum. `adversarial_weight` is as applied."""

    total: Tensor
    l1: Tensor
    perceptual: Tensor
    adversarial: Tensor
    kl: Tensor
    adversarial_weight: Tensor

    def to_floats(self) -> dict[str, float]:
        """For a log line. Waits for the device."""
        return {f.name: float(getattr(self, f.name).detach()) for f in fields(self)}


def kl_per_value(posterior: DiagonalGaussian, num_values: int) -> Tensor:
    """KL to the standard normal, summed over the latent, divided by the video's num_values."""
    in_float32 = DiagonalGaussian(posterior.mean.float(), posterior.logvar.float())
    return in_float32.kl().sum() / num_values


def adaptive_weight(reconstruction_loss: Tensor, adversarial_loss: Tensor, last: Tensor) -> Tensor:
    """How much larger the reconstruction's gradient is than the adversarial one, at `last`.

    Detached and clamped to [0, 1e4]. `last` is the weight of the decoder's last layer.
    """
    (reconstruction,) = torch.autograd.grad(reconstruction_loss, last, retain_graph=True)
    (adversarial,) = torch.autograd.grad(adversarial_loss, last, retain_graph=True)
    ratio = reconstruction.float().norm() / (adversarial.float().norm() + _ADAPTIVE_EPS)
    return cast(Tensor, ratio.clamp(0, _MAX_ADAPTIVE_WEIGHT).detach())


class VaeLoss:
    """Both sides of the VAE's training. Call `generator`, step the VAE; then `discriminator`.

    Args:
        config: the weights and the starts.
        perceptual: picture distance, (N, C, H, W) twice to (N,), or None.
        discriminator: or None for training without one.

    """

    def __init__(
        self,
        config: VaeLossConfig,
        *,
        perceptual: nn.Module | None,
        discriminator: nn.Module | None,
    ) -> None:
        self.config = config
        self._perceptual = perceptual
        self._discriminator = discriminator

    def generator(
        self,
        video_BCTHW: Tensor,
        decoded_BCTHW: Tensor,
        posterior: DiagonalGaussian,
        *,
        step: int,
        last_layer: Tensor,
    ) -> LossTerms:
        """The VAE's loss for one batch; `step` counts optimizer steps from 0."""
        if video_BCTHW.shape != decoded_BCTHW.shape:
            raise ValueError(
                f"video is {tuple(video_BCTHW.shape)}, its reconstruction "
                f"{tuple(decoded_BCTHW.shape)}"
            )
        config = self.config
        zero = video_BCTHW.new_zeros((), dtype=torch.float32)
        l1 = (video_BCTHW.float() - decoded_BCTHW.float()).abs().mean()
        kl = kl_per_value(posterior, video_BCTHW.numel())
        perceptual = zero
        if self._perceptual is not None and config.perceptual_weight > 0:
            chosen = self._drawn_frames(video_BCTHW)
            perceptual = frame_distance(
                self._perceptual, video_BCTHW[:, :, chosen], decoded_BCTHW[:, :, chosen]
            ).float()
        adversarial, weight = zero, zero
        reconstruction = config.l1_weight * l1 + config.perceptual_weight * perceptual
        if self._judges(step):
            assert self._discriminator is not None
            adversarial = hinge_generator_loss(self._discriminator(decoded_BCTHW).float())
            weight = torch.full_like(zero, config.adversarial_weight)
            if config.adversarial_mode == "adaptive":
                weight = weight * adaptive_weight(reconstruction, adversarial, last_layer)
        return LossTerms(
            total=reconstruction + config.kl_weight * kl + weight * adversarial,
            l1=l1,
            perceptual=perceptual,
            adversarial=adversarial,
            kl=kl,
            adversarial_weight=weight,
        )

    def discriminator(
        self, video_BCTHW: Tensor, decoded_BCTHW: Tensor, *, step: int
    ) -> Tensor | None:
        """The discriminator's loss, or None before its start. The VAE gets no gradient of it."""
        if self._discriminator is None or step < self.config.discriminator_start:
            return None
        real, fake = video_BCTHW.detach(), decoded_BCTHW.detach()
        loss = hinge_discriminator_loss(
            self._discriminator(real).float(), self._discriminator(fake).float()
        )
        if self.config.r1_weight > 0 and step % self.config.r1_every == 0:
            penalty = r1_penalty(self._discriminator, real)
            # Lazy regularization (arXiv:1912.04958): weighed up by how seldom it is applied.
            loss = loss + self.config.r1_weight * self.config.r1_every * penalty
        return loss

    def _drawn_frames(self, video_BCTHW: Tensor) -> Tensor:
        num_frames = video_BCTHW.shape[2]
        wanted = min(self.config.perceptual_frames or num_frames, num_frames)
        drawn = torch.randperm(num_frames)[:wanted].sort().values
        return drawn.to(video_BCTHW.device)

    def _judges(self, step: int) -> bool:
        return (
            self._discriminator is not None
            and self.config.adversarial_weight > 0
            and step >= self.config.adversarial_start
        )


class NonFiniteLossError(ArithmeticError):
    """Too many losses in a row were NaN or infinite."""


class NanGuard:
    """Says whether a step may be taken, and gives up when losses stay bad.

    One bad batch is skipped with a warning; `max_in_a_row` bad ones mean that the weights or the
    settings are broken, and going on would only burn time.
    """

    def __init__(self, max_in_a_row: int = 5) -> None:
        self._max_in_a_row = max_in_a_row
        self.bad_in_a_row = 0
        self.num_skipped = 0

    def allows(self, values: dict[str, float], *, step: int) -> bool:
        """False when any value is not finite: skip this update. Raises NonFiniteLossError."""
        bad = [name for name, value in values.items() if not math.isfinite(value)]
        if not bad:
            self.bad_in_a_row = 0
            return True
        self.bad_in_a_row += 1
        self.num_skipped += 1
        described = ", ".join(f"{name} = {values[name]}" for name in bad)
        if self.bad_in_a_row >= self._max_in_a_row:
            raise NonFiniteLossError(
                f"{self.bad_in_a_row} losses in a row were not finite; at step {step}: {described}"
            )
        logger.warning("step %d skipped: %s", step, described)
        return False


def draw_frame_interval(
    num_available: int, num_wanted: int, *, max_interval: int = 8, generator: torch.Generator
) -> tuple[int, int]:
    """First frame and interval of a training clip: uniform over the intervals that fit.

    The paper draws the interval from 1 to 8, so that the VAE sees fast motion too; a clip that is
    too short for 8 gets the largest that fits.
    """
    if num_available < num_wanted:
        raise ValueError(f"the clip has {num_available} frames, {num_wanted} are wanted")
    largest = max_interval
    if num_wanted > 1:
        largest = min(max_interval, (num_available - 1) // (num_wanted - 1))
    interval = int(torch.randint(1, largest + 1, (), generator=generator))
    num_starts = num_available - (num_wanted - 1) * interval
    return int(torch.randint(num_starts, (), generator=generator)), interval
