"""Writes one tar and its index. Fixed member order and headers: equal samples, equal bytes."""

import hashlib
import io
import tarfile
from collections.abc import Sequence
from pathlib import Path
from typing import IO

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.pack.encode import MEDIA_SUFFIX
from pipeline.pack.plan import PlannedShard
from pipeline.storage import Store
from schemas.base import canonical_json
from schemas.shard import INDEX_COLUMNS, IndexRow, ShardEntry, ShardSample

_COPY_BYTES = 1 << 20
_TYPES = {"key": pa.string(), "bucket": pa.string(), "fps": pa.float64(), "weight": pa.float64()}
INDEX_SCHEMA = pa.schema([pa.field(name, _TYPES.get(name, pa.int64())) for name in INDEX_COLUMNS])


class ShardWriter:
    """Adds samples one after the other; holds none of them."""

    def __init__(self, file: IO[bytes], bucket: str) -> None:
        self._file = file
        self._bucket = bucket
        self._tar = tarfile.open(fileobj=file, mode="w", format=tarfile.USTAR_FORMAT)  # noqa: SIM115
        self.rows: list[IndexRow] = []

    def add(self, sample: ShardSample, media: bytes) -> None:
        text = canonical_json(sample).encode()
        suffix = MEDIA_SUFFIX[sample.media_kind]
        media_offset = self._add_member(f"{sample.clip_id}.{suffix}", media)
        json_offset = self._add_member(f"{sample.clip_id}.json", text)
        self.rows.append(
            IndexRow(
                key=sample.clip_id,
                media_offset=media_offset,
                media_size=len(media),
                json_offset=json_offset,
                json_size=len(text),
                num_frames=sample.num_frames,
                height=sample.height,
                width=sample.width,
                fps=sample.fps,
                bucket=self._bucket,
                weight=sample.weight,
            )
        )

    def close(self) -> None:
        self._tar.close()

    def _add_member(self, name: str, data: bytes) -> int:
        """The offset of the member's content."""
        info = tarfile.TarInfo(name)
        info.size = len(data)
        info.mode = 0o644
        info.mtime = info.uid = info.gid = 0
        info.uname = info.gname = ""
        self._tar.addfile(info, io.BytesIO(data))
        padding = -len(data) % tarfile.BLOCKSIZE
        return self._file.tell() - padding - len(data)


def index_bytes(rows: Sequence[IndexRow]) -> bytes:
    """The index as Parquet, one row per sample in the order of the tar."""
    columns = {name: [getattr(row, name) for row in rows] for name in INDEX_COLUMNS}
    buffer = io.BytesIO()
    pq.write_table(pa.table(columns, INDEX_SCHEMA), buffer, compression="zstd")
    return buffer.getvalue()


def shard_entry(
    shard: PlannedShard, rows: Sequence[IndexRow], tar: Path, index: bytes
) -> ShardEntry:
    """The manifest's line about a shard; its paths are relative to the manifest's folder."""
    digest = hashlib.sha256()
    with tar.open("rb") as file:
        while block := file.read(_COPY_BYTES):
            digest.update(block)
    return ShardEntry(
        path=f"{shard.bucket}/{shard.name}.tar",
        index_path=f"{shard.bucket}/{shard.name}.index.parquet",
        bucket=shard.bucket,
        num_samples=len(rows),
        num_bytes=tar.stat().st_size,
        sha256=digest.hexdigest(),
        index_sha256=hashlib.sha256(index).hexdigest(),
    )


def shard_is_there(store: Store, shard: PlannedShard, entry: ShardEntry | None) -> bool:
    """Whether the files that a finished shard left are still in their place, by size."""
    if entry is None:  # all of its clips failed
        return True
    return (
        store.exists(shard.tar_path)
        and store.size(shard.tar_path) == entry.num_bytes
        and store.exists(shard.index_path)
    )
