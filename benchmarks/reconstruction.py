"""How well an autoencoder gives a clip back, and the linear autoencoder to compare it with.

Shape suffixes: B batch, C channels, T frames, H height, W width, P patch values, K latent values.
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


class PcaAutoencoder:
    """The best linear autoencoder of the same latent size, block by block.

    Exactly the VAE's budget: the first frame's 8 x 8 blocks and, after it, blocks of 4 frames by
    8 x 8, each projected on `num_latent` principal components.
    """

    def __init__(self, videos: Iterable[Tensor], num_latent: int = 16) -> None:
        self._num_latent = num_latent
        videos = list(videos)
        self._first = self._fit(torch.cat([_blocks(v[:, :, :1], 1) for v in videos]))
        self._rest = self._fit(
            torch.cat([_blocks(v[:, :, 1:], 4) for v in videos if v.shape[2] > 1])
        )

    def __call__(self, video: Tensor) -> Tensor:
        parts = [self._through(video[:, :, :1], 1, self._first)]
        if video.shape[2] > 1:
            parts.append(self._through(video[:, :, 1:], 4, self._rest))
        return torch.cat(parts, dim=2)

    def _fit(self, blocks_NP: Tensor) -> tuple[Tensor, Tensor]:
        mean_P = blocks_NP.mean(0)
        centred_NP = blocks_NP - mean_P
        _, vectors_PP = torch.linalg.eigh(centred_NP.T @ centred_NP)
        return mean_P, vectors_PP[:, -self._num_latent :]

    def _through(self, video: Tensor, depth: int, basis: tuple[Tensor, Tensor]) -> Tensor:
        mean_P, vectors_PK = basis
        blocks_NP = _blocks(video, depth)
        decoded_NP = mean_P + (blocks_NP - mean_P) @ vectors_PK @ vectors_PK.T
        return _unblocks(decoded_NP, video.shape, depth)


def _blocks(video: Tensor, depth: int) -> Tensor:
    """Cut (B, C, T, H, W) into rows of depth x 8 x 8 x C values, in float64."""
    b, c, t, h, w = video.shape
    cut = video.float().reshape(b, c, t // depth, depth, h // 8, 8, w // 8, 8)
    return cut.permute(0, 2, 4, 6, 1, 3, 5, 7).flatten(0, 3).flatten(1).double()


def _unblocks(blocks_NP: Tensor, shape: torch.Size, depth: int) -> Tensor:
    b, c, t, h, w = shape
    cut = blocks_NP.reshape(b, t // depth, h // 8, w // 8, c, depth, 8, 8)
    return cut.permute(0, 4, 1, 5, 2, 6, 3, 7).reshape(shape)
