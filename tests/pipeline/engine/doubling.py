"""A small pass that writes a real table: doubles numbers, and breaks in every way when told to."""

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa

from pipeline.arrow import STATUS_FIELDS
from pipeline.engine.errors import HaltError
from pipeline.engine.work import Part, PartReport, Pass, WorkerSpec
from pipeline.stage import Resources
from pipeline.storage import Store
from pipeline.tables import Table, part_key
from schemas.status import Failure

COLUMNS: list["pa.Field[Any]"] = [
    pa.field("item", pa.string(), nullable=False),
    pa.field("value", pa.int64()),
    *STATUS_FIELDS,
]
SCHEMA = pa.schema(COLUMNS)


class Doubler:
    """First of the chain. Items `exit-*`, `hang-*`, `raise-*` and `halt-*` do what they say."""

    def __init__(self, log: Path | None = None, delay_s: float = 0.0) -> None:
        self._log = log
        self._delay_s = delay_s

    def setup(self) -> None:
        if self._log is not None:
            with (self._log / "workers").open("a") as file:
                file.write(f"{os.getpid()}\n")

    def process(self, part: Part) -> tuple[Part, list[int]]:
        for item in part.items:
            if self._log is not None:
                with (self._log / "items").open("a") as file:
                    file.write(f"{item}\n")
            _misbehave(item)
            time.sleep(self._delay_s)
        return part, [2 * int(item.rsplit("-", 1)[-1]) for item in part.items]


class NoWeights(Doubler):
    def setup(self) -> None:
        raise FileNotFoundError("weights.onnx")


class NoServer(Doubler):
    def setup(self) -> None:
        raise HaltError("the server is gone; start it and run again")


class Writer:
    """Last of the chain: one row per item."""

    def __init__(self, output: str) -> None:
        self._output = output

    def setup(self) -> None:
        self._table = table(self._output)

    def process(self, doubled: tuple[Part, list[int]]) -> PartReport:
        part, values = doubled
        rows = [
            {"item": item, "value": value, "ok": True}
            for item, value in zip(part.items, values, strict=True)
        ]
        self._table.write_part(part.key, rows, seconds=0.0)
        return PartReport(num_ok=len(rows), num_failed=0, seconds=0.0)


@dataclass(frozen=True)
class RecordFailure:
    output: str

    def __call__(self, part: Part, failure: Failure) -> PartReport:
        (item,) = part.items
        row = {
            "item": item,
            "ok": False,
            "error_class": failure.error_class,
            "error": failure.error,
        }
        table(self.output).write_part(part.key, [row], seconds=0.0)
        return PartReport(num_ok=0, num_failed=1, seconds=0.0, reasons={failure.error_class: 1})


def table(output: str) -> Table:
    return Table(Store(output), "double", "0" * 16, SCHEMA)


def rows(output: str) -> list[tuple[str, int | None, str | None]]:
    """Every row of the table, sorted: exactly once is one row per item."""
    columns = table(output).read(["item", "value", "error_class"]).to_pylist()
    return sorted((row["item"], row["value"], row["error_class"]) for row in columns)


def expected(items: Sequence[str]) -> list[tuple[str, int | None, str | None]]:
    return sorted((item, 2 * int(item.rsplit("-", 1)[-1]), None) for item in items)


def make_pass(
    output: str,
    items: Sequence[str],
    *,
    part_size: int = 4,
    log: Path | None = None,
    delay_s: float = 0.0,
    item_timeout_s: float = 60.0,
    num_workers: int | None = None,
    resources: Resources | None = None,
) -> Pass:
    """The items that no finished part holds, cut into parts."""
    done = table(output).done_items("item")
    todo = [item for item in items if item not in done]
    groups = [todo[at : at + part_size] for at in range(0, len(todo), part_size)]
    resources = resources or Resources(num_cpus=0.5)
    finished = set(table(output).done_keys())
    assert not finished & {part_key(group) for group in groups}
    return Pass(
        name="double",
        parts=[Part(key=part_key(group), items=tuple(group)) for group in groups],
        workers=(
            WorkerSpec(partial(Doubler, log, delay_s), resources, num_workers),
            WorkerSpec(partial(Writer, output), resources, num_workers),
        ),
        record_failure=RecordFailure(output),
        item_timeout_s=item_timeout_s,
        find_report=partial(find_report, output),
    )


def find_report(output: str, part: Part) -> PartReport | None:
    if part.key not in table(output).done_keys():
        return None
    return PartReport(num_ok=len(part.items), num_failed=0, seconds=0.0)


def _misbehave(item: str) -> None:
    if item.startswith("exit-"):
        os._exit(1)
    if item.startswith("hang-"):
        time.sleep(3600)
    if item.startswith("raise-"):
        raise KeyError(item)
    if item.startswith("halt-"):
        raise HaltError("the server is gone; start it and run again")
