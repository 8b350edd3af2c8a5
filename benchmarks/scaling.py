"""How training of the video DiT scales from one GPU to several of one host.

One layout after another, each in processes of its own: one GPU; DDP and FSDP2 with a constant batch
a GPU (weak scaling, 4 x 4352 tokens); divided tokens with one long sample for all GPUs (strong
scaling, 1 x 32768 tokens). The 1.3 B network with kernels, attention and compiled blocks as the
trainer has them, fp32 weights, fused AdamW, average of the weights, no recomputation. Beforehand
each layout trains a tiny network in fp32 on four samples for five steps: its losses have to be
those of one GPU to 1e-4.

Efficiency: tokens/s over GPUs x tokens/s of one GPU. TFLOP/s and MFU as the trainer counts them.

Run: python -m benchmarks.scaling --out OUT.json [--gpus 2] [--seconds 300] [--tiny]
    [--only GPU context]
"""

import argparse
import json
import os
import socket
import subprocess
import sys
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from benchmarks.scaling_step import Job, place_in_group, run_jobs
from benchmarks.step_timer import Record, machine
from benchmarks.step_variants import SHAPES, TINY_SHAPES, Shape
from modeling.train.layout import Layout, is_main_process

LOSS_TOLERANCE = 1e-4  # relative, of each step
LAYOUTS = ["GPU", "ddp", "fsdp", "context"]  # the last words of the groups' names
_LOSS_SHAPE = Shape(4, (3, 2, 3), 5)
_NEEDS_S = 50.0  # of one group of processes: start, checks, compilation, steps


def groups(
    num_gpus: int, *, tiny: bool, backend: str | None, num_steps: int
) -> dict[str, list[Job]]:
    """What each group of processes does, in order of value."""
    shapes = TINY_SHAPES if tiny else SHAPES
    layouts = {
        "1 GPU": (Layout(), ["medium", "long"]),
        f"{num_gpus} GPUs, ddp": (Layout(num_gpus), ["medium"]),
        f"{num_gpus} GPUs, fsdp": (Layout(num_gpus, shard_ranks=num_gpus), ["medium"]),
        f"{num_gpus} GPUs, context": (Layout(num_gpus, context_ranks=num_gpus), ["long"]),
    }
    made = {}
    for name, (layout, chosen) in layouts.items():
        local = replace(_LOSS_SHAPE, batch=_LOSS_SHAPE.batch // layout.data_ranks)
        made[name] = [
            Job("losses", layout, local, tiny),
            *(Job("speed", layout, shapes[each], tiny, backend, num_steps) for each in chosen),
        ]
    return made


def measure(name: str, arguments: list[str], num_processes: int, seconds: float) -> list[Any]:
    """Rows of a group. Raises RuntimeError where it fails or takes too long."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "benchmarks.scaling", *arguments, "--group", name]
    deadline = time.monotonic() + seconds
    # Rows come one a line; what is not of the first process goes where errors go.
    processes = [
        subprocess.Popen(
            command,
            env=place_in_group(rank, num_processes, port),
            stdout=subprocess.PIPE if rank == 0 else sys.stderr,
            text=True,
        )
        for rank in range(num_processes)
    ]
    try:
        while any(process.poll() is None for process in processes):
            if any(process.poll() for process in processes):
                break
            if time.monotonic() > deadline:
                raise RuntimeError(f"not done after {seconds:.0f} s")
            time.sleep(0.1)
        codes = [process.poll() for process in processes]
        if any(codes) or None in codes:
            raise RuntimeError(f"the processes ended with {codes}")
        assert processes[0].stdout is not None
        lines = processes[0].stdout.read().splitlines()
    finally:
        for process in processes:
            process.kill()
            process.wait()
    return [json.loads(line) for line in lines if line.startswith("{")]


def _main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--gpus", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=300.0)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--tiny", action="store_true", help="to try the program, on a CPU too")
    parser.add_argument("--backend", default="inductor", help="of torch.compile; none: eager")
    parser.add_argument("--only", nargs="+", choices=LAYOUTS, default=LAYOUTS)
    parser.add_argument("--group", help=argparse.SUPPRESS)
    args = parser.parse_args()
    backend = None if args.backend == "none" else args.backend
    todo = groups(args.gpus, tiny=args.tiny, backend=backend, num_steps=args.steps)
    if args.group is not None:
        for row in run_jobs(todo[args.group]):
            if is_main_process():
                print(json.dumps(row), flush=True)
        return
    record = Record(args.out, args.seconds)
    switches = ("NCCL_NVLS_ENABLE", "TORCH_SYMM_MEM_DISABLE_MULTICAST")
    record.about |= {**machine(), **{name: os.environ.get(name, "") for name in switches}}
    alone: dict[str, dict[str, Any]] = {}
    for name, jobs in todo.items():
        if name.split()[-1] not in args.only:
            continue
        layout = jobs[0].layout
        needs = 0 if args.tiny else _NEEDS_S
        if record.left < needs:
            record.add("not run", {"name": name, "why": f"{record.left:.0f} s left"})
            continue
        started = time.monotonic()
        try:
            rows = measure(name, sys.argv[1:], layout.num_processes, record.left)
        except RuntimeError as error:
            record.add("failed", {"name": name, "why": str(error)})
            continue
        for row in rows:
            key = json.dumps(row["shape"]) if row["kind"] == "speed" else "losses"
            if layout.num_processes == 1:
                alone[key] = row
            _report(record, name, row, alone.get(key), layout)
        record.add("seconds", {"name": name, "seconds": round(time.monotonic() - started, 1)})
    args.out.with_suffix(".md").write_text(record.markdown())


def _report(
    record: Record, name: str, row: dict[str, Any], alone: dict[str, Any] | None, layout: Layout
) -> None:
    if row["kind"] == "losses":
        found = {"name": name, "last": row["losses"][-1], "losses": row["losses"]}
        if alone is not None:
            pairs = zip(row["losses"], alone["losses"], strict=True)
            worst = max(abs(own / other - 1) for own, other in pairs)
            verdict = "equal" if worst <= LOSS_TOLERANCE else "NOT EQUAL"
            found |= {"difference": f"{worst:.1e}", f"to {LOSS_TOLERANCE:g}": verdict}
        record.add("losses, fp32", found)
        return
    shape = Shape(**{**row["shape"], "grid_THW": tuple(row["shape"]["grid_THW"])})
    efficiency = ""
    if alone is not None:
        share = row["tokens/s"] / alone["tokens/s"] / layout.num_processes
        efficiency = f"{share:.1%}"
    record.add(
        f"speed {shape}",
        {
            "name": name,
            "ms": round(row["ms"], 1),
            "spread": f"{row['spread']:.1%}",
            "samples": row["samples"],
            "tokens/s": round(row["tokens/s"]),
            "efficiency": efficiency,
            "TFLOP/s": round(row["TFLOP/s"], 1),
            "MFU": "" if row["MFU"] is None else f"{row['MFU']:.1%}",
            "peak GiB": round(row["peak GiB"], 1),
            "first step s": round(row["first step s"], 1),
            "last loss": round(row["losses"][-1], 5),
            "attention": row["attention"],
            "kernels": row["kernels"],
            "losses": row["losses"],
            "layout": asdict(layout),
        },
    )


if __name__ == "__main__":
    _main()
