"""The loop: batch, gradients, clip, guard, step, log, save. One for VAE and DiT, one GPU or many.

All randomness has a name (modeling/data/draw.py), so what a step does follows from the weights, the
optimizer and the step's number alone. That is why a run that was killed and resumed is, to the bit,
the run that was not.
"""

import json
import logging
import signal
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn

from modeling.data.latent_format import check_encoders
from modeling.data.loader import Batch
from modeling.train import checkpoint, cost, report
from modeling.train.checkpoint import Checkpointer, CheckpointState, Counters
from modeling.train.config import TrainConfig
from modeling.train.dit_task import DitTask
from modeling.train.errors import CheckpointError, ConfigError, TrainError
from modeling.train.export import replace_folder
from modeling.train.identity import run_identity
from modeling.train.metrics import MetricsLog
from modeling.train.parallel import Parallel
from modeling.train.parts import Part, cut
from modeling.train.state import allocate_optimizers, network_tensors, optimizer_tensors
from modeling.train.step_measures import count_step, log_row
from modeling.train.stop_signals import StopRequest
from modeling.train.stream import BatchStream
from modeling.train.task import Task, Values
from modeling.train.vae_task import VaeTask
from modeling.vae_loss import NanGuard

logger = logging.getLogger(__name__)

Resume = Literal["auto", "never"] | Path

SKIPPED_FILE = "skipped.jsonl"


@dataclass(frozen=True)
class RunResult:
    """`signal` is what stopped the run before its last step, or None."""

    step: int
    signal: signal.Signals | None
    final: Path | None
    previews: tuple[Path, ...] = ()


