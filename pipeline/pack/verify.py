"""Recomputes every hash, count and key of a manifest's shards, and names what does not hold."""

import re
import tarfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

import pyarrow as pa
from pydantic import ValidationError

from pipeline.arrow import read_parquet
from pipeline.pack.encode import MEDIA_SUFFIX
from pipeline.pack.shard import INDEX_SCHEMA
from pipeline.storage import Store
from schemas.shard import (
    INDEX_COLUMNS,
    IndexRow,
    ManifestTotals,
    ShardEntry,
    ShardManifest,
    ShardSample,
)

_SHARD_NAME = re.compile(r"(.+)-([0-9a-f]{8})-\d{6}(\.tar|\.index\.parquet)")
_SECONDS_TOLERANCE = 1e-3


@dataclass(frozen=True, slots=True)
class Problem:
    """`shard` is the path beside the manifest, or `manifest.json` itself."""

    shard: str
    message: str


@dataclass(frozen=True, slots=True)
class VerifyReport:
    """`other_plans`: well-formed shards of other plans in the tier's folder; never an error."""

    num_shards: int
    num_samples: int
    problems: tuple[Problem, ...]
    other_plans: tuple[str, ...]

    @property
    def ok(self) -> bool:
        return not self.problems


def split_manifest_location(location: str) -> tuple[Store, str]:
    """The folder of a manifest and its name in it."""
    folder, _, name = location.rpartition("/")
    return Store(folder or "."), name


def verify_manifest(location: str) -> VerifyReport:
    """Check a manifest file and everything beside it. Never stops at the first problem."""
    folder, name = split_manifest_location(location)
    try:
        manifest = ShardManifest.model_validate_json(folder.read_bytes(name))
    except FileNotFoundError:
        return VerifyReport(0, 0, (Problem(name, "there is no such file"),), ())
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        return VerifyReport(0, 0, (Problem(name, f"{where}: {first['msg']}"),), ())
    problems: list[Problem] = []
    rows: list[IndexRow] = []
    for entry in manifest.shards:
        problems.extend(_check_shard(folder, manifest, entry, rows))
    problems.extend(_check_totals(name, manifest, rows))
    extra, other_plans = _unnamed_files(folder, manifest)
    problems.extend(Problem(path, "not named by the manifest") for path in extra)
    return VerifyReport(len(manifest.shards), len(rows), tuple(problems), other_plans)


def _check_shard(
    folder: Store, manifest: ShardManifest, entry: ShardEntry, rows: list[IndexRow]
) -> Iterator[Problem]:
    """Problems of one shard; its index rows are added to `rows`."""
    for path, digest in ((entry.path, entry.sha256), (entry.index_path, entry.index_sha256)):
        if not folder.exists(path):
            yield Problem(path, "missing")
        elif folder.sha256(path) != digest:
            size = folder.size(path)
            said = f", {entry.num_bytes} in the manifest" if path == entry.path else ""
            yield Problem(path, f"altered: another sha256 ({size} bytes{said})")
    if not folder.exists(entry.path) or not folder.exists(entry.index_path):
        return
    try:
        index = read_index(folder.read_bytes(entry.index_path))
    except (pa.ArrowException, ValueError) as error:
        yield Problem(entry.index_path, f"not an index: {error}")
        return
    rows.extend(index)
    if folder.size(entry.path) != entry.num_bytes:
        yield Problem(entry.path, f"{folder.size(entry.path)} bytes, not {entry.num_bytes}")
    if len(index) != entry.num_samples:
        yield Problem(entry.index_path, f"{len(index)} samples, not {entry.num_samples}")
    try:
        yield from _check_members(folder, manifest, entry, index)
    except tarfile.TarError as error:
        yield Problem(entry.path, f"not a whole tar: {error}")


def _check_members(
    folder: Store, manifest: ShardManifest, entry: ShardEntry, index: list[IndexRow]
) -> Iterator[Problem]:
    expected = {name: row for row in index for name in _member_names(manifest, row)}
    found: dict[str, tuple[int, int]] = {}
    with folder.open_read(entry.path) as file, tarfile.open(fileobj=file, mode="r:") as tar:
        for member in tar:
            found[member.name] = (member.offset_data, member.size)
            row = expected.get(member.name)
            if row is None:
                yield Problem(entry.path, f"{member.name} is not in the index")
            elif member.name.endswith(".json"):
                content = tar.extractfile(member)
                text = content.read() if content else b""
                yield from _check_sample(manifest, entry, row, text)
    for row in index:
        media, text_name = _member_names(manifest, row)
        for name, place in (
            (media, (row.media_offset, row.media_size)),
            (text_name, (row.json_offset, row.json_size)),
        ):
            if name not in found:
                yield Problem(entry.path, f"{name} is in the index and not in the tar")
            elif found[name] != place:
                yield Problem(entry.path, f"{name} lies at {found[name]}, the index says {place}")


