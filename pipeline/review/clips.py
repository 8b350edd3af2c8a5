"""The clips of a tier as a reviewer sees them: out of its shards, or encoded on demand.

Either way a clip is shown in the shape of its sample: cropped, resized, at its constant rate.
"""

import shutil
import tempfile
import threading
import weakref
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Protocol

import pyarrow as pa

from pipeline.caption.config import CaptionConfig
from pipeline.caption.measured import measured_caption
from pipeline.media.config import MediaLimits
from pipeline.pack.config import EncodeConfig
from pipeline.pack.contents import shard_index
from pipeline.pack.encode import encode_job
from pipeline.pack.manifest import SHARDS_FOLDER
from pipeline.pack.select import read_captions, select_jobs, selected_clip_ids
from pipeline.storage import Store
from pipeline.tables import Table
from pipeline.tier.records import read_records
from pipeline.tier.rules import Decisions
from schemas.shard import IndexRow, ShardManifest, ShardSample

_BLOCK_BYTES = 1 << 18
_MAX_KEPT = 64  # encoded clips on disk
_PREVIEW = EncodeConfig(crf=23, preset="ultrafast")


class ClipSource(Protocol):
    """`num_bytes` and `read` raise MediaError where the clip cannot be shown."""

    @property
    def clip_ids(self) -> list[str]:
        """Sorted."""

    def sample(self, clip_id: str) -> ShardSample: ...

    def num_bytes(self, clip_id: str) -> int: ...

    def read(self, clip_id: str, start: int, end: int) -> Iterator[bytes]:
        """The media member's bytes [start, end), in blocks."""


class ShardClips:
    """Clips of a manifest, read from the tars where they lie; nothing is unpacked."""

    def __init__(self, store: Store, manifest: ShardManifest) -> None:
        self._folder = Store(store.full(f"{SHARDS_FOLDER}/{manifest.tier}"))
        self._rows: dict[str, tuple[str, IndexRow]] = {
            row.key: (entry.path, row)
            for entry in manifest.shards
            for row in shard_index(self._folder, entry)
        }

    @property
    def clip_ids(self) -> list[str]:
        return sorted(self._rows)

    def sample(self, clip_id: str) -> ShardSample:
        path, row = self._rows[clip_id]
        data = b"".join(self._blocks(path, row.json_offset, row.json_size))
        return ShardSample.model_validate_json(data)

    def num_bytes(self, clip_id: str) -> int:
        return self._rows[clip_id][1].media_size

    def read(self, clip_id: str, start: int, end: int) -> Iterator[bytes]:
        path, row = self._rows[clip_id]
        yield from self._blocks(path, row.media_offset + start, end - start)

    def _blocks(self, path: str, offset: int, size: int) -> Iterator[bytes]:
        with self._folder.open_read(path) as file:
            file.seek(offset)
            while size > 0 and (block := file.read(min(size, _BLOCK_BYTES))):
                size -= len(block)
                yield block


class SpanClips:
    """Clips of a tier that was not packed: each is cut out of its source when it is asked for."""

    def __init__(
        self,
        store: Store,
        tables: Mapping[str, str],
        joined: pa.Table,
        decisions: Decisions,
        *,
        captions: Table | None,
        caption_config: CaptionConfig,
        limits: MediaLimits,
    ) -> None:
        records = list(read_records(store, tables, selected_clip_ids(joined, decisions)))
        written = {} if captions is None else read_captions(captions)
        known = {
            record.clip.clip_id: written.get(record.clip.clip_id)
            or measured_caption(record, caption_config)
            for record in records
        }
        jobs = select_jobs(joined, decisions, records, known).jobs
        self._jobs = {job.clip.clip_id: job for job in jobs}
        self._limits = limits
        self._media = _Kept(self._encode)

    @property
    def clip_ids(self) -> list[str]:
        return sorted(self._jobs)

    def sample(self, clip_id: str) -> ShardSample:
        return self._jobs[clip_id].sample

    def num_bytes(self, clip_id: str) -> int:
        return self._media.path(clip_id).stat().st_size

    def read(self, clip_id: str, start: int, end: int) -> Iterator[bytes]:
        with self._media.path(clip_id).open("rb") as file:
            file.seek(start)
            while start < end and (block := file.read(min(end - start, _BLOCK_BYTES))):
                start += len(block)
                yield block

    def _encode(self, clip_id: str) -> bytes:
        return encode_job(self._jobs[clip_id], _PREVIEW, self._limits)


class _Kept:
    """The last encoded clips, in a temporary folder that goes with the process."""

    def __init__(self, encode: Callable[[str], bytes]) -> None:
        self._encode = encode
        self._folder = Path(tempfile.mkdtemp(prefix="reelsieve-review-"))
        weakref.finalize(self, shutil.rmtree, self._folder, ignore_errors=True)
        self._paths: OrderedDict[str, Path] = OrderedDict()
        self._one_at_a_time = threading.Lock()

    def path(self, clip_id: str) -> Path:
        with self._one_at_a_time:
            path = self._paths.pop(clip_id, None)
            if path is None:
                path = self._folder / clip_id
                path.write_bytes(self._encode(clip_id))
            self._paths[clip_id] = path
            while len(self._paths) > _MAX_KEPT:
                _, oldest = self._paths.popitem(last=False)
                oldest.unlink()
            return path