class Trainer:
    """One run in the folder `out`. `resume` is "auto", "never" or a checkpoint's folder.

    `stop_asked`, if set on any process, ends the run as SIGTERM does.

    Raises (all of its methods):
        TrainError, DataError: one line each; what was saved stays.

    """

    def __init__(
        self,
        config: TrainConfig,
        out: Path,
        parallel: Parallel,
        *,
        stream: BatchStream,
        plan: report.RunPlan,
        resume: Resume = "auto",
        init: Mapping[str, Tensor] | None = None,
        init_file: Path | None = None,
        stop_asked: threading.Event | None = None,
    ) -> None:
        self.config, self.out = config, out
        self._stop = StopRequest(stop_asked, heeds_second=parallel.num_processes == 1)
        self._parallel, self._stream, self._plan = parallel, stream, plan
        out.mkdir(parents=True, exist_ok=True)
        self._checkpointer = Checkpointer(out, config.checkpoint, parallel)
        self._source = self._find_checkpoint(resume)
        self.task: Task = self._make_task(init, init_file)
        self._guard = NanGuard(config.max_bad_steps)
        self.step = 0
        self.counters = Counters()
        self._identity = run_identity(config, self.task, stream)
        if self._source is not None:
            self._load(self._source)

    def run(self) -> RunResult:
        """Train to `config.steps`, or until SIGTERM or SIGINT; save either way."""
        if self.step < self.config.steps:
            if self._parallel.is_main:
                dumped = self.config.model_dump_json(indent=2)
                (self.out / "config.json").write_text(dumped + "\n")
            log = self._open_log()
            try:
                with self._stop.listening():
                    self._loop(log)
                    self._settle()
                    self._save(wait=True)
            except torch.OutOfMemoryError as error:
                raise self._out_of_memory() from error
            finally:
                if log is not None:
                    log.close()
                self._settle()
        if self._parallel.any(self._stop.signal is not None):
            return RunResult(self.step, self._stop.signal or signal.SIGTERM, None)
        return self._finish()

    def tensors(self) -> dict[str, Tensor]:
        """All that a checkpoint holds, by name."""
        everything = {**self.task.networks, **self.task.averages()}
        return {
            **network_tensors(everything),
            **optimizer_tensors(self.task.networks, self.task.optimizers),
        }

    def _loop(self, log: MetricsLog | None) -> None:
        config = self.config
        batches = self._stream.batches(self.step)
        stopping = False  # on all processes alike, whichever were told when
        try:
            while self.step < config.steps and not stopping:
                started = time.perf_counter()
                batch = next(batches)
                waited = time.perf_counter() - started
                values = self._train_step(batch)
                seconds = time.perf_counter() - started
                self.counters = count_step(
                    self.counters, self.task, batch, values,
                    step=self.step, world_size=self._parallel.world_size, seconds=seconds,
                    bad_in_a_row=self._guard.bad_in_a_row,
                )  # fmt: skip
                self.step += 1
                if self._due(config.log.every) and log is not None:
                    row = log_row(
                        self.counters, self.task, batch, values, self._parallel,
                        step=self.step - 1, seconds=seconds, waited=waited,
                    )  # fmt: skip
                    log.write(row)
                if self._due(config.checkpoint.every) and self.step < config.steps:
                    self._save(wait=False)
                if self._preview_is_due():
                    self._preview(self._parts(batch)[0], self._whole(self._best))
                stopping = self._parallel.any(self._stop.signal is not None)
        finally:
            batches.close()

    def _train_step(self, batch: Batch) -> dict[str, float]:
        """One update, or none if the loss or a gradient is not finite. Returns what to log."""
        for optimizer in self.task.optimizers:
            optimizer.zero_grad(set_to_none=True)
        parts = self._parts(batch)
        sums: Values = {}
        for number, part in enumerate(parts, start=1):
            found = self.task.gradients(part, step=self.step, last=number == len(parts))
            for name, value in found.items():
                sums[name] = sums[name] + value if name in sums else value
        norms = self.task.clip(self.config.optim.max_grad_norm or float("inf"))
        values = self._to_floats(sums, norms)
        if self._is_good(values, batch):
            values["rate_share"] = self.task.apply(step=self.step)
        return values

    def _is_good(self, values: dict[str, float], batch: Batch) -> bool:
        try:
            good = self._guard.allows(values, step=self.step)
        except ArithmeticError as error:
            self._dump_skipped(values, batch)
            newest = self._checkpointer.newest()
            raise TrainError(
                f"{error}; the samples are in {self.out / SKIPPED_FILE}, the newest checkpoint is "
                f"{newest or 'none'}: lower the learning rate, or look at the samples"
            ) from error
        if not good:
            self._dump_skipped(values, batch)
        return good

    def _dump_skipped(self, values: dict[str, float], batch: Batch) -> None:
        shown = {name: repr(value) for name, value in values.items()}
        row = {"step": self.step, "bucket": batch.bucket.name, "keys": batch.keys, "values": shown}
        name = SKIPPED_FILE if self._parallel.is_main else f"{self._parallel.rank}-{SKIPPED_FILE}"
        with (self.out / name).open("a") as file:
            file.write(json.dumps(row) + "\n")

    def _to_floats(self, sums: Values, norms: Values) -> dict[str, float]:
        """Sums over ranks; gradients' norms are equal on all. One wait for the device."""
        names = [*sums, *norms]
        summed = self._parallel.sum(torch.stack([value.float() for value in sums.values()]))
        # PyTorch's norm of no gradient at all is a number on the CPU.
        lengths = torch.stack([value.float().to(summed.device) for value in norms.values()])
        both = torch.cat([summed, lengths])
        return dict(zip(names, both.tolist(), strict=True))

    def _parts(self, batch: Batch) -> list[Part]:
        return cut(
            batch,
            self.config.compute,
            rank=self._parallel.rank,
            world_size=self._parallel.world_size,
        )

    def _preview_is_due(self) -> bool:
        preview = self.config.preview
        if preview is None or preview.every is None:
            return False
        return self.step < self.config.steps and self._due(preview.every)

    def _due(self, every: int) -> bool:
        return self.step % every == 0

    def _open_log(self) -> MetricsLog | None:
        if not self._parallel.is_main:
            return None
        dumped = self.config.model_dump(mode="json")
        return MetricsLog(self.out, self.config.log, first_step=self.step, run_config=dumped)

    def _save(self, *, wait: bool) -> None:
        """Write a checkpoint. In the middle of a run a failure is said and survived."""
        state = CheckpointState(
            step=self.step,
            data=self._stream.state,
            counters=self.counters,
            identity=self._identity,
            world_size=self._parallel.world_size,
            torch_version=torch.__version__,
        )
        try:
            self._checkpointer.save(state, self.tensors(), wait=wait)
        except CheckpointError as error:
            if wait:
                raise
            logger.error("%s; the run goes on", error)

    def _settle(self) -> None:
        """Let a checkpoint in the background become whole, however the loop ended."""
        try:
            self._checkpointer.join()
        except CheckpointError as error:
            logger.error("%s", error)

    def _load(self, source: Path) -> None:
        state = checkpoint.read_state(source)
        checkpoint.check_identity(source, state.identity, self._identity)
        if state.torch_version != torch.__version__:
            logger.warning(
                "%s was written by PyTorch %s, this is %s: results may differ in the last bits",
                source,
                state.torch_version,
                torch.__version__,
            )
        everything = {**self.task.networks, **self.task.averages()}
        shapes = checkpoint.tensor_shapes(source)
        tensors = {
            **network_tensors(everything),
            **allocate_optimizers(self.task.networks, self.task.optimizers, shapes),
        }
        checkpoint.load_tensors(source, tensors, alone=self._parallel.num_processes == 1)
        self.step, self.counters = state.step, state.counters
        self._guard.bad_in_a_row = state.counters.bad_in_a_row
        self._stream.state = state.data
        logger.info("resumed from %s: %d steps are done", source, self.step)

    def _find_checkpoint(self, resume: Resume) -> Path | None:
        if isinstance(resume, Path):
            checkpoint.read_state(resume)
            return resume
        newest = self._checkpointer.newest()
        if resume == "never" and newest is not None:
            raise ConfigError(
                f"--resume never, but {self.out} holds a run that got to step "
                f"{checkpoint.step_of(newest)}: give another --out, or remove it"
            )
        return newest

    def _make_task(self, init: Mapping[str, Tensor] | None, init_file: Path | None) -> Task:
        if self._source is not None and self.config.lora is None:
            init = None  # a checkpoint has all weights but the base of adapters
        checkpointing = self._plan.checkpointing
        if self.config.model == "vae":
            return VaeTask(self.config, self._parallel, checkpointing=checkpointing, init=init)
        task = DitTask(
            self.config,
            self._parallel,
            out=self.out,
            checkpointing=checkpointing,
            init=init,
            init_file=init_file,
        )
        if self._stream.is_latent:
            check_encoders(self._stream.corpus, task.latent_encoders())
        return task

    def _finish(self) -> RunResult:
        """final/ and the last previews, unless they are there already."""
        self._checkpointer.join()
        final = self.out / "final"
        names = ("model", *self.task.averages())
        networks = {name: self._whole(name) for name in names}
        if not self._parallel.is_main:
            return RunResult(self.step, None, final)
        whole = {name: each for name, each in networks.items() if each is not None}
        part = self._last_part()
        hashes = (self._stream.corpus.manifest_hash,)
        with replace_folder(final) as partial:
            self.task.write_final(partial, part, whole, step=self.step, data_manifests=hashes)
        return RunResult(self.step, None, final, tuple(self._preview(part, whole[self._best])))

    @property
    def _best(self) -> str:
        """What is sampled: the average where there is one."""
        return "ema" if self.task.averages() else "model"

    def _whole(self, name: str) -> nn.Module | None:
        """By all processes at once; None on those that need none."""
        return self._parallel.whole({**self.task.networks, **self.task.averages()}[name])

    def _last_part(self) -> Part:
        """Samples of the last step, read again: `final` follows from the step alone."""
        batches = self._stream.batches(self.step - 1)
        try:
            return self._parts(next(batches))[0]
        finally:
            batches.close()

    def _preview(self, part: Part, network: nn.Module | None) -> list[Path]:
        if self.config.preview is None or network is None or not self._parallel.is_main:
            return []
        written = self.task.preview(self.out / "previews", part, network, step=self.step)
        for path in written:
            logger.info("wrote %s", path)
        return written

    def _out_of_memory(self) -> TrainError:
        memory = self._plan.memory.total / 2**30
        device = self._parallel.device
        size = (cost.device_memory(device) or 0) / 2**30
        return TrainError(
            f"out of memory at step {self.step} on {device} with {size:.0f} GiB; the estimate was "
            f"{memory:.1f} GiB with recomputation {self._plan.checkpointing}: lower "
            "compute.micro_batch, set compute.activation_checkpointing = 'full', or lower the "
            "view's size"
        )
