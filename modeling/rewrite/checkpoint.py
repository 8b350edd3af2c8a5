"""Where a fine-tuning run stands: written whole or not at all, the last two kept.

OUTPUT/run.json                     what the run is of; another run may not use the folder
OUTPUT/metrics.jsonl                one line per step
OUTPUT/checkpoints/step-000020.pt   adapter and optimizer
OUTPUT/adapter/                     the result, as peft saves it, with rewrite.json
"""

import json
import pickle
import re
from pathlib import Path
from typing import Any

import torch

from modeling.rewrite.errors import RewriteError

_NUM_KEPT = 2


class RunFolder:
    """One run's files."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._checkpoints = folder / "checkpoints"
        self._metrics = folder / "metrics.jsonl"

    def claim(self, identity: dict[str, Any]) -> None:
        """Begin here, or go on with the same run. Raises RewriteError for another one."""
        path = self.folder / "run.json"
        if path.exists():
            try:
                found = json.loads(path.read_text())
            except ValueError as error:
                raise RewriteError(f"{path} cannot be read; take another folder") from error
            if found != identity:
                changed = sorted(k for k in identity if found.get(k) != identity[k])
                raise RewriteError(
                    f"{self.folder} holds another run (it differs in {', '.join(changed)}); "
                    "take another folder"
                )
            return
        self._checkpoints.mkdir(parents=True, exist_ok=True)
        write_text(path, json.dumps(identity, indent=2, sort_keys=True) + "\n")

    def save(self, step: int, state: dict[str, Any]) -> None:
        path = self._checkpoints / f"step-{step:06d}.pt"
        temporary = path.with_name(f".{path.name}.partial")
        torch.save(state, temporary)
        temporary.replace(path)
        for old in self._steps()[:-_NUM_KEPT]:
            old.unlink()

    def load(self) -> dict[str, Any] | None:
        """The newest state, None before the first. Raises RewriteError."""
        steps = self._steps()
        if not steps:
            return None
        try:
            state: dict[str, Any] = torch.load(steps[-1], weights_only=True, map_location="cpu")
        except (RuntimeError, OSError, EOFError, pickle.UnpicklingError) as error:
            raise RewriteError(
                f"the checkpoint {steps[-1]} cannot be read; delete it to go on from the one before"
            ) from error
        return state

    def log(self, metrics: dict[str, Any]) -> None:
        with self._metrics.open("a") as file:
            file.write(json.dumps(metrics) + "\n")

    def cut_metrics(self, num_steps: int) -> None:
        """Forget the steps that come after the checkpoint."""
        if self._metrics.exists():
            lines = self._metrics.read_text().splitlines(keepends=True)
            kept = [line for line in lines if line.endswith("\n")]
            kept = [line for line in kept if json.loads(line)["step"] <= num_steps]
            write_text(self._metrics, "".join(kept))

    def _steps(self) -> list[Path]:
        found = self._checkpoints.glob("step-*.pt")
        return sorted(path for path in found if re.fullmatch(r"step-\d{6,}", path.stem))


def write_text(path: Path, text: str) -> None:
    """The whole file or none of it."""
    temporary = path.with_name(f".{path.name}.partial")
    temporary.write_text(text)
    temporary.replace(path)
