"""The linear autoencoder that a VAE is compared with.

Shape suffixes: B batch, C channels, T frames, H height, W width, P patch values, K latent values.
"""

from collections.abc import Iterable

import torch
from torch import Tensor


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
