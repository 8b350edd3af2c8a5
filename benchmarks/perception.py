"""How many clips a second the perception networks take on one GPU, in PyTorch.

    python -m benchmarks.perception --out OUT.json [--seconds 240] [--tiny]

Random weights: speed, not accuracy. Inputs lie on the device already, so decoding, resizing and
copying are not in the figures, nor is ONNX Runtime. A row is one network at one batch size and
precision: `eager` as written, `compiled` by torch.compile. bf16 and fp16 are autocast over weights
in float32; fp32 is without TF32. Every network gets the row that is likely its fastest before any
gets a second one; a row that fails or takes too long is noted and passed over. `set` adds the
fastest row of each network up: what the production set costs a clip when the networks run one
after the other.

A clip is: 8 frames of 224 x 224 for CLIP ViT-L/14 and for the EfficientNet-Lite0 embedding; 96
fragment and 32 whole views of 224 x 224 for DOVER (both branches); 15 pairs of 256 x 448 with 12
updates for RAFT large; 6 frames of 640 x 640 for the overlay detector; 12 parts of 112 x 112 for
the quality network; 24 steps of motion features for the camera network.

--tiny: small sizes and one precision, to try the program on a CPU.
"""

import argparse
import importlib
import signal
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from torch import Tensor, nn

from benchmarks.step_timer import Record, Timing, machine, time_calls

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
_DTYPES = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}
_EAGER_S, _COMPILE_S = 15.0, 25.0  # what a row may take


@dataclass(frozen=True)
class Network:
    """`inputs` makes a batch of that many clips; `batches` from the smallest to the largest."""

    name: str
    build: Callable[[], nn.Module]
    inputs: Callable[[int], tuple[Tensor, ...]]
    frames: int  # of one clip: frames, pairs, views, parts or steps
    frame: str
    batches: tuple[int, ...]
    compile_s: float = _COMPILE_S


@dataclass(frozen=True)
class Row:
    network: Network
    batch: int  # clips
    precision: str
    is_compiled: bool = False

    @property
    def needs_s(self) -> float:
        return self.network.compile_s if self.is_compiled else _EAGER_S


def networks(*, is_tiny: bool) -> list[Network]:
    """The production set, and ours beside it."""
    side, large = (32, 64) if is_tiny else (224, 640)
    raft_HW = (128, 128) if is_tiny else (256, 448)
    some: Callable[[int, int], tuple[int, ...]]
    some = (lambda a, b: (1,)) if is_tiny else (lambda a, b: (a, b))
    dover_side = 224  # its windows allow no other
    return [
        Network("CLIP ViT-L/14", partial(_clip, is_tiny), partial(_pixels, 8, side), 8,
                f"frame {side} x {side}", some(8, 64)),
        Network("embedding, EfficientNet-Lite0", _embedding, partial(_bytes, 8, side, side), 8,
                f"frame {side} x {side}", some(16, 128)),
        Network("DOVER, both branches", partial(_dover, is_tiny),
                partial(_bytes, 128, dover_side, dover_side), 128,
                f"view {dover_side} x {dover_side}", some(1, 8), 60.0),
        Network("RAFT large", _raft, partial(_pairs, 2 if is_tiny else 15, raft_HW),
                2 if is_tiny else 15, f"pair {raft_HW[0]} x {raft_HW[1]}", some(1, 4), 90.0),
        Network("overlay detector", _detector, partial(_shares, 6, large), 6,
                f"frame {large} x {large}", some(4, 16)),
        Network("quality", _quality, partial(_bytes, 12, 112, 112), 12, "part 112 x 112",
                some(64, 512)),
        Network("camera", _camera, _steps, 24, "step", some(64, 512)),
    ]  # fmt: skip


