"""Checkpoints of a run: whole or not there, resumable to the bit, the newest few kept.

    OUT/checkpoints/step-00000500/
        tensors/      torch.distributed.checkpoint: weights, averages, optimizers
        state.json    CheckpointState, written last

A checkpoint is written under a hidden name and renamed when it is whole, so a process that is
killed at any moment leaves the older ones as they were.
"""

import json
import logging
import os
import shutil
import threading
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.filesystem import FileSystemReader
from torch.distributed.checkpoint.metadata import TensorStorageMetadata
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.checkpoint.state_dict_saver import save

from modeling.data.plan import PlanState
from modeling.train.config import CheckpointConfig
from modeling.train.errors import CheckpointError
from modeling.train.parallel import Parallel
from schemas.base import StrictModel

logger = logging.getLogger(__name__)

STATE_FILE = "state.json"
_TENSORS = "tensors"
_PLACE = "_place"  # where something lies: said, not compared
_ONE_PROCESS = "torch.distributed is disabled"  # a warning of PyTorch; here it is meant so


class Counters(StrictModel):
    """What a run has added up. `flops` are of the model, without recomputation."""

    samples: int = 0
    tokens: int = 0
    flops: float = 0.0
    seconds: float = 0.0
    num_skipped: int = 0
    bad_in_a_row: int = 0
    num_replaced: int = 0


class CheckpointState(StrictModel):
    """All but the tensors. There is no state of random numbers: every draw has a name.

    `step` counts the optimizer steps done. `identity` are the settings that decide what the run
    computes; `files` the sizes of the files below tensors/.
    """

    step: int
    data: PlanState
    counters: Counters
    identity: dict[str, Any]
    world_size: int
    torch_version: str
    files: dict[str, int] = {}


class Checkpointer:
    """Writes and finds the checkpoints of one run."""

    def __init__(self, out: Path, config: CheckpointConfig, parallel: Parallel) -> None:
        self.folder = out / "checkpoints"
        self.config = config
        self._parallel = parallel
        self._thread: threading.Thread | None = None
        self._failure: CheckpointError | None = None
        if parallel.is_main:
            for left_over in self.folder.glob(".*"):
                shutil.rmtree(left_over, ignore_errors=True)
        parallel.barrier()

    def save(self, state: CheckpointState, tensors: Mapping[str, Tensor], *, wait: bool) -> None:
        """Write one checkpoint; without `wait`, from a copy and in the background.

        Raises:
            CheckpointError: this one, or the one before in the background, was not written.

        """
        self.join()
        background = self.config.asynchronous and not wait and self._parallel.num_processes == 1
        if not background:
            self._write(state, dict(tensors))
            return
        copies = {name: tensor.detach().to("cpu", copy=True) for name, tensor in tensors.items()}
        self._thread = threading.Thread(target=self._write_quietly, args=(state, copies))
        self._thread.start()

    def join(self) -> None:
        """Wait for the checkpoint in the background. Raises CheckpointError if it failed."""
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        failure, self._failure = self._failure, None
        if failure is not None:
            raise failure

    def newest(self) -> Path | None:
        """The newest whole checkpoint; one whose files have changed is passed over, loudly."""
        for path in reversed(all_checkpoints(self.folder)):
            if problem := damage(path):
                logger.warning("%s is damaged (%s): taking an older one", path, problem)
                continue
            return path
        return None

    def _write_quietly(self, state: CheckpointState, tensors: dict[str, Tensor]) -> None:
        try:
            self._write(state, tensors)
        except CheckpointError as error:
            self._failure = error

    def _write(self, state: CheckpointState, tensors: dict[str, Tensor]) -> None:
        parallel = self._parallel
        name = f"step-{state.step:08d}"
        partial, final = self.folder / f".{name}.partial", self.folder / name
        try:
            self._on_main(lambda: self._make_room(partial, tensors))
            save_tensors(partial / _TENSORS, tensors, alone=parallel.num_processes == 1)
            self._on_main(lambda: self._finish(state, partial, final))
        except (OSError, CheckpointException) as error:
            shutil.rmtree(partial, ignore_errors=True)
            older = all_checkpoints(self.folder)
            left = f"{older[-1]} is whole" if older else "there is no older one"
            raise CheckpointError(
                f"the checkpoint of step {state.step} was not written ({_reason(error)}); {left}"
            ) from error

    def _on_main(self, work: Callable[[], None]) -> None:
        """The main process works, the others wait. Where it fails, OSError on every process."""
        failure: OSError | None = None
        if self._parallel.is_main:
            try:
                work()
            except OSError as error:
                failure = error
        if self._parallel.any(failure is not None):
            raise failure or OSError("the main process could not write it")

    def _make_room(self, partial: Path, tensors: Mapping[str, Tensor]) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir()
        _check_space(self.folder, tensors)

    def _finish(self, state: CheckpointState, partial: Path, final: Path) -> None:
        whole = state.model_copy(update={"files": _sizes(partial / _TENSORS)})
        _write_durably(partial / STATE_FILE, whole.model_dump_json(indent=2) + "\n")
        if final.exists():
            _remove(final)
        partial.rename(final)
        self._prune()

    def _prune(self) -> None:
        every = self.config.keep_every
        for path in all_checkpoints(self.folder)[: -self.config.keep]:
            if every is None or step_of(path) % every:
                _remove(path)


