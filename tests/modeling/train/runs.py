"""Tiny runs: in this process, or in one of their own that is to be killed."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from modeling.train import checkpoint, report
from modeling.train.config import TrainConfig
from modeling.train.config_file import build_config
from modeling.train.parallel import SingleProcess
from modeling.train.stream import BatchStream, open_corpus
from modeling.train.trainer import Resume, Trainer

ROOT = Path(__file__).resolve().parents[3]
TIMEOUT_S = 240

_COMMON: dict[str, Any] = {
    "data": {"plan": {"global_batch": 2}, "loader": {"num_threads": 1}},
    "optim": {"warmup_steps": 2, "learning_rate": 1e-2},
    "compute": {"device": "cpu", "num_threads": 1},
    "checkpoint": {"every": 1000, "keep": 2},
    "log": {"every": 1, "tensorboard": False},
    "preview": None,
}
_ENDLESS = {"steps": 100_000, "checkpoint": {"every": 2}}
_NETWORK = {
    "in_channels": 4,
    "out_channels": 4,
    "num_attention_heads": 2,
    "attention_head_dim": 8,
    "rope_axes_dim": [2, 2, 4],
    "num_layers": 1,
    "num_single_layers": 1,
    "num_refiner_layers": 1,
    "guidance_embeds": False,
}
DIT: dict[str, Any] = {
    "model": "dit",
    "dit": {
        "network": _NETWORK,
        "vae": "untrained",
        "text_encoder": {"states": "byte", "pooled": "byte", "max_tokens": 16},
    },
}
VAE: dict[str, Any] = {
    "model": "vae",
    "vae": {
        "network": {
            "latent_channels": 2,
            "block_out_channels": [4, 4, 4, 4],
            "layers_per_block": 1,
            "norm_num_groups": 2,
        },
        "perceptual": {"kind": "none"},
        "loss": {"adversarial_mode": "fixed", "perceptual_frames": 1},
        "discriminator": {"base_channels": 8, "num_layers": 1},
        "tiling": {
            "height": 16,
            "width": 16,
            "stride_height": 8,
            "stride_width": 8,
            "num_frames": 4,
            "stride_num_frames": 4,
        },
        "stages": [
            {
                "name": "reconstruction",
                "steps": 3,
                "view": {"max_frames": 5, "crop_side": 16, "placement": "random"},
            },
            {
                "name": "adversarial",
                "adversarial": True,
                "discriminator_alone": 1,
                "tiling_probability": 0.5,
                "view": {"max_frames": 5, "max_frame_interval": 2, "placement": "random"},
            },
        ],
    },
}


def tables(kind: dict[str, Any], manifest: str, **over: Any) -> list[dict[str, Any]]:
    """Layers of a config; `over` are sections that go over the others."""
    return [_COMMON, kind, {"data": {"shards": [manifest]}}, over]


def config_of(kind: dict[str, Any], manifest: str, **over: Any) -> TrainConfig:
    return build_config(tables(kind, manifest, **over))


def make_trainer(
    config: TrainConfig,
    out: Path,
    *,
    resume: Resume = "auto",
    init: dict[str, Tensor] | None = None,
) -> Trainer:
    torch.set_num_threads(1)
    parallel = SingleProcess(torch.device("cpu"))
    stream = BatchStream(open_corpus(config.data), config)
    plan = report.make_plan(config, stream, parallel.device)
    return Trainer(config, out, parallel, stream=stream, plan=plan, resume=resume, init=init)


def start(kind: dict[str, Any], manifest: str, out: Path) -> "subprocess.Popen[str]":
    """`python -m modeling.train` with the config of `config_of`; a checkpoint every other step."""
    out.mkdir(parents=True, exist_ok=True)
    file = out.parent / f"{out.name}.json"
    file.write_text(json.dumps([*tables(kind, manifest), _ENDLESS]))
    program = (
        "import json, sys; from modeling.train import cli, config_file; "
        "layers = json.load(open(sys.argv.pop(1))); "
        "cli.make_config = lambda *args: config_file.build_config(layers); "
        "cli.app()"
    )
    return subprocess.Popen(
        [sys.executable, "-c", program, str(file), "--out", str(out)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )


def stop(process: "subprocess.Popen[str]", out: Path, how: signal.Signals) -> str:
    """Send a signal a step or more after a checkpoint; what the process said until its end."""
    deadline = time.monotonic() + TIMEOUT_S
    while not (saved := checkpoint_steps(out)) or len(metrics(out)) <= saved[-1]:
        if process.poll() is not None or time.monotonic() > deadline:
            process.kill()
            raise AssertionError(process.communicate()[0])
        time.sleep(0.02)
    process.send_signal(how)
    return process.communicate(timeout=TIMEOUT_S)[0]


def metrics(out: Path) -> list[dict[str, Any]]:
    file = out / "metrics.jsonl"
    text = file.read_text() if file.exists() else ""
    return [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith("\n")]


def checkpoint_steps(out: Path) -> list[int]:
    return [checkpoint.step_of(path) for path in checkpoint.all_checkpoints(out / "checkpoints")]


def checkpoint_bits(out: Path, step: int) -> dict[str, bytes]:
    """Every tensor of a checkpoint, and everything else in it but times and file sizes."""
    folder = out / "checkpoints" / f"step-{step:08d}"
    found = {name: torch.zeros(shape) for name, shape in checkpoint.tensor_shapes(folder).items()}
    checkpoint.load_tensors(folder, found, alone=True)
    state = checkpoint.read_state(folder)
    rest = state.model_dump(mode="json", exclude={"files": True, "counters": {"seconds": True}})
    bits = {name: tensor.numpy().tobytes() for name, tensor in found.items()}
    return {**bits, "state": json.dumps(rest, sort_keys=True).encode()}
