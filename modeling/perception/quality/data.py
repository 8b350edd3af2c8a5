"""Groups of one picture part at growing degradation, as `benchmarks/quality_pictures.py` writes.

Shape letters: G groups, L levels (the part as it is, then six), H, W height and width.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

# The kinds that a group can hold, in the order of its labels.
KINDS = (
    "gaussian_blur",
    "defocus",
    "motion_blur",
    "enlarged",
    "noise",
    "banding",
    "jpeg",
    "h264",
)
BLURLESS_KINDS = (4, 5)  # noise and banding take no detail away; how much a codec takes is unknown
_SIMILAR = 170.0  # of 8-bit gradients, squared: below it, differences are not seen


@dataclass(frozen=True, slots=True)
class Groups:
    """`label_GL3`: first kind, second kind or -1, blur sigma in px (0 where none is added)."""

    luma_GLHW: NDArray[np.uint8]
    label_GL3: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.luma_GLHW)


@dataclass(frozen=True, slots=True)
class Batch:
    luma_GLHW: Tensor  # float, 0 to 255
    kinds_GLK: Tensor  # 1 where the kind was applied
    sigma_GL: Tensor
    is_sigma_known_G: Tensor
    similarity_GL: Tensor  # of the gradients to those of the part as it is, in [0, 1]


def read_groups(folder: Path, split: str) -> Groups:
    """Raises FileNotFoundError where there is none."""
    paths = sorted(folder.glob(f"{split}-[0-9]*.npz"))
    paths = [path for path in paths if ".partial" not in path.name]
    if not paths:
        raise FileNotFoundError(f"no groups of split {split!r} in {folder}")
    files = [np.load(path) for path in paths]
    return Groups(
        np.concatenate([file["luma"] for file in files]),
        np.concatenate([file["label"] for file in files]),
    )


def batches(
    groups: Groups, rng: np.random.Generator, *, size: int, side_px: int
) -> Iterator[Batch]:
    """Each group once, in a drawn order, each a drawn part, turned and mirrored."""
    order = rng.permutation(len(groups))
    for start in range(0, len(order) - size + 1, size):
        chosen = order[start : start + size]
        lumas = [_part(groups.luma_GLHW[index], rng, side_px) for index in chosen]
        yield as_batch(np.stack(lumas), groups.label_GL3[chosen])


def as_batch(luma_GLHW: NDArray[np.uint8], label_GL3: NDArray[np.float32]) -> Batch:
    luma = torch.from_numpy(luma_GLHW).float()
    label = torch.from_numpy(label_GL3)
    kinds = torch.zeros(*label.shape[:2], len(KINDS))
    for place in (0, 1):
        kind_GL = label[..., place].long()
        kinds += F.one_hot(kind_GL.clamp(min=0), len(KINDS)) * (kind_GL >= 0)[..., None]
    last_G2 = label[:, -1, :2].long()
    is_codec = (last_G2 > max(BLURLESS_KINDS)).any(dim=1)
    return Batch(luma, kinds.clamp(max=1), label[..., 2], ~is_codec, gradient_similarity(luma))


def gradient_similarity(luma_GLHW: Tensor) -> Tensor:
    """Mean similarity of gradients to the first level's (Xue et al., arXiv 1308.3052), G x L."""
    groups, levels = luma_GLHW.shape[:2]
    small = F.avg_pool2d(luma_GLHW.flatten(0, 1)[:, None], 2)
    slope = torch.tensor([[1.0, 0.0, -1.0]] * 3) / 3
    kernels = torch.stack([slope, slope.T])[:, None]
    magnitude = F.conv2d(small, kernels).square().sum(dim=1).sqrt()
    magnitude = magnitude.reshape(groups, levels, *magnitude.shape[1:])
    first = magnitude[:, :1]
    similar = (2 * first * magnitude + _SIMILAR) / (first.square() + magnitude.square() + _SIMILAR)
    return similar.mean(dim=(2, 3))


def _part(luma_LHW: NDArray[np.uint8], rng: np.random.Generator, side_px: int) -> NDArray[np.uint8]:
    top, left = rng.integers(0, luma_LHW.shape[1] - side_px + 1, 2)
    part = luma_LHW[:, top : top + side_px, left : left + side_px]
    # Blocks of a codec stay upright, so no turn by an odd angle; mirrored they look alike.
    part = part[:, :, ::-1] if rng.random() < 0.5 else part
    part = part[:, ::-1] if rng.random() < 0.5 else part
    return np.ascontiguousarray(part)
