"""Train the camera network on rendered features; resume where a call was ended.

One checkpoint holds weights, their running average, optimizer, epoch and both random states. After
the last epoch the averaged weights are calibrated on the validation photographs.
"""

import logging
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from modeling.perception.camera.calibration import fit_temperature
from modeling.perception.camera.data import Batch, Clip, augment, collate, read_clips, variants
from modeling.perception.camera.network import CameraNet

CHECKPOINT = "checkpoint.pt"
_CHECKPOINT_EVERY_S = 60.0
_DOLLY_WEIGHT = 0.2
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class TrainConfig:
    num_epochs: int = 16
    batch_size: int = 64
    learning_rate: float = 2e-3
    weight_decay: float = 0.05
    label_smoothing: float = 0.02
    average: float = 0.995  # of the weights, per step
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Trained:
    network: CameraNet
    temperature: float
    probability_NK: NDArray[np.float64]  # calibrated, on the validation clips
    label_N: NDArray[np.int64]


def train(
    features: Path, out: Path, config: TrainConfig, *, stop_after: int | None = None
) -> Trained | None:
    """None when it stops after that epoch, before the last. FileNotFoundError without clips."""
    torch.set_num_threads(1)
    clips = read_clips(features, "train")
    validation = [v for clip in read_clips(features, "validation") for v in variants(clip)]
    torch.manual_seed(config.seed)
    network, averaged = CameraNet(), CameraNet()
    averaged.load_state_dict(network.state_dict())
    optimizer = torch.optim.AdamW(
        network.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay
    )
    first_epoch = _resume(out / CHECKPOINT, network, averaged, optimizer)
    steps_per_epoch = -(-len(clips) // config.batch_size)
    saved = time.monotonic()
    for epoch in range(first_epoch, config.num_epochs):
        rng = np.random.default_rng([config.seed, epoch])
        torch.manual_seed(config.seed + epoch)
        order = rng.permutation(len(clips))
        losses = []
        for step in range(steps_per_epoch):
            progress = (epoch + step / steps_per_epoch) / config.num_epochs
            for group in optimizer.param_groups:
                group["lr"] = config.learning_rate * _schedule(progress)
            index = order[step * config.batch_size : (step + 1) * config.batch_size]
            batch = collate([augment(clips[i], rng) for i in index])
            network.train()
            loss = _loss(network, batch, config)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
            optimizer.step()
            _average(averaged, network, config.average)
            losses.append(float(loss.detach()))
        _log.info("epoch %d: loss %.3f", epoch, float(np.mean(losses)))
        is_last = epoch + 1 in (config.num_epochs, stop_after)
        if is_last or time.monotonic() - saved > _CHECKPOINT_EVERY_S:
            saved = time.monotonic()
            state = {"network": network.state_dict(), "averaged": averaged.state_dict(),
                     "optimizer": optimizer.state_dict(), "epoch": epoch + 1}  # fmt: skip
            _save(state, out / CHECKPOINT)
        if epoch + 1 == stop_after:
            return None
    averaged.eval()
    logits_NK, label_N = predict(averaged, validation)
    temperature = fit_temperature(logits_NK, label_N)
    probability = torch.softmax(logits_NK / temperature, 1).numpy().astype(np.float64)
    return Trained(averaged, temperature, probability, label_N.numpy())


def predict(network: CameraNet, clips: list[Clip]) -> tuple[Tensor, Tensor]:
    """Logits and labels."""
    logits, labels = [], []
    with torch.inference_mode():
        for start in range(0, len(clips), 64):
            batch = collate(clips[start : start + 64])
            logits.append(network(batch.features_NSF, batch.is_step_NS)[0])
            labels.append(batch.label_N)
    return torch.cat(logits), torch.cat(labels)


def _loss(network: CameraNet, batch: Batch, config: TrainConfig) -> Tensor:
    logits, dolly_logit = network(batch.features_NSF, batch.is_step_NS)
    loss = functional.cross_entropy(logits, batch.label_N, label_smoothing=config.label_smoothing)
    is_zoom = batch.is_dolly_N >= 0
    if is_zoom.any():
        dolly = batch.is_dolly_N[is_zoom].float()
        loss = loss + _DOLLY_WEIGHT * functional.binary_cross_entropy_with_logits(
            dolly_logit[is_zoom], dolly
        )
    return loss


def _schedule(progress: float) -> float:
    """Warm up over the first twentieth, then a cosine to zero."""
    return float(min(1.0, progress / 0.05) * (0.5 + 0.5 * np.cos(np.pi * progress)))


def _average(averaged: CameraNet, network: CameraNet, decay: float) -> None:
    with torch.no_grad():
        for mean, value in zip(averaged.parameters(), network.parameters(), strict=True):
            mean.lerp_(value, 1 - decay)


def _save(state: dict[str, object], path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    torch.save(state, partial)
    partial.replace(path)


def _resume(
    path: Path, network: CameraNet, averaged: CameraNet, optimizer: torch.optim.Optimizer
) -> int:
    """The epoch to go on with."""
    if not path.exists():
        return 0
    state = torch.load(path, weights_only=True)
    network.load_state_dict(state["network"])
    averaged.load_state_dict(state["averaged"])
    optimizer.load_state_dict(state["optimizer"])
    return int(state["epoch"])
