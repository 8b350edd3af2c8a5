"""Writes latent shards: one tar, its index and a report per pixel shard, and their manifest.

    OUT/BUCKET/NAME-latents.tar    <clip_id>.safetensors, and <clip_id>.json of the pixel shard
    OUT/BUCKET/NAME-latents.index.parquet
    OUT/reports/NAME-latents.json  LatentShardReport, written last: the shard is finished
    OUT/manifest.json              ShardManifest, once every shard is

Headers and order are fixed: equal samples, equal bytes.
"""

import hashlib
import io
import os
import tarfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import ValidationError

from modeling.data.corpus import SamplePlace
from modeling.data.errors import DataError
from modeling.data.files import file_sha256
from modeling.data.latent_format import LATENT_SUFFIX
from schemas.base import StrictModel, canonical_json, fingerprint
from schemas.shard import (
    INDEX_COLUMNS,
    Funnel,
    FunnelStep,
    IndexRow,
    ManifestTotals,
    ShardEntry,
    ShardManifest,
)
from schemas.tier import Bucket

MANIFEST_NAME = "manifest.json"
NO_ENCODE = "no_encode"  # the funnel's name for samples that could not be decoded
_REPORTS = "reports"
_TYPES = {"key": pa.string(), "bucket": pa.string(), "fps": pa.float64(), "weight": pa.float64()}
_INDEX_SCHEMA = pa.schema([pa.field(name, _TYPES.get(name, pa.int64())) for name in INDEX_COLUMNS])


class LatentShardReport(StrictModel):
    """What came of one pixel shard. `task` changes with anything that its bytes follow from."""

    task: str
    entry: ShardEntry | None  # None: not one of its samples could be decoded
    num_frames: int = 0
    duration_s: float = 0.0
    failed: dict[str, str] = {}  # key -> what is wrong


@dataclass(frozen=True, slots=True)
class EncodedSample:
    """The members of one sample, and where its pixels lay."""

    place: SamplePlace
    weight: float
    media: bytes
    description: bytes


def shard_name(entry: ShardEntry) -> str:
    return f"{PurePosixPath(entry.path).stem}-latents"


def read_report(out: Path, entry: ShardEntry, task: str) -> LatentShardReport | None:
    """The report of a finished shard whose files are still there; None where work is left."""
    file = out / _REPORTS / f"{shard_name(entry)}.json"
    try:
        report = LatentShardReport.model_validate_json(file.read_text())
    except (FileNotFoundError, ValidationError):
        return None
    if report.task != task:
        return None
    if (made := report.entry) is not None:
        tar = out / made.path
        is_whole = tar.is_file() and tar.stat().st_size == made.num_bytes
        if not is_whole or not (out / made.index_path).is_file():
            return None
    return report


def write_shard(
    out: Path,
    source: ShardEntry,
    bucket: Bucket,
    samples: Iterable[EncodedSample],
    *,
    task: str,
    failed: Mapping[str, str],
) -> LatentShardReport:
    """Write one shard and its report. `failed` may grow while the samples are taken.

    Raises DataError where the disk does not take it.
    """
    try:
        return _write_shard(out, source, bucket, samples, task=task, failed=failed)
    except OSError as error:
        raise DataError(
            str(out), f"cannot be written ({error.strerror or error})", "make room, and run again"
        ) from error


