"""How well an autoencoder gives clips back, in 8-bit levels: what a viewer would get.

Shape suffixes: C channels, T frames, H height, W width.
"""

from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass

import numpy as np
import torch
from torch import Tensor

Autoencoder = Callable[[Tensor], Tensor]  # (B, 3, T, H, W) in [-1, 1] to the same


@dataclass(frozen=True)
class Fidelity:
    """Means over clips. `flicker` is 0 for single frames."""

    num_clips: int
    psnr_db: float
    psnr_db_min: float
    ssim: float
    flicker: float

    def to_json(self) -> dict[str, float]:
        return asdict(self)


def to_levels(video: Tensor) -> Tensor:
    """[-1, 1] to whole 8-bit levels, as float32: what a viewer would get."""
    return ((video.float().clamp(-1, 1) + 1) * 127.5).round()


def psnr_db(first: Tensor, second: Tensor) -> float:
    """Over all values of a clip, peak 255; inputs are 8-bit levels. Equal clips count as 100 dB."""
    error = float((first - second).square().mean())
    return 100.0 if error == 0 else float(10 * np.log10(255**2 / error))


def ssim(first_CTHW: Tensor, second_CTHW: Tensor) -> float:
    """Wang et al. 2004 with the Gaussian window (sigma 1.5), mean over frames and channels."""
    from skimage.metrics import structural_similarity

    values = [
        structural_similarity(  # type: ignore[no-untyped-call]
            a.numpy(),
            b.numpy(),
            data_range=255.0,
            channel_axis=0,
            gaussian_weights=True,
            sigma=1.5,
            use_sample_covariance=False,
        )
        for a, b in zip(first_CTHW.transpose(0, 1), second_CTHW.transpose(0, 1), strict=True)
    ]
    return float(np.mean(values))


def flicker(original: Tensor, decoded: Tensor) -> float:
    """Mean absolute error of the change from frame to frame, in 8-bit levels; time is dim -3."""
    if original.shape[-3] == 1:
        return 0.0
    return float((decoded.diff(dim=-3) - original.diff(dim=-3)).abs().mean())


@torch.no_grad()
def measure(autoencoder: Autoencoder, videos: Iterable[Tensor]) -> Fidelity:
    """Run every clip (1, 3, T, H, W) through the autoencoder and compare 8-bit levels."""
    rows = []
    for video in videos:
        original, decoded = to_levels(video).cpu()[0], to_levels(autoencoder(video)).cpu()[0]
        rows.append(
            (psnr_db(original, decoded), ssim(original, decoded), flicker(original, decoded))
        )
    table = np.array(rows)
    means = table.mean(0)
    return Fidelity(
        len(rows), float(means[0]), float(table[:, 0].min()), float(means[1]), float(means[2])
    )
