"""Reads samples out of shards through their index, without unpacking anything."""

from collections.abc import Iterator

from pipeline.pack.verify import read_index
from pipeline.storage import Store
from schemas.shard import IndexRow, ShardEntry, ShardManifest, ShardSample


def shard_index(folder: Store, entry: ShardEntry) -> list[IndexRow]:
    return read_index(folder.read_bytes(entry.index_path))


def shard_samples(folder: Store, tar_path: str, index_path: str) -> Iterator[ShardSample]:
    """The JSON members of one shard, in its order."""
    with folder.open_read(tar_path) as file:
        for row in read_index(folder.read_bytes(index_path)):
            file.seek(row.json_offset)
            yield ShardSample.model_validate_json(file.read(row.json_size))


def manifest_samples(folder: Store, manifest: ShardManifest) -> Iterator[ShardSample]:
    for entry in manifest.shards:
        yield from shard_samples(folder, entry.path, entry.index_path)
