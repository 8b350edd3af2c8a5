"""TransNetV2: shot boundaries from 100 frames of 48 x 27 pixels, in its inference form.

Architecture: Soucek and Lokoc, arXiv 2008.04838 (released weights: MIT). Three stacks of two
dilated cells; a cell holds four separable 3D convolutions (spatial 3 x 3, then temporal 3 at
dilations 1, 2, 4, 8) side by side. Each frame's similarity to its 50 neighbours on either side,
once by learned features and once by color histograms, joins the last features.

Two rearrangements leave the function as it is and suit CPU kernels, which are fast in 2D only: the
four spatial convolutions of a cell, which see the same input, are one; and batch norm is folded
into the temporal convolutions.

Shape suffixes: N batch, T frames, C channels, H, W; P = N * T, S = H * W.
"""

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

NUM_FRAMES = 100
HEIGHT = 27
WIDTH = 48
_DILATIONS = (1, 2, 4, 8)
_CELL_CHANNELS = (16, 32, 64)  # per dilation, of the three stacks
_SIMILARITY_RADIUS = 50
_SIMILARITY_CHANNELS = 128
_HIDDEN_CHANNELS = 1024
_HISTOGRAM_BINS = 512  # 3 bits per color
_BATCH_NORM_EPS = 1e-3


