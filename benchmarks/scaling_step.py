"""One process of `benchmarks.scaling`: training steps of the video DiT in one layout.

The network is wrapped, averaged, clipped and updated by what the trainer uses; the batches are
drawn, each sample by its number, so that any layout sees the same ones.
"""

import os
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any, Literal

import torch
import torch.distributed as dist
from torch import Tensor

from benchmarks.step_timer import free_memory
from benchmarks.step_variants import Shape, network_config, randomize, step_flops
from modeling.data.draw import normal_like, share
from modeling.dit import DiTConfig, VideoDiT
from modeling.flow_matching import interpolate, velocity_loss
from modeling.kernels.select import apply_kernels
from modeling.train import compute, cost
from modeling.train.config import ComputeConfig, EmaConfig
from modeling.train.ema import Ema
from modeling.train.layout import Layout, local_rank
from modeling.train.optim import Schedule, make_optimizers
from modeling.train.optim_config import OptimConfig
from modeling.train.parallel import Parallel
from modeling.train.spread import make_parallel

_SEED = 0
_WARM_UP = 3
_LOSS_STEPS = 5


@dataclass(frozen=True)
class Job:
    """What one process group measures. `shape.batch` counts the samples of a data rank."""

    kind: Literal["speed", "losses"]
    layout: Layout
    shape: Shape
    tiny: bool
    backend: str | None = None  # of torch.compile; None: not compiled
    num_steps: int = _LOSS_STEPS


def run_jobs(jobs: list[Job]) -> Iterator[dict[str, Any]]:
    """On every process of a group, whose place the environment says; equal rows on all of them."""
    num_processes = jobs[0].layout.num_processes
    has_gpu = torch.cuda.is_available()
    device = torch.device("cuda", local_rank()) if has_gpu else torch.device("cpu")
    if has_gpu:
        torch.cuda.set_device(device)
    if num_processes > 1:
        dist.init_process_group("nccl" if has_gpu else "gloo")
    for job in jobs:
        row = _losses(job, device) if job.kind == "losses" else _speed(job, device)
        yield {**row, "kind": job.kind, "shape": asdict(job.shape)}
        free_memory()
    if num_processes > 1:
        dist.destroy_process_group()


class _Training:
    def __init__(
        self, job: Job, parallel: Parallel, config: DiTConfig, wanted: ComputeConfig
    ) -> None:
        self.job, self.parallel, self.config = job, parallel, config
        device = parallel.device
        self.dtype = compute.precision(wanted, device)
        torch.manual_seed(_SEED)
        with device:  # drawing 1.3 billion numbers on a CPU takes longer than the measurement
            self.network = VideoDiT(config)
        randomize(self.network)
        self.network.to(parallel.build_device)
        apply_kernels(self.network, compute.kernel_choice(wanted, device).operations)
        if (attention := compute.attention_choice(wanted, config, device)) is not None:
            self.network.set_attention(attention.attention)
        if job.backend is not None:
            for block in [*self.network.double_blocks, *self.network.single_blocks]:
                block.compile(backend=job.backend, dynamic=False)
        self.network.train()
        self.ema = Ema(self.network, EmaConfig())
        self.wrapped = parallel.wrap(self.network)
        parallel.place(self.ema.network)
        self.optimizers = make_optimizers(self.network, OptimConfig(warmup_steps=1))
        self.schedule = Schedule(OptimConfig(warmup_steps=1), self.optimizers)

    def step(self, number: int) -> float:
        """As the trainer's; the loss over all ranks."""
        for optimizer in self.optimizers:
            optimizer.zero_grad(set_to_none=True)
        job, parallel = self.job, self.parallel
        device = parallel.device
        fields = self._batch(number)
        x = interpolate(fields["latent"], fields["noise"], fields["sigma_B"])
        with parallel.accumulate(self.wrapped, last=True):
            with compute.autocast(device, self.dtype):
                predicted = self.wrapped(
                    x, fields["sigma_B"], fields["text"], fields["lengths"], fields["pooled"]
                )
            loss_B = velocity_loss(predicted, fields["latent"], fields["noise"])
            loss = loss_B.sum() / (job.shape.batch * job.layout.data_ranks)
            torch.autograd.backward(loss * parallel.grad_scale())
        parallel.clip_grad_norm(self.network.parameters(), 1.0)
        self.schedule.set(number)
        for optimizer in self.optimizers:
            optimizer.step()
        self.ema.follow(self.network, number)
        return float(parallel.sum(loss.detach()))

    def _batch(self, number: int) -> dict[str, Tensor]:
        """The data rank's samples; for a measurement of speed the same ones at every step."""
        job, config, device = self.job, self.config, self.parallel.device
        is_speed = job.kind == "speed"
        step = 0 if is_speed else number
        first = self.parallel.rank * job.shape.batch
        keys = tuple(str(first + index) for index in range(job.shape.batch))

        def drawn(name: str, *shape: int) -> Tensor:
            return normal_like(shape, seed=_SEED, keys=keys, step=step, stream=name, device=device)

        sizes = [size * patch for size, patch in zip(job.shape.grid_THW, config.patch, strict=True)]
        chosen = [share(seed=_SEED, key=key, step=step, stream="sigma") for key in keys]
        lengths = torch.full((len(keys),), job.shape.num_text)
        if not is_speed:  # texts of several lengths, which need a mask
            lengths -= torch.tensor([int(key) % 2 for key in keys])
        return {
            "latent": drawn("latent", config.in_channels, *sizes),
            "noise": drawn("noise", config.in_channels, *sizes),
            "text": drawn("text", job.shape.num_text, config.text_embed_dim),
            "pooled": drawn("pooled", config.pooled_projection_dim),
            "sigma_B": torch.tensor(chosen, device=device),
            "lengths": lengths,
        }


