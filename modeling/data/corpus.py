"""All samples of one or more manifests as columns: what a plan and a reader need to know.

Media are not opened here. 1 M samples take about 100 MB.
"""

import hashlib
import math
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
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
from modeling.data.index_cache import read_rows, write_rows
from schemas.base import fingerprint
from schemas.shard import INDEX_COLUMNS, ShardEntry, ShardManifest
from schemas.tier import Bucket

Verify = Literal["index", "full"]
_READ_THREADS = 8
_AGAIN = "run the curation of this tier again, or fetch the shards again"

_PLACE = ("media_offset", "media_size", "json_offset", "json_size")
_INTEGERS = (*_PLACE, "num_frames", "height", "width")
_COLUMNS = pa.schema(
    [pa.field("key", pa.string())]
    + [pa.field(name, pa.int64()) for name in _INTEGERS]
    + [pa.field(name, pa.float64()) for name in ("fps", "weight")]
)


@dataclass(frozen=True, slots=True)
class ShardPlace:
    """One line of a manifest, the manifest's place, and the weight of its samples."""

    manifest: str
    entry: ShardEntry
    factor: float

    @property
    def path(self) -> str:
        return beside(self.manifest, self.entry.path)

    @property
    def index_path(self) -> str:
        return beside(self.manifest, self.entry.index_path)


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
        shards: Sequence[ShardPlace],
        rows: pa.Table,
        manifest_hash: str,
    ) -> None:
        self.manifests = tuple(manifests)
        self.shards = tuple(shard.path for shard in shards)
        self.manifest_hash = manifest_hash
        names = sorted({shard.entry.bucket for shard in shards})
        self.buckets = tuple(Bucket.from_name(name) for name in names)
        num_S = np.array([shard.entry.num_samples for shard in shards])
        bucket_S = np.array([names.index(shard.entry.bucket) for shard in shards])
        self.bucket_N: NDArray[np.int64] = np.repeat(bucket_S, num_S)
        factor_S = np.array([shard.factor for shard in shards])
        self.weight_N: NDArray[np.float64] = rows["weight"].to_numpy() * np.repeat(factor_S, num_S)
        self._shard_N = np.repeat(np.arange(len(shards)), num_S)
        self._keys = rows["key"].combine_chunks()
        self._fps_N = rows["fps"].to_numpy()
        self._place_XN = [rows[name].to_numpy() for name in _PLACE]

    def __len__(self) -> int:
        return len(self.bucket_N)

    @classmethod
    def open(
        cls,
        manifests: Sequence[str],
        weights: Sequence[float] | None = None,
        *,
        verify: Verify = "index",
        cache: Path | None = None,
    ) -> "ShardCorpus":
        """Read manifests and indexes, local or on any fsspec file system.

        Checked: the size of each shard, the sha256 of each index, its columns, that every member
        lies inside its shard, keys and totals; with "full" also the sha256 of each shard.

        Args:
            manifests: paths or URLs of `manifest.json` files.
            weights: how often a sample of each manifest is drawn, relative to the others.
            verify: "full" reads every shard once.
            cache: a local folder that keeps checked indexes, named by their content, so that a
                restart need not read them again.

        Raises:
            DataError: for the first thing that does not hold.

        """
        if not manifests:
            raise DataError("shards", "no manifest is given", "give at least one manifest.json")
        factors = _checked_weights(manifests, weights)
        read = [_read_manifest(location) for location in manifests]
        jobs = [
            ShardPlace(location, entry, factor)
            for location, manifest, factor in zip(manifests, read, factors, strict=True)
            for entry in manifest.shards
        ]
        if not jobs:
            raise DataError(manifests[0], "names no samples", "choose a tier with samples in it")
        with ThreadPoolExecutor(_READ_THREADS) as pool:
            list(pool.map(partial(_check_shard, verify=verify), jobs))
            kept = cache / f"index-{_content_hash(read)}.arrow" if cache else None
            rows = read_rows(kept) if kept else None
            if rows is None:
                rows = pa.concat_tables(pool.map(_read_index, jobs))
                _check_rows(jobs, rows)
                _check_totals(manifests, read, rows)
                if kept:
                    write_rows(kept, rows)
        return cls(read, jobs, rows, _content_hash(read, factors))

    def key(self, index: int) -> str:
        return str(self._keys[index].as_py())

    def place(self, index: int) -> SamplePlace:
        fps = float(self._fps_N[index])
        media_offset, media_size, json_offset, json_size = (
            int(column_N[index]) for column_N in self._place_XN
        )
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


