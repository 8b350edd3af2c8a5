"""State on disk: one Parquet table per step, written once, part by part.

    OUTPUT/tables/<step>/<fingerprint>/part-<key>.parquet
    OUTPUT/tables/<step>/<fingerprint>/_done/<key>.json

A part counts when its done marker exists. The marker is written after the part, so a kill leaves
at most one part without a marker, which no reader sees and the next run replaces. A rerun plans
only items that no finished part holds.
"""

import hashlib
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pydantic import BaseModel

from pipeline.arrow import read_parquet, to_table
from pipeline.storage import StorageError, Store
from schemas.base import canonical_json

_NUM_READERS = 16  # of parts on an object store, at once


def part_key(item_ids: Iterable[str]) -> str:
    """16 hex digits from the items alone, whatever their order."""
    text = "\n".join(sorted(item_ids))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


class Table:
    """One step's table at one fingerprint (the hash of step version, config and weights)."""

    def __init__(self, store: Store, step: str, fingerprint: str, schema: pa.Schema) -> None:
        self.store = store
        self.step = step
        self.fingerprint = fingerprint
        self.schema = schema
        self.folder = f"tables/{step}/{fingerprint}"

    def part_path(self, key: str) -> str:
        return f"{self.folder}/part-{key}.parquet"

    def done_path(self, key: str) -> str:
        return f"{self.folder}/_done/{key}.json"

    def write_part(
        self, key: str, rows: Sequence[BaseModel | Mapping[str, Any]] | pa.Table, *, seconds: float
    ) -> None:
        """Write one part and then its marker. The same rows give the same bytes."""
        table = (
            rows.cast(self.schema) if isinstance(rows, pa.Table) else to_table(rows, self.schema)
        )
        buffer = io.BytesIO()
        pq.write_table(table, buffer, compression="zstd", store_schema=True)
        data = buffer.getvalue()
        self.store.write_bytes(self.part_path(key), data)
        marker = {
            "rows": table.num_rows,
            "bytes": len(data),
            "sha256": hashlib.sha256(data).hexdigest(),
            "seconds": round(seconds, 3),
        }
        self.store.write_bytes(self.done_path(key), canonical_json(marker).encode())

    def done_keys(self) -> list[str]:
        """Keys of the finished parts, sorted."""
        names = self.store.list(f"{self.folder}/_done")
        return [name.removesuffix(".json") for name in names if name.endswith(".json")]

    def is_done(self, key: str) -> bool:
        return self.store.exists(self.done_path(key))

    def marker(self, key: str) -> dict[str, Any]:
        marker: dict[str, Any] = json.loads(self.store.read_bytes(self.done_path(key)))
        return marker

    def read(
        self, columns: Sequence[str] | None = None, *, keys: Iterable[str] | None = None
    ) -> pa.Table:
        """All finished parts (or those of `keys`) as one table, in the order of their keys."""
        wanted = self.done_keys() if keys is None else sorted(keys)
        names = None if columns is None else list(columns)
        if self.store.is_local:
            parts = [self._read_part(key, names) for key in wanted]
        else:  # object stores answer slowly, but many at once
            with ThreadPoolExecutor(_NUM_READERS) as readers:
                parts = list(readers.map(lambda key: self._read_part(key, names), wanted))
        if not parts:
            schema = self.schema
            if columns is not None:
                schema = pa.schema([schema.field(name) for name in columns])
            return schema.empty_table()
        return pa.concat_tables(parts)

    def _read_part(self, key: str, columns: list[str] | None) -> pa.Table:
        path = self.part_path(key)
        try:
            return read_parquet(self.store.read_bytes(path), columns)
        except (OSError, pa.ArrowInvalid) as error:
            raise StorageError(
                f"{self.store.full(path)}: missing or damaged ({type(error).__name__}); remove "
                f"{self.store.full(self.done_path(key))} and run again to make it anew"
            ) from error

    def done_items(self, column: str) -> set[str]:
        """The items that a finished part already holds."""
        return {str(item) for item in pc.unique(self.read([column])[column]).to_pylist()}

    def discard_except(self, keys: Iterable[str]) -> None:
        """Remove finished parts that a companion table does not know (left by a kill)."""
        for key in set(self.done_keys()) - set(keys):
            self.store.remove(self.done_path(key))
            self.store.remove(self.part_path(key))
