"""Reading Parquet from memory: no thread of Arrow's that could outlive the interpreter."""

import io
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.arrow import read_parquet

_COUNT_THREADS = """
import sys
from pathlib import Path
from pipeline.arrow import read_parquet

def count() -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("Threads"))

before = count()
read_parquet(Path(sys.argv[1]).read_bytes())
print(count() - before)
"""


def written(table: pa.Table) -> bytes:
    buffer = io.BytesIO()
    pq.write_table(table, buffer)
    return buffer.getvalue()


def test_all_columns_or_those_that_are_named() -> None:
    table = pa.table({"a": [1, 2], "b": ["x", None]})
    assert read_parquet(written(table)).equals(table)
    assert read_parquet(written(table), ["b"]).column_names == ["b"]


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux's /proc")
def test_no_thread_is_started(tmp_path: Path) -> None:
    path = tmp_path / "table.parquet"
    columns = {f"c{number}": list(range(100)) for number in range(20)}
    path.write_bytes(written(pa.table(columns)))
    command = [sys.executable, "-c", _COUNT_THREADS, str(path)]
    found = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    assert int(found.stdout) == 0
