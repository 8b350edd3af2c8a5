"""Learn the order of degradations; resume where a call was ended.

Within a group every better level must score above every worse one (logistic loss over all pairs).
So that scores of different pictures compare, quality also regresses to the similarity of the
gradients with those of the part as it is; blur regresses to the known sigma where there is one.
"""

import logging
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from modeling.perception.quality.data import KINDS, Batch, Groups, as_batch, batches, read_groups
from modeling.perception.quality.network import QualityNet

CHECKPOINT = "checkpoint.pt"
_CHECKPOINT_EVERY_S = 60.0
_SIMILARITY_WEIGHT = 2.0
_BLUR_WEIGHT = 0.5
_KIND_WEIGHT = 0.2
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class TrainConfig:
    num_epochs: int = 12
    groups_per_batch: int = 6
    side_px: int = 112
    learning_rate: float = 2e-3
    weight_decay: float = 0.02
    average: float = 0.99  # of the weights, per step
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Report:
    """On the validation pictures; `order` is the share of pairs of levels in the right order."""

    order: float
    order_by_kind: dict[str, float]
    blur_error_px: float  # mean absolute


def train(
    data: Path, out: Path, config: TrainConfig, *, stop_after: int | None = None
) -> QualityNet | None:
    """The averaged network; None when it stops after that epoch, before the last."""
    torch.set_num_threads(1)
    groups = read_groups(data, "train")
    torch.manual_seed(config.seed)
    network, averaged = QualityNet(len(KINDS)), QualityNet(len(KINDS))
    averaged.load_state_dict(network.state_dict())
    network = network.to(memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(
        network.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay
    )
    path = out / CHECKPOINT
    first_epoch = _resume(path, network, averaged, optimizer)
    steps = max(1, len(groups) // config.groups_per_batch)
    saved = time.monotonic()
    for epoch in range(first_epoch, config.num_epochs):
        rng = np.random.default_rng([config.seed, epoch])
        losses = []
        drawn = batches(groups, rng, size=config.groups_per_batch, side_px=config.side_px)
        for step, batch in enumerate(drawn):
            for group in optimizer.param_groups:
                progress = (epoch + step / steps) / config.num_epochs
                group["lr"] = config.learning_rate * _schedule(progress)
            network.train()
            loss = quality_loss(network, batch)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            torch.nn.utils.clip_grad_norm_(network.parameters(), 2.0)
            optimizer.step()
            _average(averaged, network, config.average)
            losses.append(float(loss.detach()))
        _log.info("epoch %d: loss %.3f", epoch, float(np.mean(losses)))
        is_last = epoch + 1 in (config.num_epochs, stop_after)
        if is_last or time.monotonic() - saved > _CHECKPOINT_EVERY_S:
            saved = time.monotonic()
            state = {"network": network.state_dict(), "averaged": averaged.state_dict(),
                     "optimizer": optimizer.state_dict(), "epoch": epoch + 1}  # fmt: skip
            _save(state, path)
        if epoch + 1 == stop_after and stop_after < config.num_epochs:
            return None
    return averaged.eval()


def quality_loss(network: QualityNet, batch: Batch) -> Tensor:
    groups, levels = batch.luma_GLHW.shape[:2]
    logit_P, blur_P, kind_PK = network(batch.luma_GLHW.flatten(0, 1))
    logit_GL = logit_P.reshape(groups, levels)
    better, worse = torch.triu_indices(levels, levels, 1)
    loss = F.softplus(logit_GL[:, worse] - logit_GL[:, better]).mean()
    loss = loss + _SIMILARITY_WEIGHT * F.smooth_l1_loss(
        torch.sigmoid(logit_GL), common_scale(batch.similarity_GL), beta=0.1
    )
    if batch.is_sigma_known_G.any():
        known = batch.is_sigma_known_G
        blur_GL = blur_P.reshape(groups, levels)[known]
        loss = loss + _BLUR_WEIGHT * F.smooth_l1_loss(
            blur_GL, torch.log1p(batch.sigma_GL[known]), beta=0.1
        )
    return loss + _KIND_WEIGHT * F.binary_cross_entropy_with_logits(
        kind_PK, batch.kinds_GLK.flatten(0, 1)
    )


def common_scale(similarity: Tensor) -> Tensor:
    """In [0, 1]: 1 as it is; 0.9 hardly seen; 0 where a quarter of the gradients' likeness is gone.

    Similarities crowd near 1, where eyes are sensitive.
    """
    return (1 - 2 * (1 - similarity).clamp(min=0).sqrt()).clamp(min=0)


def validate(network: QualityNet, groups: Groups, side_px: int) -> Report:
    """On the middle of each part."""
    rows, blur_errors = [], []
    edge = (groups.luma_GLHW.shape[2] - side_px) // 2
    middle = slice(edge, edge + side_px)
    better, worse = np.triu_indices(groups.luma_GLHW.shape[1], 1)
    with torch.inference_mode():
        for luma, label in zip(groups.luma_GLHW, groups.label_GL3, strict=True):
            batch = as_batch(luma[None, :, middle, middle], label[None])
            logit, blur, _ = network(batch.luma_GLHW[0])
            rows.append((logit[better] > logit[worse]).double().mean().item())
            if batch.is_sigma_known_G[0]:
                blur_errors += (torch.expm1(blur) - batch.sigma_GL[0]).abs().tolist()
    kind_G = groups.label_GL3[:, -1, 0].astype(int)
    is_single = groups.label_GL3[:, -1, 1] < 0
    order = np.array(rows)
    by_kind = {
        kind: float(order[(kind_G == index) & is_single].mean())
        for index, kind in enumerate(KINDS)
        if ((kind_G == index) & is_single).any()
    }
    return Report(float(order.mean()), by_kind, float(np.mean(blur_errors or [np.nan])))


def _schedule(progress: float) -> float:
    """Warm up over the first fiftieth, then a cosine to zero."""
    return float(min(1.0, progress / 0.02 + 0.01) * (0.5 + 0.5 * np.cos(np.pi * progress)))


def _average(averaged: QualityNet, network: QualityNet, decay: float) -> None:
    with torch.no_grad():
        for mean, value in zip(averaged.parameters(), network.parameters(), strict=True):
            mean.lerp_(value, 1 - decay)
        for own, other in zip(averaged.buffers(), network.buffers(), strict=True):
            if own.is_floating_point():
                own.lerp_(other, 1 - decay)


def _save(state: dict[str, object], path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    torch.save(state, partial)
    partial.replace(path)


def _resume(
    path: Path, network: QualityNet, averaged: QualityNet, optimizer: torch.optim.Optimizer
) -> int:
    """The epoch to go on with."""
    if not path.exists():
        return 0
    state = torch.load(path, weights_only=True)
    network.load_state_dict(state["network"])
    averaged.load_state_dict(state["averaged"])
    optimizer.load_state_dict(state["optimizer"])
    return int(state["epoch"])