def _speed(job: Job, device: torch.device) -> dict[str, Any]:
    wanted = ComputeConfig()
    compute.prepare(wanted, device)
    parallel = make_parallel(job.layout, device, compute.precision(wanted, device))
    training = _Training(job, parallel, network_config(tiny=job.tiny), wanted)
    times, losses = [], []
    started = time.perf_counter()
    for number in range(_WARM_UP + job.num_steps):
        if number == _WARM_UP and device.type == "cuda":
            torch.cuda.reset_peak_memory_stats()
        parallel.barrier()
        before = time.perf_counter()
        losses.append(training.step(number))
        if device.type == "cuda":
            torch.cuda.synchronize()
        times.append(time.perf_counter() - before)
    first = times[0]
    seconds = median(times[_WARM_UP:])
    peak = torch.cuda.max_memory_allocated() if device.type == "cuda" else 0
    num_samples = job.shape.batch * job.layout.data_ranks
    flops, _ = step_flops(training.config, job.shape)
    flops *= job.layout.data_ranks
    top = cost.peak_tflops(device)
    mfu = None if top is None else flops / seconds / 1e12 / (top * job.layout.num_processes)
    row = {
        "ms": 1000 * seconds,
        "spread": (max(times[_WARM_UP:]) - min(times[_WARM_UP:])) / seconds,
        "samples": num_samples,
        "tokens/s": job.shape.num_tokens * job.layout.data_ranks / seconds,
        "TFLOP/s": flops / seconds / 1e12,
        "MFU": mfu,
        "peak GiB": _largest(peak / 2**30, device, job.layout),
        "first step s": first,
        "all steps s": time.perf_counter() - started,
        "attention": _attention_name(wanted, training.config, device),
        "kernels": compute.kernel_choice(wanted, device).name,
        "losses": losses,
    }
    parallel.close()
    return row


def _losses(job: Job, device: torch.device) -> dict[str, Any]:
    """Of a tiny network in fp32, whose sums differ by their order alone."""
    wanted = ComputeConfig(precision="fp32", kernels="plain")
    compute.prepare(wanted, device)
    torch.set_float32_matmul_precision("highest")
    parallel = make_parallel(job.layout, device, torch.float32)
    training = _Training(job, parallel, network_config(tiny=True), wanted)
    found = [training.step(number) for number in range(job.num_steps)]
    parallel.close()
    return {"losses": found}


def _attention_name(wanted: ComputeConfig, config: DiTConfig, device: torch.device) -> str:
    choice = compute.attention_choice(wanted, config, device)
    return "PyTorch's choice" if choice is None else choice.describe()


def _largest(value: float, device: torch.device, layout: Layout) -> float:
    if layout.num_processes == 1:
        return value
    values = torch.tensor(value, device=device)
    dist.all_reduce(values, op=dist.ReduceOp.MAX)
    return float(values)


def place_in_group(rank: int, num_processes: int, port: int) -> dict[str, str]:
    """What a launcher says to a process, over the environment that this one has."""
    return {
        **os.environ,
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": str(num_processes),
        "LOCAL_WORLD_SIZE": str(num_processes),
    }
