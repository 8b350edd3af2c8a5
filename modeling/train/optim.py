"""Makes optimizers and moves their learning rate along the schedule."""

from collections.abc import Iterable

import torch
from torch import nn
from torch.optim import Optimizer

from modeling.train.optim_config import OptimConfig

# Matrices outside the blocks (embedders, the last layer) stay with AdamW.
_MUON_BLOCKS = ("double_blocks.", "single_blocks.")


def make_optimizers(network: nn.Module, config: OptimConfig) -> list[Optimizer]:
    """One AdamW, or Muon and AdamW with the parameters divided between them."""
    named = [(name, p) for name, p in network.named_parameters() if p.requires_grad]
    if config.optimizer == "adamw":
        return [make_adamw((p for _, p in named), config)]
    matrices = [p for name, p in named if p.ndim == 2 and name.startswith(_MUON_BLOCKS)]
    chosen = {id(p) for p in matrices}
    muon = torch.optim.Muon(
        matrices,
        lr=config.learning_rate,
        weight_decay=config.weight_decay,
        adjust_lr_fn="match_rms_adamw",
    )
    return [muon, make_adamw((p for _, p in named if id(p) not in chosen), config)]


def make_adamw(
    parameters: Iterable[nn.Parameter], config: OptimConfig, learning_rate: float | None = None
) -> Optimizer:
    """Fused: one kernel for all parameters, on CPU and GPU."""
    return torch.optim.AdamW(
        parameters,
        lr=learning_rate or config.learning_rate,
        betas=config.betas,
        eps=config.eps,
        weight_decay=config.weight_decay,
        fused=True,
    )


class Schedule:
    """Sets the learning rate of optimizers to a share of the one that they were made with."""

    def __init__(self, config: OptimConfig, optimizers: Iterable[Optimizer]) -> None:
        self._config = config
        self._groups = [group for each in optimizers for group in each.param_groups]
        self._peaks = [float(group["lr"]) for group in self._groups]

    def set(self, step: int) -> float:
        """For the update of this step, counted from 0. Returns the share."""
        share = self._config.rate_share(step)
        for group, peak in zip(self._groups, self._peaks, strict=True):
            group["lr"] = peak * share
        return share
