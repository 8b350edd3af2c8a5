"""All samples of one or more manifests as columns: what a plan and a reader need to know.

Media are not opened here. 1 M samples take about 100 MB.
"""

import hashlib
import io
import math
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray
from pydantic import ValidationError

from modeling.data.errors import DataError
from modeling.data.files import beside, file_sha256, file_size, is_url, read_file
from schemas.base import fingerprint
from schemas.shard import INDEX_COLUMNS, ShardEntry, ShardManifest
from schemas.tier import Bucket

Verify = Literal["index", "full"]
_READ_THREADS = 8
_AGAIN = "run the curation of this tier again, or fetch the shards again"

_PLACE = ("media_offset", "media_size", "json_offset", "json_size")
_INTEGERS = (*_PLACE, "shard", "bucket_id")
_COLUMNS = pa.schema(
    [pa.field("key", pa.string())]
    + [pa.field(name, pa.int64()) for name in _INTEGERS]
    + [pa.field(name, pa.float64()) for name in ("fps", "weight")]
)


@dataclass(frozen=True, slots=True)
class SamplePlace:
    """Where one sample lies."""

    key: str
    shard: str
    bucket: Bucket
    fps: float | None  # None for images
    media_offset: int
    media_size: int
    json_offset: int
    json_size: int


class ShardCorpus:
    """The columns, one row per sample in the order of the manifests.

    `weight_N` is the balance weight times the weight of its manifest. `manifest_hash` changes with
    the content of any shard, not with the place where the shards lie.
    """

    def __init__(
        self,
        manifests: Sequence[ShardManifest],
        shards: Sequence[str],
        buckets: Sequence[Bucket],
        rows: pa.Table,
        manifest_hash: str,
    ) -> None:
        self.manifests = tuple(manifests)
        self.shards = tuple(shards)
        self.buckets = tuple(buckets)
        self.manifest_hash = manifest_hash
        self.bucket_N: NDArray[np.int64] = rows["bucket_id"].to_numpy()
        self.weight_N: NDArray[np.float64] = rows["weight"].to_numpy()
        self._keys = rows["key"].combine_chunks()
        self._shard_N = rows["shard"].to_numpy()
        self._fps_N = rows["fps"].to_numpy()
        self._place_NX = np.stack([rows[name].to_numpy() for name in _PLACE], axis=1)

    def __len__(self) -> int:
        return len(self.bucket_N)

    @classmethod
    def open(
        cls,
        manifests: Sequence[str],
        weights: Sequence[float] | None = None,
        *,
        verify: Verify = "index",
    ) -> "ShardCorpus":
        """Read manifests and indexes, local or on any fsspec file system.

        Checked: the sha256 of each index, its columns, that every member lies inside its shard,
        keys, totals, and the size of each shard; with "full" also the sha256 of each shard.

        Args:
            manifests: paths or URLs of `manifest.json` files.
            weights: how often a sample of each manifest is drawn, relative to the others.
            verify: "full" reads every shard once.

        Raises:
            DataError: for the first thing that does not hold.

        """
        if not manifests:
            raise DataError("shards", "no manifest is given", "give at least one manifest.json")
        factors = _checked_weights(manifests, weights)
        read = [_read_manifest(location) for location in manifests]
        jobs = [
            (location, entry)
            for location, manifest in zip(manifests, read, strict=True)
            for entry in manifest.shards
        ]
        with ThreadPoolExecutor(_READ_THREADS) as pool:
            tables = list(pool.map(lambda job: _read_index(job[0], job[1], verify), jobs))
        buckets = sorted({entry.bucket for _, entry in jobs})
        parts: list[pa.Table] = []
        at = 0
        for location, manifest, factor in zip(manifests, read, factors, strict=True):
            own = tables[at : at + len(manifest.shards)]
            _check_totals(location, manifest, own)
            for number, (table, entry) in enumerate(
                zip(own, manifest.shards, strict=True), start=at
            ):
                parts.append(_numbered(table, number, buckets.index(entry.bucket), factor))
            at += len(own)
        if not parts:
            raise DataError(manifests[0], "names no samples", "choose a tier with samples in it")
        return cls(
            read,
            [beside(location, entry.path) for location, entry in jobs],
            [Bucket.from_name(name) for name in buckets],
            pa.concat_tables(parts),
            _content_hash(read, factors),
        )

    def key(self, index: int) -> str:
        return str(self._keys[index].as_py())

    def place(self, index: int) -> SamplePlace:
        fps = float(self._fps_N[index])
        media_offset, media_size, json_offset, json_size = map(int, self._place_NX[index])
        return SamplePlace(
            key=self.key(index),
            shard=self.shards[self._shard_N[index]],
            bucket=self.buckets[self.bucket_N[index]],
            fps=None if math.isnan(fps) else fps,
            media_offset=media_offset,
            media_size=media_size,
            json_offset=json_offset,
            json_size=json_size,
        )