class TransNetV2(nn.Module):
    """Probabilities (cut_NT, transition_NT): the middle frame of a boundary, and any frame of it.

    `frames_NTHWC`: uint8 RGB, N x T x 27 x 48 x 3. For a hard cut the last frame before it counts
    as its middle. The outer quarter of a window lacks context and is of less use.
    """

    def __init__(self) -> None:
        super().__init__()
        in_channels = 3
        stacks: list[nn.Module] = []
        feature_channels = 0
        for cell_channels in _CELL_CHANNELS:
            stacks.append(_Stack(in_channels, cell_channels))
            in_channels = cell_channels * len(_DILATIONS)
            feature_channels += in_channels
        self.stacks = nn.ModuleList(stacks)
        self.feature_projection = nn.Linear(feature_channels, _SIMILARITY_CHANNELS)
        window = 2 * _SIMILARITY_RADIUS + 1
        self.feature_similarity = nn.Linear(window, _SIMILARITY_CHANNELS)
        self.histogram_similarity = nn.Linear(window, _SIMILARITY_CHANNELS)
        last_pixels = (HEIGHT // 8) * (WIDTH // 8)
        self.hidden = nn.Linear(
            in_channels * last_pixels + 2 * _SIMILARITY_CHANNELS, _HIDDEN_CHANNELS
        )
        self.cut = nn.Linear(_HIDDEN_CHANNELS, 1)
        self.transition = nn.Linear(_HIDDEN_CHANNELS, 1)

    def forward(self, frames_NTHWC: Tensor) -> tuple[Tensor, Tensor]:
        num_samples, num_frames = frames_NTHWC.shape[:2]
        x_PCHW = frames_NTHWC.flatten(0, 1).permute(0, 3, 1, 2).float() / 255.0
        means: list[Tensor] = []
        for stack in self.stacks:
            x_PCHW = stack(x_PCHW, num_frames)
            means.append(x_PCHW.mean(dim=(2, 3)))
        features_NTC = self.feature_projection(torch.cat(means, dim=1)).reshape(
            num_samples, num_frames, _SIMILARITY_CHANNELS
        )
        pixels_NTC = x_PCHW.permute(0, 2, 3, 1).reshape(num_samples, num_frames, -1)
        parts = (
            F.relu(self.histogram_similarity(_neighbor_cosines(_color_histograms(frames_NTHWC)))),
            F.relu(self.feature_similarity(_neighbor_cosines(features_NTC))),
            pixels_NTC,
        )
        hidden = F.relu(self.hidden(torch.cat(parts, dim=2)))
        return self.cut(hidden).squeeze(2).sigmoid(), self.transition(hidden).squeeze(2).sigmoid()

    @classmethod
    def from_released(cls, state: Mapping[str, Tensor]) -> "TransNetV2":
        """The published PyTorch state dict as this network, in eval mode.

        Raises ValueError when a weight is missing, left over, or of another shape.
        """
        rest = dict(state)
        try:
            model = cls()
            model.load_state_dict(_converted(rest), strict=True)
        except (KeyError, RuntimeError) as error:
            raise ValueError(f"not the released TransNetV2 weights: {error}") from error
        if rest:
            raise ValueError(f"not the released TransNetV2 weights: unknown {sorted(rest)[:3]}")
        return model.eval()


class _Stack(nn.Module):
    """Two cells, a shortcut around the second, and 2 x 2 pooling."""

    def __init__(self, in_channels: int, cell_channels: int) -> None:
        super().__init__()
        self.first = _DilatedCell(in_channels, cell_channels)
        self.second = _DilatedCell(cell_channels * len(_DILATIONS), cell_channels)

    def forward(self, x_PCHW: Tensor, num_frames: int) -> Tensor:
        x_PCHW = F.relu(self.first(x_PCHW, num_frames))
        x_PCHW = F.relu(self.second(x_PCHW, num_frames)) + x_PCHW
        return F.avg_pool2d(x_PCHW, 2)


class _DilatedCell(nn.Module):
    def __init__(self, in_channels: int, cell_channels: int) -> None:
        super().__init__()
        middle = 2 * cell_channels
        self.spatial = nn.Conv2d(in_channels, middle * len(_DILATIONS), 3, padding=1, bias=False)
        self.temporal = nn.ModuleList(
            nn.Conv2d(middle, cell_channels, (3, 1), dilation=(d, 1), padding=(d, 0))
            for d in _DILATIONS
        )

    def forward(self, x_PCHW: Tensor, num_frames: int) -> Tensor:
        height, width = x_PCHW.shape[2:]
        x_PCHW = self.spatial(x_PCHW)
        x_NTCS = x_PCHW.reshape(-1, num_frames, x_PCHW.shape[1], height * width)
        branches = x_NTCS.transpose(1, 2).chunk(len(_DILATIONS), dim=1)
        mixed = [conv(branch) for conv, branch in zip(self.temporal, branches, strict=True)]
        x_NCTS = torch.cat(mixed, dim=1)
        return x_NCTS.transpose(1, 2).reshape(-1, x_NCTS.shape[1], height, width)


def _neighbor_cosines(x_NTC: Tensor) -> Tensor:
    """Cosine of each frame to frames t - 50 .. t + 50, 0 where there is none: N x T x 101.

    Row t of the padded cosine matrix holds them from column t on. Read with rows one longer, the
    same numbers are a plain left-aligned block, so no gather is needed.
    """
    num_frames = x_NTC.shape[1]
    radius = _SIMILARITY_RADIUS
    x_NTC = F.normalize(x_NTC, dim=2)
    cosines = F.pad(x_NTC @ x_NTC.transpose(1, 2), (radius, radius))
    flat = F.pad(cosines.flatten(1), (0, num_frames))
    return flat.reshape(-1, num_frames, num_frames + 2 * radius + 1)[:, :, : 2 * radius + 1]


def _color_histograms(frames_NTHWC: Tensor) -> Tensor:
    """Counts of the 512 coarse colors of each frame: N x T x 512."""
    coarse = (frames_NTHWC.flatten(2, 3) // 32).long()
    bins = coarse[..., 0] * 64 + coarse[..., 1] * 8 + coarse[..., 2]
    counts = torch.zeros(*bins.shape[:2], _HISTOGRAM_BINS)
    return counts.scatter_add(2, bins, torch.ones_like(bins, dtype=torch.float32))


def _converted(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Weights by this network's names; takes what it uses out of `state`."""
    weights: dict[str, Tensor] = {}
    for stack in range(len(_CELL_CHANNELS)):
        for cell, name in enumerate(("first", "second")):
            source, target = f"SDDCNN.{stack}.DDCNN.{cell}", f"stacks.{stack}.{name}"
            _convert_cell(state, source, weights, target)
    for source, target in (
        ("frame_sim_layer.projection", "feature_projection"),
        ("frame_sim_layer.fc", "feature_similarity"),
        ("color_hist_layer.fc", "histogram_similarity"),
        ("fc1", "hidden"),
        ("cls_layer1", "cut"),
        ("cls_layer2", "transition"),
    ):
        for kind in ("weight", "bias"):
            weights[f"{target}.{kind}"] = state.pop(f"{source}.{kind}")
    return weights


def _convert_cell(
    state: dict[str, Tensor], source: str, weights: dict[str, Tensor], target: str
) -> None:
    state.pop(f"{source}.bn.num_batches_tracked")
    scale = state.pop(f"{source}.bn.weight") / torch.sqrt(
        state.pop(f"{source}.bn.running_var") + _BATCH_NORM_EPS
    )
    shift = state.pop(f"{source}.bn.bias") - state.pop(f"{source}.bn.running_mean") * scale
    scales, shifts = scale.chunk(len(_DILATIONS)), shift.chunk(len(_DILATIONS))
    spatial: list[Tensor] = []
    for index, dilation in enumerate(_DILATIONS):
        layers = f"{source}.Conv3D_{dilation}.layers"
        spatial.append(state.pop(f"{layers}.0.weight").squeeze(2))
        temporal = state.pop(f"{layers}.1.weight").squeeze(4)
        weights[f"{target}.temporal.{index}.weight"] = temporal * scales[index][:, None, None, None]
        weights[f"{target}.temporal.{index}.bias"] = shifts[index]
    weights[f"{target}.spatial.weight"] = torch.cat(spatial)
