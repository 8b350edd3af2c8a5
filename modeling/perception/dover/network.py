"""Both branches with their heads, under the names of the released files.

Shape letters: N clips, V views (schemas/dover.py), M = 3 N runs of fragments, T, H, W time
and picture, C channels.
"""

import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from modeling.perception.dover.convnext import (
    FEMTO_DEPTHS,
    FEMTO_WIDTHS,
    TINY_DEPTHS,
    TINY_WIDTHS,
    ConvNextBackbone,
)
from modeling.perception.dover.swin import SwinBackbone
from schemas.dover import NUM_RUNS, RUN_FRAMES

Variant = Literal["dover", "dover-mobile"]
_HIDDEN: dict[Variant, int] = {"dover": 64, "dover-mobile": 32}
_MEAN = (123.675, 116.28, 103.53)  # 8-bit RGB
_SD = (58.395, 57.12, 57.375)
_MOBILE_KEY = "technical_backbone.head.weight"
_RECOMPUTED = "relative_position_index"
_NUM_NAMED = 3


class WeightsError(ValueError):
    """Weights that are not DOVER's; one line that says what differs."""


class Dover(nn.Module):
    """frames_NVHWC (uint8 RGB, the views of schemas/dover.py) -> technical N, aesthetic N."""

    mean_C: Tensor
    sd_C: Tensor

    def __init__(self, variant: Variant) -> None:
        super().__init__()
        self.variant = variant
        if variant == "dover":
            width = TINY_WIDTHS[-1]
            self.technical_backbone: nn.Module = SwinBackbone()
            self.aesthetic_backbone = ConvNextBackbone(TINY_DEPTHS, TINY_WIDTHS, is_second=False)
        else:
            width = FEMTO_WIDTHS[-1]
            self.technical_backbone = ConvNextBackbone(FEMTO_DEPTHS, FEMTO_WIDTHS, is_second=True)
            self.aesthetic_backbone = ConvNextBackbone(FEMTO_DEPTHS, FEMTO_WIDTHS, is_second=True)
        self.technical_head = QualityHead(width, _HIDDEN[variant])
        self.aesthetic_head = QualityHead(width, _HIDDEN[variant])
        self.register_buffer("mean_C", torch.tensor(_MEAN), persistent=False)
        self.register_buffer("sd_C", torch.tensor(_SD), persistent=False)

    def forward(self, frames_NVHWC: Tensor) -> tuple[Tensor, Tensor]:
        x_NVHWC = (frames_NVHWC.float() - self.mean_C) / self.sd_C
        x_NCVHW = x_NVHWC.permute(0, 4, 1, 2, 3)
        num_fragments, side_HW = NUM_RUNS * RUN_FRAMES, x_NCVHW.shape[-2:]
        runs_NCRTHW = x_NCVHW[:, :, :num_fragments].reshape(-1, 3, NUM_RUNS, RUN_FRAMES, *side_HW)
        maps_M = self.technical_map(runs_NCRTHW.transpose(1, 2).flatten(0, 1)).flatten(1).mean(1)
        technical_N = maps_M.reshape(-1, NUM_RUNS).mean(1)
        aesthetic_N = self.aesthetic_map(x_NCVHW[:, :, NUM_RUNS * RUN_FRAMES :]).flatten(1).mean(1)
        return technical_N, aesthetic_N

    def technical_map(self, x_NCTHW: Tensor) -> Tensor:
        """N x 1 x T/2 x 7 x 7 of one run of normalized fragments."""
        out: Tensor = self.technical_head(self.technical_backbone(x_NCTHW))
        return out

    def aesthetic_map(self, x_NCTHW: Tensor) -> Tensor:
        """N x 1 x T/2 x 7 x 7 of normalized whole pictures."""
        out: Tensor = self.aesthetic_head(self.aesthetic_backbone(x_NCTHW))
        return out


class QualityHead(nn.Module):
    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.fc_hid = nn.Conv3d(width, hidden, 1)
        self.fc_last = nn.Conv3d(hidden, 1, 1)

    def forward(self, x_NCTHW: Tensor) -> Tensor:
        out: Tensor = self.fc_last(F.gelu(self.fc_hid(x_NCTHW)))
        return out


def load_dover(path: Path) -> Dover:
    """DOVER, DOVER++ or DOVER-Mobile by what the file holds. Raises WeightsError."""
    try:
        found = torch.load(path, weights_only=True, map_location="cpu")
    except (OSError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
        first_line = (str(error).splitlines() or [type(error).__name__])[0]
        raise WeightsError(f"{path}: no file of tensors: {first_line}") from error
    if isinstance(found, Mapping) and isinstance(found.get("state_dict"), Mapping):
        found = found["state_dict"]
    if not isinstance(found, Mapping) or not all(isinstance(v, Tensor) for v in found.values()):
        raise WeightsError(f"{path}: holds no state dict")
    state = {
        str(key).removeprefix("module."): value
        for key, value in found.items()
        if not str(key).endswith(_RECOMPUTED)
    }
    model = Dover("dover-mobile" if _MOBILE_KEY in state else "dover")
    _check(path, state, model)
    model.load_state_dict(state)
    return model.eval().requires_grad_(requires_grad=False)


def _check(path: Path, state: Mapping[str, Tensor], model: Dover) -> None:
    wanted = model.state_dict()
    missing, foreign = sorted(wanted.keys() - state.keys()), sorted(state.keys() - wanted.keys())
    for what, keys in (("lacks", missing), ("has foreign", foreign)):
        if keys:
            some = ", ".join(keys[:_NUM_NAMED])
            raise WeightsError(
                f"{path}: not {model.variant}: {what} {len(keys)} of {len(wanted)} tensors: {some}"
            )
    for key, tensor in wanted.items():
        if state[key].shape != tensor.shape:
            raise WeightsError(
                f"{path}: {key} is {tuple(state[key].shape)}, {model.variant} has "
                f"{tuple(tensor.shape)}"
            )
        if not bool(torch.isfinite(state[key]).all()):
            raise WeightsError(f"{path}: {key} holds values that are not finite")
