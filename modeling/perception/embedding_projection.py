"""Fit the projection of the clip embedding on pictures and edited copies of them.

Two steps, closed form, after "learned whitening" (Mikolajczyk and Matas, ICCV 2007; Radenovic et
al., arXiv 1711.02512): whiten what a mere edit changes (the covariance within the copies of a
picture), then rotate to the principal directions in which pictures differ and keep the first D.

Shape letters: P pictures, V views of each (the first is the picture itself), C channels.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Generator, Tensor
from torchvision.transforms import v2  # type: ignore[import-untyped]

_SHRINKAGE = 0.1  # share of isotropic covariance: there are fewer pictures than channels
Edit = Callable[[Tensor], Tensor]


@dataclass(frozen=True, slots=True)
class Projection:
    mean_C: Tensor
    matrix_CD: Tensor


def fit_projection(features_PVC: Tensor, num_dimensions: int) -> Projection:
    """In float64. Raises ValueError for fewer pictures than dimensions."""
    features_PVC = features_PVC.double()
    num_pictures, _, num_channels = features_PVC.shape
    if num_pictures <= num_dimensions:
        raise ValueError(f"{num_pictures} pictures cannot span {num_dimensions} dimensions")
    clean_PC = features_PVC[:, 0]
    mean_C = clean_PC.mean(dim=0)
    change_MC = (features_PVC[:, 1:] - clean_PC[:, None]).reshape(-1, num_channels)
    within_CC = change_MC.T @ change_MC / len(change_MC)
    isotropic = within_CC.diagonal().mean() * torch.eye(num_channels, dtype=torch.float64)
    within_CC = (1 - _SHRINKAGE) * within_CC + _SHRINKAGE * isotropic
    values, vectors = torch.linalg.eigh(within_CC)
    whiten_CC = vectors @ torch.diag(values.rsqrt()) @ vectors.T
    whitened_PC = (clean_PC - mean_C) @ whiten_CC
    _, directions = torch.linalg.eigh(whitened_PC.T @ whitened_PC)
    matrix_CD = whiten_CC @ directions.flip(1)[:, :num_dimensions]
    # A sign of its own for each direction: eigenvectors come with any.
    signs_D = matrix_CD.gather(0, matrix_CD.abs().argmax(dim=0, keepdim=True)).sign()
    return Projection(mean_C.float(), (matrix_CD * signs_D).float())


def edited_views(picture_HWC: Tensor, num_edits: int, side: int, generator: Generator) -> Tensor:
    """The picture and copies of it with up to three edits each: V x side x side x 3, uint8."""
    picture_CHW = picture_HWC.permute(2, 0, 1)
    views = [picture_CHW]
    for _ in range(num_edits):
        copy = picture_CHW
        order = torch.randperm(len(_EDITS), generator=generator)
        for index in order[: int(torch.randint(1, 4, (), generator=generator))]:
            copy = _EDITS[int(index)](copy, generator)
        views.append(copy)
    sized = [_resized(view, side, side) for view in views]
    return torch.stack(sized).permute(0, 2, 3, 1).contiguous()


def _resized(picture_CHW: Tensor, height: int, width: int) -> Tensor:
    resized = F.interpolate(
        picture_CHW[None].float(), (height, width), mode="bilinear", antialias=True
    )
    return resized[0].round().clamp(0, 255).byte()


def _uniform(low: float, high: float, generator: Generator) -> float:
    return low + (high - low) * float(torch.rand((), generator=generator))


def _crop(picture_CHW: Tensor, generator: Generator) -> Tensor:
    height, width = picture_CHW.shape[1:]
    share = _uniform(0.7, 0.95, generator)
    top = int(_uniform(0, (1 - share) * height, generator))
    left = int(_uniform(0, (1 - share) * width, generator))
    return picture_CHW[:, top : top + int(share * height), left : left + int(share * width)]


def _bars(picture_CHW: Tensor, generator: Generator) -> Tensor:
    height, width = picture_CHW.shape[1:]
    if _uniform(0, 1, generator) < 0.5:
        return F.pad(picture_CHW, (0, 0, *[int(_uniform(0.05, 0.17, generator) * height)] * 2))
    return F.pad(picture_CHW, [int(_uniform(0.05, 0.17, generator) * width)] * 2)


def _tone(picture_CHW: Tensor, generator: Generator) -> Tensor:
    gain, gamma = _uniform(0.7, 1.3, generator), _uniform(0.6, 1.6, generator)
    return (255 * (gain * (picture_CHW / 255) ** gamma).clamp(0, 1)).round().byte()


def _blur(picture_CHW: Tensor, generator: Generator) -> Tensor:
    height, width = picture_CHW.shape[1:]
    factor = _uniform(0.2, 0.6, generator)
    small = _resized(picture_CHW, int(height * factor), int(width * factor))
    return _resized(small, height, width)


def _jpeg(picture_CHW: Tensor, generator: Generator) -> Tensor:
    quality = int(_uniform(10, 50, generator))
    coded: Tensor = v2.functional.jpeg(picture_CHW, quality)
    return coded


def _noise(picture_CHW: Tensor, generator: Generator) -> Tensor:
    noise = torch.randn(picture_CHW.shape, generator=generator) * _uniform(4, 16, generator)
    return (picture_CHW + noise).round().clamp(0, 255).byte()


def _gray(picture_CHW: Tensor, generator: Generator) -> Tensor:
    weights = torch.tensor([0.299, 0.587, 0.114])[:, None, None]
    return (picture_CHW * weights).sum(0, keepdim=True).round().byte().expand(3, -1, -1)


def _flip(picture_CHW: Tensor, generator: Generator) -> Tensor:
    return picture_CHW.flip(2)


def _patch(picture_CHW: Tensor, generator: Generator) -> Tensor:
    """A bright block near an edge, as logos and captions are."""
    height, width = picture_CHW.shape[1:]
    marked = picture_CHW.clone()
    tall, wide = int(_uniform(0.05, 0.15, generator) * height), int(0.3 * width)
    top = int(_uniform(0.02, 0.1, generator) * height)
    top = top if _uniform(0, 1, generator) < 0.5 else height - top - tall
    left = int(_uniform(0.02, 0.65, generator) * width)
    marked[:, top : top + tall, left : left + wide] = int(_uniform(180, 255, generator))
    return marked


_EDITS = (_crop, _bars, _tone, _blur, _jpeg, _noise, _gray, _flip, _patch)
