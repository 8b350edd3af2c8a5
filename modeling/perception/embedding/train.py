"""Learn which looks show the same moment; resume where a call was ended.

InfoNCE between two looks at each clip of a batch, other moments of its source among the
negatives, and the entropy term of SSCD (Pizzi et al., arXiv 2202.10261) that spreads vectors out:
minus the mean log distance to the nearest other clip. The trunk is frozen.
"""

import logging
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from modeling.perception.embedding.copy_head import APPEARANCE_DIM, CHANGE_DIM, CopyHead
from modeling.perception.embedding.data import Looks, draw_batch

CHECKPOINT = "checkpoint.pt"
_CHECKPOINT_EVERY = 100
_WARM_UP_STEPS = 30
_MIN_DISTANCE = 1e-2
_MAX_ROWS = 20_000
_RECALL = 0.9
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class TrainConfig:
    num_steps: int = 400
    batch_size: int = 96
    temperature: float = 0.05
    entropy_weight: float = 0.3
    learning_rate: float = 3e-3
    shrinkage: float = 0.1  # of the whitening, as a share of the largest spread
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Report:
    """`threshold`: the similarity that `recall` of the copies reach with their own clip.

    `called`: the share of pairs of a copy and another moment or scene of its source that reach it,
    too; None without such pairs.
    """

    threshold: float
    recall: float
    called: float | None


def train(
    looks: Looks, out: Path, config: TrainConfig, *, stop_after: int | None = None
) -> CopyHead:
    """The head after `num_steps`, or after `stop_after`, which leaves a checkpoint behind."""
    torch.set_num_threads(1)
    head = whitened_head(looks, config.shrinkage)
    optimizer = torch.optim.Adam(head.parameters(), lr=config.learning_rate)
    first = _resume(out / CHECKPOINT, head, optimizer)
    last = min(config.num_steps, stop_after or config.num_steps)
    for step in range(first, last):
        for group in optimizer.param_groups:
            group["lr"] = config.learning_rate * _schedule(step, config.num_steps)
        rng = np.random.default_rng([config.seed, step])
        one, other = (torch.from_numpy(x) for x in draw_batch(looks, rng, config.batch_size))
        loss = copy_loss(head(one), head(other), config)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        if (step + 1) % _CHECKPOINT_EVERY == 0 or step + 1 == last:
            _log.info("step %d: loss %.3f", step + 1, float(loss.detach()))
            _save(out / CHECKPOINT, head, optimizer, step + 1)
    return head.eval()


def copy_loss(one_ND: Tensor, other_ND: Tensor, config: TrainConfig) -> Tensor:
    """Each clip must find its own copy among those of the batch, both ways."""
    logits_NN = one_ND @ other_ND.T / config.temperature
    target_N = torch.arange(len(one_ND))
    loss = (F.cross_entropy(logits_NN, target_N) + F.cross_entropy(logits_NN.T, target_N)) / 2
    similarity_NN = other_ND @ other_ND.T - 2 * torch.eye(len(other_ND))
    nearest_N = (2 - 2 * similarity_NN.amax(dim=1)).clamp(min=_MIN_DISTANCE**2).sqrt()
    return loss - config.entropy_weight * nearest_N.log().mean()


def whitened_head(looks: Looks, shrinkage: float) -> CopyHead:
    """Where training begins: both parts project on principal directions of unedited clips."""
    clips_NTC = looks.features_NLTC[:, 0].astype(np.float32)
    head = CopyHead(clips_NTC.shape[2])
    means_NC = clips_NTC.mean(axis=1)
    changes_MC = (clips_NTC - means_NC[:, None]).reshape(-1, clips_NTC.shape[2])[:_MAX_ROWS]
    with torch.no_grad():
        mean_C = means_NC.mean(axis=0)
        head.mean_C.copy_(torch.from_numpy(mean_C))
        head.appearance_AC.copy_(_whitening(means_NC - mean_C, APPEARANCE_DIM, shrinkage))
        head.change_BC.copy_(_whitening(changes_MC, CHANGE_DIM, shrinkage))
    return head


def validate(head: CopyHead, looks: Looks) -> Report:
    """Every edited copy against the clip it was made from and against the source's other clips."""
    with torch.inference_mode():
        vectors_NLD = torch.stack(
            [head(torch.from_numpy(clip.astype(np.float32))) for clip in looks.features_NLTC]
        ).numpy()
    own_NL = np.einsum("nc,nlc->nl", vectors_NLD[:, 0], vectors_NLD[:, 1:])
    others = [
        vectors_NLD[index, 1:] @ vectors_NLD[other, 0]
        for index, source in enumerate(looks.source_N)
        for other in np.flatnonzero(looks.source_N == source)
        if other != index
    ]
    threshold = float(np.quantile(own_NL, 1 - _RECALL))
    is_called = np.concatenate(others) >= threshold if others else np.zeros(0, bool)
    return Report(threshold, _RECALL, float(is_called.mean()) if len(is_called) else None)


def _whitening(centered_MC: NDArray[np.float32], num_directions: int, shrinkage: float) -> Tensor:
    """Directions x C, those of most spread first; the first row has length 1."""
    _, spread, directions = np.linalg.svd(centered_MC, full_matrices=False)
    scaled = directions / (spread[:, None] + shrinkage * spread[0]) * spread[0] * (1 + shrinkage)
    rows = np.zeros((num_directions, centered_MC.shape[1]), np.float32)
    rows[: len(scaled)] = scaled[:num_directions]
    return torch.from_numpy(rows)


def _schedule(step: int, num_steps: int) -> float:
    return min(1.0, (step + 1) / _WARM_UP_STEPS) * (
        0.5 + 0.5 * float(np.cos(np.pi * step / num_steps))
    )


def _save(path: Path, head: CopyHead, optimizer: torch.optim.Optimizer, step: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    state = {"head": head.state_dict(), "optimizer": optimizer.state_dict(), "step": step}
    torch.save(state, partial)
    partial.replace(path)


def _resume(path: Path, head: CopyHead, optimizer: torch.optim.Optimizer) -> int:
    """The step to go on with."""
    if not path.exists():
        return 0
    state = torch.load(path, weights_only=True)
    head.load_state_dict(state["head"])
    optimizer.load_state_dict(state["optimizer"])
    return int(state["step"])