def _check_shard(shard: ShardPlace, verify: Verify) -> None:
    wanted = shard.entry.num_bytes
    if (size := file_size(shard.path)) != wanted:
        raise DataError(shard.path, f"{size} bytes, the manifest says {wanted}", _AGAIN)
    if verify == "full":
        _check_digest(shard.path, file_sha256(shard.path), shard.entry.sha256)


def _read_index(shard: ShardPlace) -> pa.Table:
    """The index of one shard, checked against its line in the manifest."""
    entry, index = shard.entry, shard.index_path
    data = read_file(index)
    _check_digest(index, hashlib.sha256(data).hexdigest(), entry.index_sha256)
    file = pq.ParquetFile(pa.BufferReader(data), pre_buffer=False)
    if missing := set(INDEX_COLUMNS) - set(file.schema_arrow.names):
        raise DataError(index, f"has no column {sorted(missing)[0]}", _AGAIN)
    table = file.read(columns=_COLUMNS.names, use_threads=False)  # the caller has threads
    if table.num_rows != entry.num_samples:
        problem = f"{table.num_rows} samples, the manifest says {entry.num_samples}"
        raise DataError(index, problem, _AGAIN)
    return table.cast(_COLUMNS)


def _check_digest(path: str, found: str, wanted: str) -> None:
    if found != wanted:
        problem = f"its sha256 is {found[:12]}..., the manifest says {wanted[:12]}..."
        raise DataError(path, problem, _AGAIN)


def _check_rows(shards: Sequence[ShardPlace], rows: pa.Table) -> None:
    """All rows at once; the first that does not hold names its index."""
    num_S = [shard.entry.num_samples for shard in shards]
    buckets = [Bucket.from_name(shard.entry.bucket) for shard in shards]

    def refuse(is_bad_N: NDArray[np.bool_], problem: str) -> None:
        if is_bad_N.any():
            shard = shards[int(np.repeat(np.arange(len(shards)), num_S)[is_bad_N.argmax()])]
            raise DataError(shard.index_path, problem.format(bucket=shard.entry.bucket), _AGAIN)

    for name in ("num_frames", "height", "width"):
        wanted_N = np.repeat([getattr(bucket, name) for bucket in buckets], num_S)
        refuse(rows[name].to_numpy() != wanted_N, f"another {name} in a shard of {{bucket}}")
    num_bytes_N = np.repeat([shard.entry.num_bytes for shard in shards], num_S)
    for member in ("media", "json"):
        offset_N = rows[f"{member}_offset"].to_numpy()
        size_N = rows[f"{member}_size"].to_numpy()
        is_outside_N = (offset_N < 0) | (size_N <= 0) | (offset_N + size_N > num_bytes_N)
        refuse(is_outside_N, f"a {member} member lies outside the shard")
    weight_N = rows["weight"].to_numpy()
    refuse(~((weight_N >= 0) & np.isfinite(weight_N)), "a weight is negative or not a number")


def _check_totals(
    locations: Sequence[str], manifests: Sequence[ShardManifest], rows: pa.Table
) -> None:
    first = 0
    for location, manifest in zip(locations, manifests, strict=True):
        num = sum(entry.num_samples for entry in manifest.shards)
        own, totals = rows.slice(first, num), manifest.totals
        first += num
        counted = {
            "num_samples": num,
            "num_frames": int(own["num_frames"].to_numpy().sum()),
            "num_bytes": sum(entry.num_bytes for entry in manifest.shards),
        }
        for name, count in counted.items():
            if count != getattr(totals, name):
                problem = f"totals say {name} {getattr(totals, name)}, the shards {count}"
                raise DataError(location, problem, _AGAIN)
        if num_double := num - pc.count_distinct(own["key"]).as_py():
            raise DataError(location, f"{num_double} keys occur more than once", _AGAIN)


def _content_hash(manifests: Sequence[ShardManifest], weights: Sequence[float] = ()) -> str:
    shards = [
        [[entry.bucket, entry.sha256, entry.index_sha256] for entry in manifest.shards]
        for manifest in manifests
    ]
    return fingerprint(shards, list(weights))
