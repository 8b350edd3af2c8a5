"""What a run writes about itself: metrics.jsonl, the console, TensorBoard, Weights & Biases.

metrics.jsonl has one line per logged step; `python -m modeling.scaling fit` reads it. All values of
a line are that step's own, but for the totals since the run began: tokens, flops, seconds.
"""

import importlib
import importlib.util
import json
import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from modeling.train.config import LogConfig
from modeling.train.errors import ConfigError

logger = logging.getLogger(__name__)

METRICS_FILE = "metrics.jsonl"
Row = Mapping[str, float | int | str | None]


class MetricsLog:
    """Lines of steps from `first_step` on are written anew; earlier ones stay."""

    def __init__(self, out: Path, config: LogConfig, *, first_step: int, run_config: Any) -> None:
        self._path = out / METRICS_FILE
        drop_later_lines(self._path, first_step)
        self._file = self._path.open("a")
        self._writer: Any = None
        if config.tensorboard and importlib.util.find_spec("tensorboard") is not None:
            from torch.utils.tensorboard import SummaryWriter

            self._writer = SummaryWriter(str(out / "tensorboard"), purge_step=first_step + 1)
        self._wandb: Any = None
        if config.wandb_project is not None:
            self._wandb = _start_wandb(config.wandb_project, out, run_config)

    def write(self, row: Row) -> None:
        """One logged step; `step` counts the steps done."""
        self._file.write(json.dumps(row) + "\n")
        self._file.flush()
        step = row["step"]
        numbers = {k: v for k, v in row.items() if isinstance(v, float | int) and k != "step"}
        if self._writer is not None:
            for name, value in numbers.items():
                self._writer.add_scalar(name, value, step)
        if self._wandb is not None:
            self._wandb.log(numbers, step=step)
        logger.info(console_line(row))

    def close(self) -> None:
        self._file.close()
        if self._writer is not None:
            self._writer.close()
        if self._wandb is not None:
            self._wandb.finish()


def drop_later_lines(path: Path, first_step: int) -> None:
    """Remove lines of steps that will be done again, and a last one that a kill cut short."""
    if not path.exists():
        return
    kept = []
    for line in path.read_text().splitlines():
        try:
            step = json.loads(line)["step"]
        except (ValueError, KeyError):
            continue
        if step <= first_step:
            kept.append(f"{line}\n")
    temporary = path.with_name(f".{path.name}.partial")
    temporary.write_text("".join(kept))
    os.replace(temporary, path)


def console_line(row: Row) -> str:
    """A row for a person: step, losses, time and wait, rates, memory, bucket."""
    parts = [f"step {row['step']}", f"loss {_number(row['loss'])}"]
    parts += [
        f"{name} {_number(row[name])}"
        for name in ("l1", "perceptual", "adversarial", "discriminator", "grad_norm")
        if name in row
    ]
    parts.append(f"{_number(row['step_s'])} s, wait {float(row['wait_share'] or 0):.1%}")
    parts.append(f"{float(row['tokens_per_s'] or 0):,.0f} tokens/s")
    mfu = "" if row["mfu"] is None else f", MFU {float(row['mfu']):.1%}"
    parts.append(f"{_number(row['tflops_per_s'])} TFLOP/s{mfu}")
    parts.append(f"peak {_number(row['peak_memory_gb'])} GB")
    parts.append(str(row["bucket"]))
    if row.get("skipped"):
        parts.append(f"{row['skipped']} skipped")
    return " | ".join(parts)


def _number(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float | int) else str(value)


def _start_wandb(project: str, out: Path, run_config: Any) -> Any:
    if importlib.util.find_spec("wandb") is None:
        raise ConfigError("log.wandb_project is set, but the package wandb is not installed")
    wandb = importlib.import_module("wandb")
    return wandb.init(project=project, dir=str(out), config=run_config, resume="allow")
