"""Export RAFT (Teed and Deng, arXiv 2003.12039; torchvision's, BSD-3) as the network of flow.

    python -m modeling.perception.raft --size small --weights raft_small.pth --out raft.onnx

then `model = "path:raft.onnx"` under `[score.flow]`: motion and camera read it instead of DIS, and
divide it between camera and objects as before. Weights are torchvision's files, such as
raft_small_C_T_V2 or raft_large_C_T_V2; those tuned for KITTI know driving alone.
"""

import argparse
import hashlib
import pickle
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from modeling.perception.onnx_file import export_onnx
from schemas.model_card import INTERFACE_VERSION, ModelCard

Size = Literal["small", "large"]
DEFAULT_SIZE_HW = (256, 448)
DEFAULT_UPDATES = 12
_MULTIPLE = 8
_MIN_SIDE_PX = 128  # below, the coarsest correlation has no position left
_HALF_LEVEL = 127.5
_NUM_NAMED = 3
_SHOWN_DIGITS = 12


class RaftError(ValueError):
    """Weights or sizes that RAFT cannot have, in one line."""


class RaftFlow(nn.Module):
    """frames_NTHWC (uint8 RGB, T = 2) -> N x H x W x 2: pixels from the first to the second.

    Exported, N is 1: torchvision's code cannot be traced for any number of pairs.
    """

    def __init__(self, raft: nn.Module, num_updates: int) -> None:
        super().__init__()
        self.raft = raft
        self.num_updates = num_updates

    def forward(self, frames_NTHWC: Tensor) -> Tensor:
        x_NTCHW = frames_NTHWC.permute(0, 1, 4, 2, 3).float() / _HALF_LEVEL - 1
        flows = self.raft(x_NTCHW[:, 0], x_NTCHW[:, 1], num_flow_updates=self.num_updates)
        last_N2HW: Tensor = flows[-1]
        return last_N2HW.permute(0, 2, 3, 1)


def load_raft(size: Size, weights: Path) -> nn.Module:
    """Raises RaftError where the file is not that RAFT's."""
    from torchvision.models.optical_flow import (  # type: ignore[import-untyped]
        raft_large,
        raft_small,
    )

    model: nn.Module = (raft_small if size == "small" else raft_large)(weights=None)
    try:
        state: Any = torch.load(weights, weights_only=True, map_location="cpu")
    except (OSError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
        first_line = (str(error).splitlines() or [type(error).__name__])[0]
        raise RaftError(f"{weights}: no file of tensors: {first_line}") from error
    if not isinstance(state, Mapping):
        raise RaftError(f"{weights}: holds no state dict")
    wanted = {key: tuple(value.shape) for key, value in model.state_dict().items()}
    found = {key: tuple(getattr(value, "shape", ())) for key, value in state.items()}
    if wanted != found:
        keys = sorted(wanted.keys() | found.keys(), key=str)
        other = [str(key) for key in keys if wanted.get(key) != found.get(key)]
        raise RaftError(
            f"{weights}: not raft_{size}: {len(other)} tensors are missing, foreign or of another "
            f"shape: {', '.join(other[:_NUM_NAMED])}"
        )
    model.load_state_dict(state)
    return model.eval().requires_grad_(requires_grad=False)


def export_raft(
    size: Size,
    weights: Path,
    onnx_path: Path,
    *,
    size_HW: tuple[int, int] = DEFAULT_SIZE_HW,
    num_updates: int = DEFAULT_UPDATES,
) -> str:
    """Returns the sha256 of what was written. Raises RaftError."""
    height, width = size_HW
    if height % _MULTIPLE or width % _MULTIPLE or min(size_HW) < _MIN_SIDE_PX or num_updates < 1:
        raise RaftError(
            f"height {height} and width {width} must be multiples of {_MULTIPLE} from "
            f"{_MIN_SIDE_PX} on, updates {num_updates} at least 1"
        )
    flow = RaftFlow(load_raft(size, weights), num_updates)
    sha256 = hashlib.sha256(weights.read_bytes()).hexdigest()
    card = ModelCard(
        kind="flow",
        model_id=f"raft-{size}-{num_updates}-{sha256[:_SHOWN_DIGITS]}",
        interface_version=INTERFACE_VERSION,
        num_frames=2,
        height=height,
        width=width,
        resize="stretch",
        config_sha256=sha256,
    )
    example = torch.zeros((1, 2, height, width, 3), dtype=torch.uint8)
    with warnings.catch_warnings():
        # torchvision keeps the correlations of a pair on the module; each call makes them anew.
        warnings.filterwarnings("ignore", "The tensor attributes? .*corr_pyramid", UserWarning)
        return export_onnx(
            flow, example, onnx_path, card=card, outputs=["flow"], dynamic_batch=False
        )


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Export RAFT to ONNX.")
    parser.add_argument("--size", choices=get_args(Size), default="small")
    parser.add_argument("--weights", type=Path, required=True, help="torchvision's .pth")
    parser.add_argument("--out", type=Path, default=Path("raft.onnx"), help="where to write")
    parser.add_argument("--height", type=int, default=DEFAULT_SIZE_HW[0])
    parser.add_argument("--width", type=int, default=DEFAULT_SIZE_HW[1])
    parser.add_argument("--updates", type=int, default=DEFAULT_UPDATES)
    options = parser.parse_args(arguments)
    try:
        sha256 = export_raft(
            options.size,
            options.weights,
            options.out,
            size_HW=(options.height, options.width),
            num_updates=options.updates,
        )
    except RaftError as error:
        parser.error(str(error))
    print(f"{options.out}: sha256 {sha256}")  # noqa: T201


if __name__ == "__main__":
    main()
