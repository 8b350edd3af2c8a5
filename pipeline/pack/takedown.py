"""Which shards still hold a source that must be forgotten."""

from collections.abc import Collection
from dataclasses import dataclass

from pipeline.pack.contents import shard_samples
from pipeline.pack.gc import manifests, shard_files
from pipeline.storage import Store


@dataclass(frozen=True, slots=True)
class Holding:
    """One shard and the clips of excluded sources in it.

    `is_named`: a present manifest names the shard; otherwise collecting garbage removes it.
    """

    shard: str  # relative to the output
    clip_ids: tuple[str, ...]
    is_named: bool


def shards_holding(store: Store, excluded: Collection[str]) -> list[Holding]:
    """Every shard of an output, of whatever plan, with clips of these sources (URI or sha256)."""
    named = {
        f"{folder}/{entry.path}"
        for folder, manifest in manifests(store)
        for entry in manifest.shards
    }
    holdings = []
    files = set(shard_files(store))
    for path in sorted(files):
        index_path = f"{path.removesuffix('.tar')}.index.parquet"
        if not path.endswith(".tar") or index_path not in files:
            continue
        held = tuple(
            sample.clip_id
            for sample in shard_samples(store, path, index_path)
            if sample.source_uri in excluded or sample.source_sha256 in excluded
        )
        if held:
            holdings.append(Holding(path, held, path in named))
    return holdings