def measure(row: Row, *, is_tiny: bool) -> dict[str, Any]:
    network, batch = row.network, row.batch
    torch.manual_seed(0)
    model: Any = network.build().to(DEVICE).eval()
    if row.is_compiled:
        model = torch.compile(model, dynamic=False)
    values = network.inputs(batch)
    dtype = _DTYPES[row.precision]

    def call() -> object:
        with (
            torch.inference_mode(),
            torch.autocast(DEVICE.type, dtype or torch.bfloat16, enabled=dtype is not None),
        ):
            return model(*values)

    timing = _trial(call) if is_tiny else time_calls(call, seconds=0.8)
    clips_per_s = 1000 * batch / timing.milliseconds
    return {
        "precision": row.precision,
        "mode": "compiled" if row.is_compiled else "eager",
        "clips": batch,
        "clips/s": _rounded(clips_per_s),
        "frames/s": _rounded(clips_per_s * network.frames),
        "frame": network.frame,
        "ms": round(timing.milliseconds, 3),
        "spread": round(timing.spread, 3),
        "first s": round(timing.first_s, 1),
        "GiB": round(timing.peak_gib, 2),
    }


def run(record: Record, *, is_tiny: bool) -> None:
    """A row of every network before a second row of any."""
    torch.set_float32_matmul_precision("highest")
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cudnn.benchmark = True
    every = networks(is_tiny=is_tiny)
    for row in tiny_rows(every) if is_tiny else rows(every):
        call = partial(_within, row, is_tiny=is_tiny)
        record.attempt("speed", row.network.name, row.needs_s, call)
    _add_set(record)


def rows(every: Sequence[Network]) -> list[Row]:
    """The row that is likely the fastest of each network first, the slowest to run last."""
    by_compile_s = sorted(every, key=lambda network: network.compile_s)
    return [
        *(Row(network, network.batches[-1], "bf16") for network in every),
        *(Row(network, network.batches[-1], "bf16", is_compiled=True) for network in by_compile_s),
        *(Row(network, network.batches[-1], "fp16") for network in every),
        *(Row(network, network.batches[0], "bf16") for network in every),
        *(Row(network, network.batches[-1], "fp32") for network in every),
    ]


def tiny_rows(every: Sequence[Network]) -> list[Row]:
    """In 32 bits alone: a CPU emulates the other precisions."""
    found = [Row(network, network.batches[-1], "fp32") for network in every]
    return [*found, Row(every[-1], every[-1].batches[-1], "fp32", is_compiled=True)]


def _within(row: Row, *, is_tiny: bool) -> dict[str, Any]:
    """Measure, but not for much longer than planned: the rows after this one want their time."""

    def stop(signum: int, frame: object) -> None:
        raise TimeoutError(f"took more than {limit_s:.0f} s, {row.needs_s:.0f} s were planned")

    limit_s = 4 * row.needs_s if is_tiny else 1.5 * row.needs_s
    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, limit_s)
    try:
        return measure(row, is_tiny=is_tiny)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def _trial(call: Callable[[], object]) -> Timing:
    """One call: does it run at all."""
    start = time.monotonic()
    call()
    seconds = time.monotonic() - start
    return Timing(1000 * seconds, 0.0, seconds, 0.0)


def _add_set(record: Record) -> None:
    fastest: dict[str, float] = {}
    for row in record.rows["speed"]:
        fastest[row["name"]] = max(fastest.get(row["name"], 0.0), row.get("clips/s", 0.0))
    ran = {name: speed for name, speed in fastest.items() if speed}
    if ran:
        clips_per_s = 1 / sum(1 / speed for speed in ran.values())
        record.add("set", {"networks": len(ran), "clips/s": _rounded(clips_per_s),
                           "missing": ", ".join(sorted(fastest.keys() - ran.keys()))})  # fmt: skip


def _rounded(value: float) -> float:
    return float(f"{value:.4g}")


def _bytes(count: int, height: int, width: int, batch: int) -> tuple[Tensor, ...]:
    shape = (batch, count, height, width, 3)
    return (torch.randint(0, 256, shape, dtype=torch.uint8, device=DEVICE),)


