"""Checked index rows in one local file, so that a restart over many shards takes no time.

The file's name holds the hash of the content; a file that does not read is as good as none.
"""

import os
import uuid
from pathlib import Path

import pyarrow as pa


def read_rows(path: Path) -> pa.Table | None:
    """None where there is no such file, or no whole one."""
    try:
        with pa.memory_map(str(path)) as file:
            return pa.ipc.open_file(file).read_all()
    except (FileNotFoundError, pa.ArrowInvalid):
        return None


def write_rows(path: Path, rows: pa.Table) -> None:
    """Whole or not at all, also where several ranks write at once. A full disk is no error."""
    temporary = path.with_name(f"{path.name}.{uuid.uuid4().hex}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with pa.OSFile(str(temporary), "wb") as file, pa.ipc.new_file(file, rows.schema) as writer:
            writer.write_table(rows)
        os.replace(temporary, path)
    except OSError:
        temporary.unlink(missing_ok=True)