def write_manifest(
    out: Path,
    source: ShardManifest,
    reports: Sequence[LatentShardReport],
    *,
    encoders: Mapping[str, str],
    settings_fingerprint: str,
    source_hash: str,
) -> Path:
    """The manifest of all shards, replaced last; what failed joins the funnel of the source."""
    entries = tuple(report.entry for report in reports if report.entry is not None)
    num_failed = sum(len(report.failed) for report in reports)
    num_samples = sum(entry.num_samples for entry in entries)
    failed = source.funnel.failed
    if num_failed:
        failed = (*failed, FunnelStep(reason=NO_ENCODE, num_clips=num_failed))
    names = sorted({entry.bucket for entry in entries})
    manifest = ShardManifest(
        tier=source.tier,
        plan=fingerprint(source.plan, settings_fingerprint),
        captioner=source.captioner,
        buckets=tuple(Bucket.from_name(name) for name in names),
        shards=entries,
        totals=ManifestTotals(
            num_samples=num_samples,
            num_frames=sum(report.num_frames for report in reports),
            duration_s=round(sum(report.duration_s for report in reports), 6),
            num_bytes=sum(entry.num_bytes for entry in entries),
        ),
        funnel=Funnel(
            num_clips=source.funnel.num_clips,
            num_packed=num_samples,
            rejected=source.funnel.rejected,
            failed=failed,
        ),
        config_fingerprint=settings_fingerprint,
        weights={**source.weights, **encoders},
        tables={**source.tables, "pixels": source_hash},
    )
    path = out / MANIFEST_NAME
    write_whole(path, canonical_json(manifest).encode() + b"\n")
    return path


def write_whole(path: Path, data: bytes) -> None:
    """All of the file or nothing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        partial.write_bytes(data)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def _write_shard(
    out: Path,
    source: ShardEntry,
    bucket: Bucket,
    samples: Iterable[EncodedSample],
    *,
    task: str,
    failed: Mapping[str, str],
) -> LatentShardReport:
    name = shard_name(source)
    tar = out / bucket.name / f"{name}.tar"
    tar.parent.mkdir(parents=True, exist_ok=True)
    partial = tar.with_name(f".{tar.name}.{os.getpid()}.partial")
    try:
        rows = _write_tar(partial, bucket, samples)
        entry = None
        if rows:
            index = _index_bytes(rows)
            index_path = f"{bucket.name}/{name}.index.parquet"
            write_whole(out / index_path, index)
            partial.replace(tar)
            entry = ShardEntry(
                path=f"{bucket.name}/{name}.tar",
                index_path=index_path,
                bucket=bucket.name,
                num_samples=len(rows),
                num_bytes=tar.stat().st_size,
                sha256=file_sha256(str(tar)),
                index_sha256=hashlib.sha256(index).hexdigest(),
            )
    finally:
        partial.unlink(missing_ok=True)
    report = LatentShardReport(
        task=task,
        entry=entry,
        num_frames=len(rows) * bucket.num_frames,
        duration_s=sum(bucket.num_frames / row.fps for row in rows if row.fps is not None),
        failed=dict(failed),
    )
    write_whole(out / _REPORTS / f"{name}.json", report.model_dump_json(indent=2).encode() + b"\n")
    return report


def _write_tar(path: Path, bucket: Bucket, samples: Iterable[EncodedSample]) -> list[IndexRow]:
    """Rows of the index, in the order of the tar."""
    rows: list[IndexRow] = []
    with tarfile.open(path, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for sample in samples:
            place = sample.place
            media_offset = _add_member(tar, f"{place.key}.{LATENT_SUFFIX}", sample.media)
            json_offset = _add_member(tar, f"{place.key}.json", sample.description)
            rows.append(
                IndexRow(
                    key=place.key,
                    media_offset=media_offset,
                    media_size=len(sample.media),
                    json_offset=json_offset,
                    json_size=len(sample.description),
                    num_frames=bucket.num_frames,
                    height=bucket.height,
                    width=bucket.width,
                    fps=place.fps,
                    bucket=bucket.name,
                    weight=sample.weight,
                )
            )
    return rows


def _add_member(tar: tarfile.TarFile, name: str, data: bytes) -> int:
    """The offset of the member's content."""
    info = tarfile.TarInfo(name)
    info.size = len(data)
    info.mode = 0o644
    info.mtime = info.uid = info.gid = 0
    info.uname = info.gname = ""
    start = tar.offset
    tar.addfile(info, io.BytesIO(data))
    return int(start) + tarfile.BLOCKSIZE  # a USTAR header is one block


def _index_bytes(rows: Sequence[IndexRow]) -> bytes:
    buffer = io.BytesIO()
    pq.write_table(
        pa.Table.from_pylist([row._asdict() for row in rows], _INDEX_SCHEMA),
        buffer,
        compression="zstd",
    )
    return buffer.getvalue()