def _pixels(count: int, side: int, batch: int) -> tuple[Tensor, ...]:
    return (torch.randn(batch * count, 3, side, side, device=DEVICE),)


def _shares(count: int, side: int, batch: int) -> tuple[Tensor, ...]:
    return (torch.rand(batch * count, 3, side, side, device=DEVICE),)


def _pairs(count: int, size_HW: tuple[int, int], batch: int) -> tuple[Tensor, ...]:
    first, second = (2 * torch.rand(2, batch * count, 3, *size_HW, device=DEVICE) - 1).unbind(0)
    return first, second


def _steps(batch: int) -> tuple[Tensor, ...]:
    from schemas.camera_network import NUM_FEATURES

    return (
        0.01 * torch.randn(batch, 24, NUM_FEATURES, device=DEVICE),
        torch.ones(batch, 24, device=DEVICE),
    )


def _clip(is_tiny: bool) -> nn.Module:
    from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

    sizes: dict[str, Any] = (
        {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2,
         "num_attention_heads": 2, "image_size": 32, "patch_size": 16, "projection_dim": 32}
        if is_tiny
        else {"hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 24,
              "num_attention_heads": 16, "image_size": 224, "patch_size": 14,
              "projection_dim": 768}
    )  # fmt: skip
    return _FirstOutput(CLIPVisionModelWithProjection(CLIPVisionConfig(**sizes)))


class _FirstOutput(nn.Module):
    """The image embedding alone."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, pixels_NCHW: Tensor) -> Tensor:
        out: Tensor = self.model(pixel_values=pixels_NCHW, return_dict=True).image_embeds
        return out


def _embedding() -> nn.Module:
    from modeling.perception.efficientnet_lite import EfficientNetLite0
    from modeling.perception.embedding.copy_head import CopyHead
    from modeling.perception.embedding.network import ClipEmbedding
    from modeling.perception.embedding.trunk import NUM_CHANNELS, Trunk

    return ClipEmbedding(Trunk(EfficientNetLite0()), CopyHead(NUM_CHANNELS))


def _dover(is_tiny: bool) -> nn.Module:
    from modeling.perception.dover import network, swin

    depths, widths = (2, 1), (32, 64)
    with ExitStack() as patched:
        if is_tiny:  # the same code with fewer and narrower stages
            patched.enter_context(
                mock.patch.multiple(network, TINY_DEPTHS=depths, TINY_WIDTHS=widths)
            )
            patched.enter_context(mock.patch.multiple(swin, DEPTHS=depths, WIDTHS=widths))
        return network.Dover("dover")


def _raft() -> nn.Module:
    flow = importlib.import_module("torchvision.models.optical_flow")
    model: nn.Module = flow.raft_large(weights=None)
    return model


def _detector() -> nn.Module:
    """Read by name: a checkout without the detector gets a row that says so."""
    module = importlib.import_module("modeling.perception.overlays.network")
    model: nn.Module = module.Detector()
    return model


def _quality() -> nn.Module:
    from modeling.perception.quality.data import KINDS
    from modeling.perception.quality.network import ClipQuality, QualityNet

    return ClipQuality(QualityNet(len(KINDS)))


def _camera() -> nn.Module:
    from modeling.perception.camera.network import CameraNet

    return CameraNet()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="JSON, written after every row")
    parser.add_argument("--seconds", type=float, default=240.0)
    parser.add_argument("--tiny", action="store_true")
    options = parser.parse_args()
    if DEVICE.type == "cpu":
        torch.set_num_threads(1)
    about = {**machine(), "weights": "random: speed, not accuracy", "tiny": options.tiny}
    record = Record(options.out, options.seconds, about)
    run(record, is_tiny=options.tiny)
    print(record.markdown())


if __name__ == "__main__":
    main()
