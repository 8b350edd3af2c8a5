"""The inline engine: every item ends in one row, whatever it does to its worker."""

import io
import json
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from pipeline.engine import make_engine
from pipeline.engine.config import EngineConfig
from pipeline.engine.errors import HaltError, WorkerBugError
from pipeline.engine.ledger import Ledger
from pipeline.engine.progress import Progress
from pipeline.engine.work import Part, PartReport, Pass, PassReport, WorkerSpec
from pipeline.stage import Resources
from pipeline.storage import StorageError
from schemas.status import Failure
from tests.pipeline.engine import doubling

CONFIG = EngineConfig()


def run(pass_: Pass) -> PassReport:
    with make_engine("inline", CONFIG) as engine:
        return engine.run(pass_)


def test_every_item_gets_one_row(tmp_path: Path) -> None:
    items = [f"n-{i}" for i in range(10)]
    report = run(doubling.make_pass(str(tmp_path), items))
    assert doubling.rows(str(tmp_path)) == doubling.expected(items)
    assert (report.num_ok, report.num_failed, report.num_retries) == (10, 0, 0)


def test_a_pass_without_parts_reports_zero_and_makes_no_worker(tmp_path: Path) -> None:
    report = run(doubling.make_pass(str(tmp_path), [], log=tmp_path))
    assert (report.num_ok, report.num_failed) == (0, 0)
    assert not (tmp_path / "workers").exists()


def test_an_item_that_raises_gets_a_failed_row_and_its_neighbors_none(tmp_path: Path) -> None:
    items = ["n-0", "raise-1", "n-2", "n-3", "n-4"]
    report = run(doubling.make_pass(str(tmp_path), items, log=tmp_path))
    good = [item for item in items if item != "raise-1"]
    wanted = sorted([*doubling.expected(good), ("raise-1", None, "worker_error")])
    assert doubling.rows(str(tmp_path)) == wanted
    assert report.reasons == {"worker_error": 1}
    tries = (tmp_path / "items").read_text().split()
    assert tries.count("raise-1") == 4  # two with its part, two alone
    error = doubling.table(str(tmp_path)).read(["error"])["error"].to_pylist()
    assert any("KeyError" in text and "doubling.py" in text for text in error if text)


def test_an_item_that_hangs_gets_a_failed_row_and_its_neighbors_none(tmp_path: Path) -> None:
    items = ["n-0", "hang-1", "n-2"]
    report = run(doubling.make_pass(str(tmp_path), items, item_timeout_s=0.2))
    wanted = sorted([*doubling.expected(["n-0", "n-2"]), ("hang-1", None, "timeout")])
    assert doubling.rows(str(tmp_path)) == wanted
    assert report.seconds < 5


def test_a_bug_that_every_item_shows_stops_the_run_and_records_nothing(tmp_path: Path) -> None:
    many = [f"raise-{i}" for i in range(400)]
    with pytest.raises(WorkerBugError, match="every item raises KeyError"):
        run(doubling.make_pass(str(tmp_path), many, log=tmp_path))
    assert len((tmp_path / "items").read_text().split()) <= 4 * CONFIG.max_startup_errors
    with pytest.raises(WorkerBugError, match="every item raises KeyError"):
        run(doubling.make_pass(str(tmp_path), ["raise-1"]))
    assert doubling.rows(str(tmp_path)) == []


def test_a_worker_that_lost_its_server_stops_the_run_and_blames_no_item(tmp_path: Path) -> None:
    items = ["n-0", "halt-1", "n-2"]
    with pytest.raises(HaltError, match="the server is gone"):
        run(doubling.make_pass(str(tmp_path), items, part_size=1))
    assert doubling.rows(str(tmp_path)) == doubling.expected(["n-0"])


class FullDisk(doubling.Writer):
    def process(self, doubled: Any) -> Any:
        raise StorageError("/out: no space left; free some and run the same command again")


def test_a_full_disk_stops_the_run_and_blames_no_item(tmp_path: Path) -> None:
    pass_ = doubling.make_pass(str(tmp_path), ["n-0", "n-1"])
    spec = WorkerSpec(partial(FullDisk, str(tmp_path)), Resources())
    broken = Pass(pass_.name, pass_.parts, (pass_.workers[0], spec), pass_.record_failure, 60.0)
    with pytest.raises(StorageError, match="no space left"):
        run(broken)
    assert doubling.rows(str(tmp_path)) == []


def test_a_part_that_was_written_before_its_worker_was_lost_is_not_split(tmp_path: Path) -> None:
    output = str(tmp_path)
    pass_ = doubling.make_pass(output, ["n-0", "n-1"])
    (part,) = pass_.parts
    ledger = Ledger(pass_, CONFIG)
    unit = ledger.take()
    assert unit is not None
    doubling.Writer.process(_ready(doubling.Writer(output)), (part, [0, 2]))
    ledger.struck(unit, Failure(error_class="timeout", error="late"))
    assert ledger.take() is None
    assert ledger.finish().num_ok == 2


def _ready(writer: doubling.Writer) -> doubling.Writer:
    writer.setup()
    return writer


def test_progress_lines_are_json_and_end_at_the_total(tmp_path: Path) -> None:
    stream = io.StringIO()
    pass_ = doubling.make_pass(str(tmp_path), [f"n-{i}" for i in range(8)])
    ledger = Ledger(pass_, CONFIG)
    progress = Progress(1e-9, str(tmp_path / "absent"), stream)
    progress.begin("double", ledger)
    while (unit := ledger.take()) is not None:
        ledger.succeeded(unit, PartReport(len(unit.part.items), 0, 0.0))
        progress.tick(num_in_flight=1)
    progress.end()
    lines = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert [line["done"] for line in lines] == [4, 8, 8]
    assert lines[-1]["total"] == 8
    assert lines[-1]["free_disk_gib"] > 0


def test_the_inline_engine_does_not_load_ray() -> None:
    code = (
        "import sys; from pipeline.engine import make_engine; "
        "from pipeline.engine.config import EngineConfig; "
        "make_engine('inline', EngineConfig()); sys.exit('ray' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_split_part_has_other_keys_than_any_part_that_it_came_from() -> None:
    from pipeline.engine.ledger import split_part

    part = Part(key="a" * 16, items=("x", "y"))
    keys = [one.key for one in split_part(part)]
    assert len({part.key, *keys}) == 3
    assert keys == [one.key for one in split_part(part)]