def all_checkpoints(folder: Path) -> list[Path]:
    """Finished checkpoints, oldest first."""
    return sorted(path.parent for path in folder.glob(f"step-*/{STATE_FILE}"))


def step_of(checkpoint: Path) -> int:
    return int(checkpoint.name.removeprefix("step-"))


def read_state(checkpoint: Path) -> CheckpointState:
    """Raises CheckpointError for a folder that is no whole checkpoint."""
    file = checkpoint / STATE_FILE
    if not file.is_file():
        raise CheckpointError(f"{checkpoint} is no checkpoint: it has no {STATE_FILE}")
    if problem := damage(checkpoint):
        raise CheckpointError(f"{checkpoint} is damaged: {problem}")
    return CheckpointState.model_validate_json(file.read_text())


def damage(checkpoint: Path) -> str | None:
    """What is wrong with a checkpoint's files, or None."""
    try:
        expected = json.loads((checkpoint / STATE_FILE).read_text())["files"]
    except (ValueError, KeyError):
        return f"{STATE_FILE} cannot be read"
    found = _sizes(checkpoint / _TENSORS)
    for name, size in expected.items():
        if found.get(name) != size:
            return f"{name} has {found.get(name)} bytes, {size} were written"
    return None


def save_tensors(folder: Path, tensors: dict[str, Tensor], *, alone: bool) -> None:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=_ONE_PROCESS)
        save(tensors, checkpoint_id=folder, no_dist=alone)


def load_tensors(checkpoint: Path, into: dict[str, Tensor], *, alone: bool) -> None:
    """Fill tensors in place. Raises CheckpointError if names or shapes differ."""
    found = tensor_shapes(checkpoint)
    wanted = {name: tuple(tensor.shape) for name, tensor in into.items()}
    for name in sorted(found.keys() ^ wanted.keys()):
        which = "lacks" if name in wanted else "has, unlike this run,"
        raise CheckpointError(f"{checkpoint} {which} {name}")
    for name, shape in wanted.items():
        if found[name] != shape:
            raise CheckpointError(f"{checkpoint}: {name} is {found[name]}, this run has {shape}")
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=_ONE_PROCESS)
        load(into, checkpoint_id=checkpoint / _TENSORS, no_dist=alone)


def tensor_shapes(checkpoint: Path) -> dict[str, tuple[int, ...]]:
    """Names and shapes of a checkpoint's tensors."""
    metadata = FileSystemReader(checkpoint / _TENSORS).read_metadata()
    return {
        name: tuple(each.size)
        for name, each in metadata.state_dict_metadata.items()
        if isinstance(each, TensorStorageMetadata)
    }


def check_identity(checkpoint: Path, saved: Mapping[str, Any], own: Mapping[str, Any]) -> None:
    """Raise CheckpointError that names the first setting in which two runs differ."""
    before, now = _flat(saved), _flat(own)
    # A hash differs because something else does: name it only where nothing else is found.
    ends = ("_hash", "_fingerprint")
    for key in sorted(before.keys() | now.keys(), key=lambda key: (key.endswith(ends), key)):
        if before.get(key) != now.get(key) and not key.endswith(_PLACE):
            raise CheckpointError(
                f"{checkpoint} was made with {key} = {_shown(before, key)}, this run has "
                f"{_shown(now, key)}; use its settings, or begin in another --out (with "
                "--init-from for its weights)"
            )


def _shown(values: Mapping[str, Any], key: str) -> str:
    place = values.get(key.removesuffix("_fingerprint") + _PLACE)
    return repr(values.get(key)) if place is None else f"{values[key]!r} ({place})"


def _flat(value: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, each in value.items():
        if isinstance(each, Mapping) and each:
            flat |= _flat(each, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = list(each) if isinstance(each, tuple) else each
    return flat


def _check_space(folder: Path, tensors: Mapping[str, Tensor]) -> None:
    needed = sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise OSError(f"it needs {needed / 1e9:.2f} GB, {free / 1e9:.2f} GB are free")


def _sizes(folder: Path) -> dict[str, int]:
    return {path.name: path.stat().st_size for path in sorted(folder.iterdir())}


def _write_durably(path: Path, text: str) -> None:
    with path.open("w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())


def _remove(checkpoint: Path) -> None:
    """Under a hidden name first: what is half removed is no checkpoint any more."""
    hidden = checkpoint.with_name(f".{checkpoint.name}.removed")
    checkpoint.rename(hidden)
    shutil.rmtree(hidden)


def _reason(error: BaseException) -> str:
    """The first cause inside a CheckpointException, or the error itself."""
    if isinstance(error, CheckpointException):
        inner = next(iter(error.failures.values()))[0]
        return str(inner)
    return getattr(error, "strerror", None) or str(error)
