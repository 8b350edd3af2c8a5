"""What a step was: the counters that checkpoints keep, and its row of the log."""

import resource
import sys

import torch

from modeling.data.batch_size import tokens
from modeling.data.loader import Batch
from modeling.train import cost
from modeling.train.checkpoint import Counters
from modeling.train.parallel import Parallel
from modeling.train.task import Task


def count_step(
    counters: Counters,
    task: Task,
    batch: Batch,
    values: dict[str, float],
    *,
    step: int,
    world_size: int,
    seconds: float,
    bad_in_a_row: int,
) -> Counters:
    """The counters after `step`, which was skipped if `values` has no share of the rate."""
    num_samples = len(batch.keys) * world_size
    shape = task.shape(batch.bucket, step)
    return Counters(
        samples=counters.samples + num_samples,
        tokens=counters.tokens + num_samples * tokens(shape),
        flops=counters.flops + task.flops(shape, num_samples=num_samples, step=step),
        seconds=counters.seconds + seconds,
        num_skipped=counters.num_skipped + ("rate_share" not in values),
        bad_in_a_row=bad_in_a_row,
        num_replaced=counters.num_replaced + batch.replaced,
    )


def log_row(
    counters: Counters,
    task: Task,
    batch: Batch,
    values: dict[str, float],
    parallel: Parallel,
    *,
    step: int,
    seconds: float,
    waited: float,
) -> dict[str, float | int | str | None]:
    """`step` counts from 0, the row from 1; `waited` are the seconds until the batch was there."""
    num_samples = len(batch.keys) * parallel.world_size
    shape = task.shape(batch.bucket, step)
    flops = task.flops(shape, num_samples=num_samples, step=step)
    tflops_per_s = flops / seconds / 1e12 / parallel.num_processes
    peak = cost.peak_tflops(parallel.device)
    return {
        "step": step + 1,
        **values,
        "tokens": counters.tokens,
        "flops": counters.flops,
        "params": task.num_parameters,
        "seconds": round(counters.seconds, 3),
        "samples": counters.samples,
        "bucket": shape.name,
        "step_s": round(seconds, 4),
        "wait_share": round(waited / seconds, 4),
        "tokens_per_s": round(num_samples * tokens(shape) / seconds, 1),
        "tflops_per_s": round(tflops_per_s, 6),
        "mfu": None if peak is None else round(tflops_per_s / peak, 4),
        "peak_memory_gb": round(_peak_memory(parallel.device) / 1e9, 3),
        "skipped": counters.num_skipped,
        "replaced": counters.num_replaced,
    }


def _peak_memory(device: torch.device) -> float:
    """Bytes: of PyTorch's allocations on a GPU, of the whole process on a CPU."""
    if device.type == "cuda":
        return float(torch.cuda.max_memory_allocated(device))
    unit = 1 if sys.platform == "darwin" else 1024
    return float(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit)
