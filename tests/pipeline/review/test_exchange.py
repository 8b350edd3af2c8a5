from pathlib import Path

import pyarrow.parquet as pq
import pytest

from pipeline.review.exchange import CSV_COLUMNS, export_file, import_file
from pipeline.review.judgement import Judgement, JudgementError
from pipeline.review.log import JudgementLog
from pipeline.storage import Store
from tests.pipeline.review.makers import judgement, withdrawal


@pytest.fixture
def made() -> list[Judgement]:
    first = judgement(1, "Ada", seconds=3.25, note='=HYPERLINK("x"), "quoted"\nsecond line')
    second = judgement(
        2,
        "Бо",
        "reject",
        subsets=("calm", "x-1"),
        criteria={"motion_blur": "poor", "lighting": "good"},
        fix={"style": "'drawn' by hand", "camera_movement": "zoom_in"},
    )
    return [first, second, withdrawal(second)]


@pytest.mark.parametrize("name", ["out/all.csv", "all.parquet"])
def test_what_is_exported_is_imported_to_the_same(
    tmp_path: Path, made: list[Judgement], name: str
) -> None:
    export_file(made, tmp_path / name)
    log = JudgementLog(Store(str(tmp_path / "other")))
    assert import_file(tmp_path / name, log) == (3, 3)
    assert JudgementLog(log.store).read() == made
    assert import_file(tmp_path / name, log) == (3, 0)


def test_a_spreadsheet_runs_nothing(tmp_path: Path, made: list[Judgement]) -> None:
    export_file(made, tmp_path / "all.csv")
    assert "\"'=HYPERLINK" in (tmp_path / "all.csv").read_text()


def test_the_table_has_reviewer_and_time(tmp_path: Path, made: list[Judgement]) -> None:
    export_file(made, tmp_path / "all.parquet")
    table = pq.read_table(tmp_path / "all.parquet")
    assert table["reviewer"].to_pylist() == ["Ada", "Бо", "Бо"]
    assert table["time"].to_pylist() == [one.time for one in made]


def test_a_wrong_row_is_named_and_nothing_is_added(tmp_path: Path, made: list[Judgement]) -> None:
    path = tmp_path / "all.csv"
    export_file(made, path)
    path.write_text(path.read_text().replace(",zoom_in,", ",zoom,").replace("zoom_in", "zoom"))
    log = JudgementLog(Store(str(tmp_path / "other")))
    with pytest.raises(JudgementError, match=r"all.csv: row 2: fix.camera_movement: "):
        import_file(path, log)
    assert log.read() == []


@pytest.mark.parametrize(
    ("name", "content", "line"),
    [
        ("a.csv", b"clip,verdict\n1,approve\n", "no such column: 'clip'"),
        ("a.csv", b"\xff\xfe\x00", "cannot be read"),
        ("a.parquet", b"PAR0", "cannot be read"),
        ("a.json", b"{}", "name it .csv or .parquet"),
        ("a.csv", ",".join(CSV_COLUMNS).encode() + b"\n1,2\n", "row 1: judgement_id"),
    ],
)
def test_a_wrong_file_is_refused(tmp_path: Path, name: str, content: bytes, line: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(JudgementError, match=line):
        import_file(tmp_path / name, JudgementLog(Store(str(tmp_path))))
    with pytest.raises(JudgementError, match="cannot be read"):
        import_file(tmp_path / "absent.csv", JudgementLog(Store(str(tmp_path))))
