"""The posterior of the VAE: a Gaussian with a diagonal covariance.

Shape suffixes: B batch, C channels, T frames, H height, W width.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

# exp(-15) to exp(10) as a standard deviation: keeps exp() finite in half precision's range of use.
_MIN_LOGVAR, _MAX_LOGVAR = -30.0, 20.0


@dataclass(frozen=True)
class DiagonalGaussian:
    """mean and logvar have the shape of the latent, (B, C, T, H, W)."""

    mean: Tensor
    logvar: Tensor

    @classmethod
    def from_moments(cls, moments_BCTHW: Tensor) -> "DiagonalGaussian":
        """The first half of the channels is the mean, the second the log-variance (clamped)."""
        mean, logvar = moments_BCTHW.chunk(2, dim=1)
        return cls(mean, logvar.clamp(_MIN_LOGVAR, _MAX_LOGVAR))

    def sample(self, generator: torch.Generator | None = None) -> Tensor:
        """A draw, mean + std * noise. The noise is drawn on the generator's device, then moved."""
        device = self.mean.device if generator is None else generator.device
        noise = torch.randn(
            self.mean.shape, generator=generator, device=device, dtype=self.mean.dtype
        )
        return self.mean + torch.exp(0.5 * self.logvar) * noise.to(self.mean.device)

    def mode(self) -> Tensor:
        return self.mean

    def kl(self) -> Tensor:
        """KL divergence from the standard normal, summed over C, T, H, W: shape (B,), in nats."""
        per_element = self.mean.square() + self.logvar.exp() - 1 - self.logvar
        return 0.5 * per_element.flatten(1).sum(dim=1)
