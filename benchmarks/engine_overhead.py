"""Milliseconds per part that the engine and the tables cost: parts whose work is nothing.

    python benchmarks/engine_overhead.py [--parts 500] [--items 16] [--engine inline|ray|both]

A pass of two workers; the second writes a table with one row per item. Starting Ray and its
actors is shown apart: it is paid once per run and once per pass, not per part.
"""

import argparse
import sys
import tempfile
import time
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from pipeline.arrow import schema_of
from pipeline.engine import EngineName, make_engine
from pipeline.engine.config import EngineConfig
from pipeline.engine.work import Part, PartReport, Pass, WorkerSpec
from pipeline.stage import Resources
from pipeline.storage import Store
from pipeline.tables import Table, part_key
from schemas.corpus import CorpusRow
from schemas.status import Failure


class Nothing:
    """The first worker: hands the part on."""

    def setup(self) -> None: ...

    def process(self, part: Part) -> Part:
        return part


class Rows:
    """The second worker: writes the table."""

    def __init__(self, output: str) -> None:
        self._output = output

    def setup(self) -> None:
        self._table = Table(Store(self._output), "overhead", "0" * 16, schema_of(CorpusRow))

    def process(self, part: Part) -> PartReport:
        rows = [CorpusRow(clip_id=item, cluster=0, weight=1.0) for item in part.items]
        self._table.write_part(part.key, rows, seconds=0.0)
        return PartReport(num_ok=len(rows), num_failed=0, seconds=0.0)


def refuse(part: Part, failure: Failure) -> PartReport:
    raise RuntimeError(f"part {part.key} failed: {failure.error}")


def make_pass(output: str, num_parts: int, num_items: int) -> Pass:
    groups = [[f"{p:06d}{i:04d}" for i in range(num_items)] for p in range(num_parts)]
    resources = Resources(num_cpus=0.25)
    return Pass(
        name="overhead",
        parts=[Part(part_key(group), tuple(group)) for group in groups],
        workers=(
            WorkerSpec(Nothing, resources, num_workers=1),
            WorkerSpec(partial(Rows, output), resources, num_workers=1),
        ),
        record_failure=refuse,
        item_timeout_s=60.0,
    )


def measure(name: EngineName, num_parts: int, num_items: int) -> None:
    config = EngineConfig(progress_interval_s=3600)
    with tempfile.TemporaryDirectory() as output:
        started = time.perf_counter()
        with make_engine(name, config) as engine:
            entered = time.perf_counter()
            # One part first: its time is that of starting the actors.
            engine.run(make_pass(f"{output}/warm", 1, num_items))
            warm = time.perf_counter()
            first_s = warm - entered
            engine.run(make_pass(f"{output}/few", num_parts // 10, num_items))
            few, few_cpu = time.perf_counter(), time.process_time()
            engine.run(make_pass(f"{output}/many", num_parts, num_items))
            many_s, few_s = time.perf_counter() - few, few - warm
            cpu_ms = 1000 * (time.process_time() - few_cpu) / num_parts
        ms_per_part = 1000 * (many_s - few_s) / (num_parts - num_parts // 10)
        print(
            f"{name}: {ms_per_part:.2f} ms/part ({num_items} items a part), of this process's CPU "
            f"{cpu_ms:.2f} ms; "
            f"start {entered - started:.1f} s, first pass of one part {first_s:.1f} s"
        )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--parts", type=int, default=500)
    parser.add_argument("--items", type=int, default=16)
    parser.add_argument("--engine", choices=("inline", "ray", "both"), default="both")
    arguments = parser.parse_args()
    if arguments.engine in ("inline", "both"):
        measure("inline", arguments.parts, arguments.items)
    if arguments.engine in ("ray", "both"):
        measure("ray", arguments.parts, arguments.items)
