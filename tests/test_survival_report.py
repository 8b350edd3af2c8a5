"""A worker that is lost after its last write: its part counts, and is not worked on again."""

from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from pipeline.arrow import STATUS_FIELDS
from pipeline.engine.config import EngineConfig
from pipeline.engine.ledger import Ledger, Unit
from pipeline.engine.work import Part, PartReport, Pass
from pipeline.part_report import find_part_report
from pipeline.storage import Store
from pipeline.tables import Table
from schemas.status import Failure
from tests.walks import curate, write_config, write_pool

LOST = Failure(error_class="worker_died", error="its process ended")
FIELDS: "list[pa.Field[Any]]" = [pa.field("clip_id", pa.string(), nullable=False), *STATUS_FIELDS]


def never(part: Part, failure: Failure) -> PartReport:
    raise AssertionError(f"{part.key} is on disk already")


def test_a_written_part_is_counted_and_not_tried_again(tmp_path: Path) -> None:
    table = Table(Store(str(tmp_path)), "step", "f", pa.schema(FIELDS))
    part = Part("k", ("a", "b"))
    pass_ = Pass(
        name="step",
        parts=(part,),
        workers=(),
        record_failure=never,
        item_timeout_s=1.0,
        find_report=partial(find_part_report, table),
    )
    ledger = Ledger(pass_, EngineConfig())
    unit = ledger.take()
    assert unit is not None
    rows = [{"clip_id": "a", "ok": True}, {"clip_id": "b", "ok": False, **LOST.model_dump()}]
    table.write_part("k", rows, seconds=1.5)
    ledger.struck(unit, LOST)
    assert ledger.take() is None
    report = ledger.finish()
    assert (report.num_ok, report.num_failed, report.num_retries) == (1, 1, 0)
    assert report.reasons == {"worker_died": 1}


def test_every_pass_of_the_walk_finds_its_parts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Strike each part of each pass once it is written, as the loss of its worker would."""
    pool, config = write_pool(tmp_path / "pool"), write_config(tmp_path)
    struck: set[str] = set()

    def lose(ledger: Ledger, unit: Unit, report: PartReport) -> None:
        pass_ = ledger._pass
        found = pass_.find_report(unit.part)
        assert found is not None, pass_.name
        assert (found.num_ok, found.num_failed) == (report.num_ok, report.num_failed)
        assert dict(found.reasons) == dict(report.reasons)
        struck.add(pass_.name)
        ledger._count(unit.part, found)

    monkeypatch.setattr(Ledger, "succeeded", lose)
    curate(pool, tmp_path / "run", config)
    assert struck == {"ingest", "split", "embed", "score", "caption tier-1", "pack tier-1"}
