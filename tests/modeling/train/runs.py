"""Tiny runs: in this process, or in one of their own that is to be killed."""

import json
import multiprocessing
import os
import signal
import time
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from torch import Tensor

from modeling.train import checkpoint, cli, report
from modeling.train.config import TrainConfig
from modeling.train.config_file import build_config
from modeling.train.parallel import SingleProcess
from modeling.train.stream import BatchStream, open_corpus
from modeling.train.trainer import Resume, Trainer

ROOT = Path(__file__).resolve().parents[3]
TIMEOUT_S = 240
_SERVER = multiprocessing.get_context("forkserver")

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
            "height": 24,
            "width": 24,
            "stride_height": 16,
            "stride_width": 16,
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
    init_file: Path | None = None,
) -> Trainer:
    torch.set_num_threads(1)
    parallel = SingleProcess(torch.device("cpu"))
    stream = BatchStream(open_corpus(config.data), config)
    plan = report.make_plan(config, stream, parallel.device)
    return Trainer(
        config,
        out,
        parallel,
        stream=stream,
        plan=plan,
        resume=resume,
        init=init,
        init_file=init_file,
    )


def start(kind: dict[str, Any], manifest: str, out: Path) -> "Run":
    """`python -m modeling.train` with the config of `config_of`; a checkpoint every other step.

    A process of its own, forked from one that has imported what a run needs and done nothing else.
    """
    out.mkdir(parents=True, exist_ok=True)
    _SERVER.set_forkserver_preload([__name__])
    said = out.parent / f"{out.name}.txt"
    layers = [*tables(kind, manifest), _ENDLESS]
    process = _SERVER.Process(target=_train, args=(layers, out, said), daemon=True)
    process.start()
    return Run(process, out, said)


def _train(layers: list[dict[str, Any]], out: Path, said: Path) -> None:
    with said.open("w") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    torch.set_num_threads(1)
    with mock.patch.object(cli, "make_config", return_value=build_config(layers)):
        cli.app(["--out", str(out)])


@dataclass(frozen=True)
class Run:
    """A process that trains into `out`; `said` is its output."""

    process: BaseProcess
    out: Path
    said: Path

    def stop(self, how: signal.Signals) -> str:
        """Send a signal a step or more after a checkpoint; what the process said until its end."""
        deadline = time.monotonic() + TIMEOUT_S
        try:
            while not (saved := checkpoint_steps(self.out)) or len(metrics(self.out)) <= saved[-1]:
                assert self.process.is_alive(), self.said.read_text()
                assert time.monotonic() < deadline, self.said.read_text()
                time.sleep(0.02)
            assert self.process.pid is not None
            os.kill(self.process.pid, how)
            self.process.join(TIMEOUT_S)
            assert not self.process.is_alive(), self.said.read_text()
        finally:
            self.process.kill()
        return self.said.read_text()


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
