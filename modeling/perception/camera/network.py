"""A small temporal network: from the motion of a clip's grid cells to the camera's movement.

Speeds span three decades, so each step is seen twice: on a compressed scale, and relative to the
clip's own mean speed, where parallax and perspective are a matter of percent. The relative motion
averaged over the clip has a branch of its own: depth shows in differences too small for one step.

Shape suffixes: N clips, S steps, F features, G grid cells, D channels.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from schemas.camera_network import CAMERA_CLASSES, GRID_COLUMNS, GRID_ROWS, NUM_CELLS

NUM_OUTPUTS = len(CAMERA_CLASSES) + 1
_WIDTH = 64
_PERCENT = 100.0
_LEAST_SPEED = 0.3  # percent of the diagonal per second; slower motion is not magnified further
_KNEE = 0.5  # of the compressed scale, percent per second


class CameraNet(nn.Module):
    """Logits and the logit of a dolly, from features in physical units."""

    def __init__(self) -> None:
        super().__init__()
        self.step_grid = _GridEncoder(5, 40, stride=2)
        self.clip_grid = _GridEncoder(7, 80, stride=1)
        self.step_mix = nn.Sequential(nn.Linear(40 + 18, _WIDTH), nn.GELU())
        self.temporal = nn.ModuleList(_TemporalBlock(_WIDTH, dilation) for dilation in (1, 2, 4, 8))
        self.attention = nn.Linear(_WIDTH, 1)
        self.head = nn.Sequential(
            nn.Linear(3 * _WIDTH + 80 + 23, 128), nn.GELU(), nn.Dropout(0.2),
            nn.Linear(128, NUM_OUTPUTS + 1),
        )  # fmt: skip

    def forward(self, steps_NSF: Tensor, is_step_NS: Tensor) -> tuple[Tensor, Tensor]:
        """`is_step_NS`: 1 for steps, 0 for padding behind a shorter clip."""
        num_clips, num_steps = steps_NSF.shape[:2]
        flow_NSF = steps_NSF[..., : 2 * NUM_CELLS]
        flow_NS2G = _PERCENT * flow_NSF.reshape(num_clips, num_steps, 2, NUM_CELLS)
        trust_NSG = steps_NSF[..., 2 * NUM_CELLS : 3 * NUM_CELLS]
        model_NS8 = _PERCENT * steps_NSF[..., 3 * NUM_CELLS : 3 * NUM_CELLS + 8]
        rest_NS3 = steps_NSF[..., 3 * NUM_CELLS + 8 :]
        weight_NS = is_step_NS / is_step_NS.sum(1, keepdim=True)

        size_NSG = (flow_NS2G.square().sum(2) + 1e-8).sqrt()
        speed_NS = size_NSG.mean(-1)
        speed_N = (weight_NS * speed_NS).sum(1) + _LEAST_SPEED
        residual_NS2G = flow_NS2G - _global_motion(model_NS8, rest_NS3[..., 2])
        relative_NS2G = residual_NS2G / (speed_NS + _LEAST_SPEED)[..., None, None]
        step_grid_NS5G = torch.cat(
            [_compress(flow_NS2G), relative_NS2G.clamp(-3, 3), trust_NSG[:, :, None]], 2
        )
        model_share_NS8 = (model_NS8 / (speed_NS + _LEAST_SPEED)[..., None]).clamp(-8, 8)
        scalars_NS18 = torch.cat(
            [_compress(model_NS8), model_share_NS8, rest_NS3[..., :1], 4 * rest_NS3[..., 1:2]], -1
        )
        x_NSD = self.step_mix(torch.cat([self.step_grid(step_grid_NS5G), scalars_NS18], -1))
        for block in self.temporal:
            x_NSD = block(x_NSD, is_step_NS)
        focus_NS = self.attention(x_NSD)[..., 0].masked_fill(is_step_NS == 0, -1e4).softmax(1)
        pooled = [
            torch.einsum("ns,nsc->nc", weight_NS, x_NSD),
            torch.einsum("ns,nsc->nc", focus_NS, x_NSD),
            x_NSD.masked_fill(is_step_NS[..., None] == 0, -1e4).amax(1),
        ]

        def over_clip(values: Tensor) -> Tensor:
            return torch.einsum("ns,ns...->n...", weight_NS, values)

        share_N2G = over_clip(flow_NS2G) / speed_N[:, None, None]
        residual_N2G = 4 * over_clip(residual_NS2G) / speed_N[:, None, None]
        spread_NG = over_clip(residual_NS2G.abs().sum(2)) / speed_N[:, None]
        ratio_NG = over_clip(size_NSG) / speed_N[:, None]
        clip_grid = torch.cat(
            [share_N2G, residual_N2G, spread_NG[:, None], ratio_NG[:, None],
             over_clip(trust_NSG)[:, None]], 1
        )  # fmt: skip
        mean_N8 = over_clip(model_NS8) / speed_N[:, None]
        change_N8 = over_clip((model_NS8 - over_clip(model_NS8)[:, None]).abs()) / speed_N[:, None]
        drift_N = over_clip(model_NS8[..., 0:4:3]).norm(dim=-1)
        path_N = over_clip(model_NS8[..., 0:4:3].norm(dim=-1)) + 1e-3
        summary_N23 = torch.cat(
            [mean_N8.clamp(-8, 8), change_N8.clamp(-8, 8), over_clip(rest_NS3),
             torch.stack([speed_N.log(), (drift_N / path_N), path_N.clamp(min=1e-3).log(),
                          (is_step_NS * rest_NS3[..., 1]).sum(1).clamp(min=1e-2).log()], 1)], 1
        )  # fmt: skip
        clip_NG = self.clip_grid(clip_grid.clamp(-4, 4)[:, None])[:, 0]
        out = self.head(torch.cat([*pooled, clip_NG, summary_N23], -1))
        return out[:, :NUM_OUTPUTS], out[:, NUM_OUTPUTS]


class _GridEncoder(nn.Module):
    """Ends at half the resolution; `stride` 2 gets there at once, at a quarter of the cost."""

    def __init__(self, channels: int, width: int, *, stride: int) -> None:
        super().__init__()
        self.channels = channels
        self.first = nn.Conv2d(channels, 20, 3, stride=stride, padding=1)
        self.second = nn.Conv2d(20, 24, 3, stride=3 - stride, padding=1)
        self.out = nn.Linear(24 * (GRID_ROWS // 2) * (GRID_COLUMNS // 2), width)

    def forward(self, grid_NSCG: Tensor) -> Tensor:
        """N x S x channels x G to N x S x width."""
        num_clips, num_steps = grid_NSCG.shape[:2]
        x = grid_NSCG.reshape(-1, self.channels, GRID_ROWS, GRID_COLUMNS)
        x = functional.gelu(self.second(functional.gelu(self.first(x)))).flatten(1)
        return functional.gelu(self.out(x)).reshape(num_clips, num_steps, -1)


class _TemporalBlock(nn.Module):
    def __init__(self, width: int, dilation: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.conv = nn.Conv1d(width, width, 3, padding=dilation, dilation=dilation)
        self.out = nn.Linear(width, width)

    def forward(self, x_NSD: Tensor, is_step_NS: Tensor) -> Tensor:
        inside = (self.norm(x_NSD) * is_step_NS[..., None]).transpose(1, 2)
        change: Tensor = self.out(functional.gelu(self.conv(inside)).transpose(1, 2))
        return x_NSD + change


def _compress(values: Tensor) -> Tensor:
    return torch.asinh(values / _KNEE)


def _global_motion(model_NS8: Tensor, half_width_NS: Tensor) -> Tensor:
    """The quadratic motion at the centers of the grid's parts, N x S x 2 x G."""
    half_height_NS = (0.25 - half_width_NS.square()).clamp(min=1e-6).sqrt()
    columns = (torch.arange(GRID_COLUMNS, device=model_NS8.device) + 0.5) / GRID_COLUMNS * 2 - 1
    rows = (torch.arange(GRID_ROWS, device=model_NS8.device) + 0.5) / GRID_ROWS * 2 - 1
    x = half_width_NS[..., None] * columns.repeat(GRID_ROWS)
    y = half_height_NS[..., None] * rows.repeat_interleave(GRID_COLUMNS)
    a0, a1, a2, a3, a4, a5, a6, a7 = (model_NS8[..., i, None] for i in range(8))
    u = a0 + a1 * x + a2 * y + a6 * x * x + a7 * x * y
    v = a3 + a4 * x + a5 * y + a6 * x * y + a7 * y * y
    return torch.stack([u, v], 2)
