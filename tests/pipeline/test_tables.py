"""Tables: what a kill, a rerun or damage can and cannot do to them."""

import json
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.arrow import schema_of, score_schema, to_table
from pipeline.storage import StorageError, Store
from pipeline.tables import Table, part_key
from schemas.clip import ClipRow, ShotCandidateRow
from schemas.corpus import CorpusRow
from schemas.scores import ClipScores, CropScore, MotionScore, OverlayScore, TextScore
from schemas.shard import ShardSample
from schemas.source import SourceRow
from schemas.tier import Bucket

ROWS = [CorpusRow(clip_id=name, cluster=index) for index, name in enumerate("abc")]


def corpus_table(location: object) -> Table:
    return Table(Store(str(location)), "corpus", "f" * 16, schema_of(CorpusRow))


@pytest.fixture(params=["local", "memory"])
def table(request: pytest.FixtureRequest, tmp_path: Path) -> Table:
    return corpus_table(tmp_path if request.param == "local" else f"memory://{tmp_path.name}")


def test_rows_come_back_as_they_were_written(table: Table) -> None:
    table.write_part("01", ROWS[:2], seconds=1.0)
    table.write_part("00", ROWS[2:], seconds=1.0)
    assert [CorpusRow.model_validate(row) for row in table.read().to_pylist()] == [
        ROWS[2],
        ROWS[0],
        ROWS[1],
    ]
    assert table.done_items("clip_id") == {"a", "b", "c"}
    assert table.read(["cluster"], keys=["01"])["cluster"].to_pylist() == [0, 1]
    assert table.is_done("00")
    assert not table.is_done("02")


def test_an_empty_table_has_its_columns(table: Table) -> None:
    assert table.read().schema == table.schema
    assert table.read(["weight"]).column_names == ["weight"]
    assert table.done_items("clip_id") == set()


def test_a_part_without_a_marker_is_not_seen_and_is_replaced(table: Table) -> None:
    table.write_part("00", ROWS, seconds=1.0)
    table.store.remove(table.done_path("00"))
    assert table.done_keys() == []
    table.write_part("00", ROWS[:1], seconds=1.0)
    assert table.read().num_rows == 1


def test_the_marker_comes_after_the_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table = corpus_table(tmp_path)
    written: list[str] = []
    monkeypatch.setattr(Store, "write_bytes", lambda self, path, data: written.append(path))
    table.write_part("00", ROWS, seconds=0.0)
    assert written == [table.part_path("00"), table.done_path("00")]


def test_the_same_rows_give_the_same_bytes_and_the_marker_names_them(tmp_path: Path) -> None:
    first, second = corpus_table(tmp_path / "one"), corpus_table(tmp_path / "two")
    for table in (first, second):
        table.write_part("00", ROWS, seconds=1.0)
    path = first.part_path("00")
    assert first.store.read_bytes(path) == second.store.read_bytes(path)
    marker = first.marker("00")
    assert marker["sha256"] == first.store.sha256(path)
    assert (marker["rows"], marker["bytes"]) == (3, first.store.size(path))


@pytest.mark.parametrize("damage", ["missing", "truncated", "not parquet"])
def test_a_damaged_part_is_named_with_its_remedy(tmp_path: Path, damage: str) -> None:
    table = corpus_table(tmp_path)
    table.write_part("00", ROWS, seconds=1.0)
    path = Path(table.store.full(table.part_path("00")))
    if damage == "missing":
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[:-9] if damage == "truncated" else b"<html>")
    with pytest.raises(StorageError, match=r"part-00\.parquet.*remove .*_done/00\.json") as caught:
        table.read()
    assert "\n" not in str(caught.value)


def test_a_column_that_the_table_lacks_is_an_error(table: Table) -> None:
    with pytest.raises(ValueError, match="columns \\['colour'\\] are not in the table"):
        table.write_part("00", [{"clip_id": "a", "colour": "red"}], seconds=0.0)
    with pytest.raises(ValueError, match="not matching"):
        table.write_part("00", pa.table({"clip_id": ["a"]}), seconds=0.0)
    assert table.done_keys() == []


def test_parts_that_a_companion_table_does_not_know_are_discarded(table: Table) -> None:
    for key in ("00", "01", "02"):
        table.write_part(key, ROWS, seconds=0.0)
    table.discard_except(["01", "77"])
    assert table.done_keys() == ["01"]


@given(st.lists(st.text(alphabet="abcdef0123456789", min_size=1), unique=True, min_size=1))
def test_a_part_key_depends_on_the_items_and_not_on_their_order(items: list[str]) -> None:
    key = part_key(items)
    assert part_key(reversed(items)) == key
    assert part_key([*items, "extra"]) != key
    assert len(key) == 16


@pytest.mark.parametrize(
    "model", [ClipRow, ShotCandidateRow, CorpusRow, SourceRow, ShardSample, ClipScores, Bucket]
)
def test_every_row_model_has_an_arrow_schema_with_its_fields(model: type[CorpusRow]) -> None:
    assert schema_of(model).names == list(model.model_fields)


@pytest.mark.parametrize("model", [MotionScore, TextScore, OverlayScore, CropScore])
def test_a_failed_score_is_nulls_beside_its_reason(model: type[MotionScore]) -> None:
    schema = score_schema(model)
    row = {"clip_id": "a", "ok": False, "error_class": "timeout", "error": "late"}
    (read,) = to_table([row], schema).to_pylist()
    assert json.dumps({name: read[name] for name in row}) == json.dumps(row)
    assert {read[name] for name in model.model_fields} == {None}