def _checked_weights(manifests: Sequence[str], weights: Sequence[float] | None) -> list[float]:
    if weights is None:
        return [1.0] * len(manifests)
    if len(weights) != len(manifests):
        counts = f"{len(weights)} weights for {len(manifests)} manifests"
        raise DataError("weights", counts, "give one weight per manifest")
    if any(not math.isfinite(weight) or weight <= 0 for weight in weights):
        raise DataError("weights", f"{list(weights)}", "give positive numbers")
    return [float(weight) for weight in weights]


def _read_manifest(location: str) -> ShardManifest:
    if not is_url(location) and Path(location).is_dir():
        raise DataError(location, "is a folder", "give the manifest.json inside it")
    text = read_file(location)
    try:
        return ShardManifest.model_validate_json(text)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"]) or "JSON"
        problem = f"not a shard manifest of this version ({where}: {first['msg']})"
        raise DataError(location, problem, _AGAIN) from error


def _read_index(manifest: str, entry: ShardEntry, verify: Verify) -> pa.Table:
    """The index of one shard, checked against its line in the manifest."""
    shard, index = beside(manifest, entry.path), beside(manifest, entry.index_path)
    if (size := file_size(shard)) != entry.num_bytes:
        raise DataError(shard, f"{size} bytes, the manifest says {entry.num_bytes}", _AGAIN)
    if verify == "full" and (digest := file_sha256(shard)) != entry.sha256:
        problem = f"its sha256 is {digest[:12]}..., the manifest says {entry.sha256[:12]}..."
        raise DataError(shard, problem, _AGAIN)
    data = read_file(index)
    digest = hashlib.sha256(data).hexdigest()
    if digest != entry.index_sha256:
        problem = f"its sha256 is {digest[:12]}..., the manifest says {entry.index_sha256[:12]}..."
        raise DataError(index, problem, _AGAIN)
    table = pq.read_table(io.BytesIO(data))
    if missing := set(INDEX_COLUMNS) - set(table.column_names):
        raise DataError(index, f"has no column {sorted(missing)[0]}", _AGAIN)
    if table.num_rows != entry.num_samples:
        problem = f"{table.num_rows} samples, the manifest says {entry.num_samples}"
        raise DataError(index, problem, _AGAIN)
    _check_rows(index, entry, table)
    return table


def _check_rows(index: str, entry: ShardEntry, table: pa.Table) -> None:
    bucket = Bucket.from_name(entry.bucket)
    for column, value in (
        ("bucket", entry.bucket),
        ("num_frames", bucket.num_frames),
        ("height", bucket.height),
        ("width", bucket.width),
    ):
        found = set(pc.unique(table[column]).to_pylist())
        if found != {value}:
            problem = f"{column} {sorted(found, key=str)} in a shard of {entry.bucket}"
            raise DataError(index, problem, _AGAIN)
    for member in ("media", "json"):
        offset_N = table[f"{member}_offset"].to_numpy()
        size_N = table[f"{member}_size"].to_numpy()
        if offset_N.min() < 0 or size_N.min() <= 0 or (offset_N + size_N).max() > entry.num_bytes:
            raise DataError(index, f"a {member} member lies outside the shard", _AGAIN)
    weight_N = table["weight"].to_numpy()
    if not np.isfinite(weight_N).all() or weight_N.min() < 0:
        raise DataError(index, "a weight is negative or not a number", _AGAIN)


def _check_totals(location: str, manifest: ShardManifest, tables: Sequence[pa.Table]) -> None:
    totals = manifest.totals
    counted = {
        "num_samples": sum(table.num_rows for table in tables),
        "num_frames": sum(pc.sum(table["num_frames"]).as_py() for table in tables),
        "num_bytes": sum(entry.num_bytes for entry in manifest.shards),
    }
    for name, count in counted.items():
        if count != getattr(totals, name):
            problem = f"totals say {name} {getattr(totals, name)}, the shards {count}"
            raise DataError(location, problem, _AGAIN)
    if tables:
        keys = pa.concat_tables([table.select(["key"]) for table in tables])["key"]
        if num_double := len(keys) - pc.count_distinct(keys).as_py():
            raise DataError(location, f"{num_double} keys occur more than once", _AGAIN)


def _numbered(table: pa.Table, shard: int, bucket: int, factor: float) -> pa.Table:
    """The columns that the corpus keeps, with the numbers of the shard and the bucket."""
    num = table.num_rows
    kept = table.select(["key", *_PLACE, "fps"])
    for name, column in (
        ("shard", np.full(num, shard, np.int64)),
        ("bucket_id", np.full(num, bucket, np.int64)),
        ("weight", table["weight"].to_numpy() * factor),
    ):
        kept = kept.append_column(name, pa.array(column))
    return kept.select(_COLUMNS.names).cast(_COLUMNS)


def _content_hash(manifests: Sequence[ShardManifest], weights: Sequence[float]) -> str:
    shards = [
        [[entry.bucket, entry.sha256, entry.index_sha256] for entry in manifest.shards]
        for manifest in manifests
    ]
    return fingerprint(shards, list(weights))