def _check_sample(
    manifest: ShardManifest, entry: ShardEntry, row: IndexRow, text: bytes
) -> Iterator[Problem]:
    try:
        sample = ShardSample.model_validate_json(text)
    except ValidationError as error:
        yield Problem(entry.path, f"{row.key}.json: {error.errors()[0]['msg']}")
        return
    shape = (row.num_frames, row.height, row.width, row.fps, row.weight)
    said = (sample.num_frames, sample.height, sample.width, sample.fps, sample.weight)
    if said != shape:
        yield Problem(entry.path, f"{row.key}: {said} in its JSON, {shape} in the index")
    if (sample.clip_id, sample.tier) != (row.key, manifest.tier):
        yield Problem(entry.path, f"{row.key}: its JSON is {sample.clip_id} of {sample.tier}")
    shape_name = f"f{row.num_frames:03d}_{row.height}x{row.width}"
    if not shape_name == row.bucket == entry.bucket:
        yield Problem(entry.path, f"{row.key}: {shape_name} in a shard of {entry.bucket}")


def _check_totals(name: str, manifest: ShardManifest, rows: list[IndexRow]) -> Iterator[Problem]:
    for key, count in Counter(row.key for row in rows).items():
        if count > 1:
            yield Problem(name, f"{key} is packed {count} times")
    buckets = tuple(bucket.name for bucket in manifest.buckets)
    if buckets != tuple(sorted({entry.bucket for entry in manifest.shards})):
        yield Problem(name, f"the bucket list {buckets} is not that of the shards")
    totals = ManifestTotals(
        num_samples=len(rows),
        num_frames=sum(row.num_frames for row in rows),
        duration_s=sum(row.num_frames / row.fps for row in rows if row.fps),
        num_bytes=sum(entry.num_bytes for entry in manifest.shards),
    )
    said = manifest.totals
    if abs(totals.duration_s - said.duration_s) > _SECONDS_TOLERANCE:
        yield Problem(name, f"totals say {said.duration_s} s, the indexes {totals.duration_s}")
    for field in ("num_samples", "num_frames", "num_bytes"):
        if getattr(totals, field) != getattr(said, field):
            counted, stated = getattr(totals, field), getattr(said, field)
            yield Problem(name, f"totals say {field} {stated}, the shards {counted}")
    if manifest.funnel.num_packed != len(rows):
        packed = manifest.funnel.num_packed
        yield Problem(name, f"the funnel says {packed} packed clips, the shards hold {len(rows)}")


def _unnamed_files(
    folder: Store, manifest: ShardManifest
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """(files that nobody explains, shards of other plans), in the folders of the buckets."""
    named = {p for entry in manifest.shards for p in (entry.path, entry.index_path)}
    extra: list[str] = []
    other_plans: list[str] = []
    for bucket in folder.list(""):
        for name in folder.list(bucket) if not bucket.endswith(".json") else ():
            path = f"{bucket}/{name}"
            if path in named:
                continue
            match = _SHARD_NAME.fullmatch(name)
            is_ours = match is None or match[2] == manifest.plan[: len(match[2])]
            is_placed = match is not None and match[1] == f"{manifest.tier}-{bucket}"
            (extra if is_ours or not is_placed else other_plans).append(path)
    return tuple(extra), tuple(other_plans)


def read_index(data: bytes) -> list[IndexRow]:
    """The rows of an index file. Raises ValueError for other columns, ArrowException for damage."""
    table = read_parquet(data)
    if tuple(table.column_names) != INDEX_COLUMNS:
        raise ValueError(f"columns {table.column_names}, expected {list(INDEX_COLUMNS)}")
    return [IndexRow(**row) for row in table.cast(INDEX_SCHEMA).to_pylist()]


def _member_names(manifest: ShardManifest, row: IndexRow) -> tuple[str, str]:
    kind = "image" if manifest.tier.startswith("image") else "video"
    return f"{row.key}.{MEDIA_SUFFIX[kind]}", f"{row.key}.json"
