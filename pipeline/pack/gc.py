"""Removes what nothing names: shards of replaced plans, leftovers of kills, superseded tables."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from pipeline.pack.manifest import MANIFEST_NAME, SHARDS_FOLDER, read_manifest
from pipeline.storage import Store
from pipeline.tier.join import joined_part
from schemas.shard import ShardManifest

_TABLES = "tables"


@dataclass(frozen=True, slots=True)
class Garbage:
    """Paths relative to the output, and their bytes."""

    paths: tuple[str, ...]
    num_bytes: int


def collect_garbage(
    store: Store,
    *,
    dry_run: bool,
    also_named_by: Sequence[ShardManifest] = (),
    current_tables: Mapping[str, str] | None = None,
) -> Garbage:
    """Find, and without `dry_run` remove, the unnamed files of an output.

    `also_named_by` protects the shards of manifests that were kept elsewhere. With
    `current_tables` (step -> fingerprint), tables of these steps at other fingerprints go too, and
    so do joins of older tables. Must not run beside a job that writes into the same output.
    """
    paths = [*_unnamed_shards(store, also_named_by), *store.leftovers()]
    if current_tables is not None:
        paths.extend(_superseded_tables(store, current_tables))
        paths.extend(_superseded_joins(store, current_tables))
    num_bytes = sum(store.size(path) for path in paths)
    if not dry_run:
        for path in paths:
            store.remove(path)
    return Garbage(tuple(paths), num_bytes)


def manifests(store: Store) -> Iterator[tuple[str, ShardManifest]]:
    """(tier folder, manifest) of every tier that has one."""
    for tier in store.list(SHARDS_FOLDER):
        folder = f"{SHARDS_FOLDER}/{tier}"
        if store.exists(f"{folder}/{MANIFEST_NAME}"):
            yield folder, read_manifest(store, f"{folder}/{MANIFEST_NAME}")


def shard_files(store: Store) -> Iterator[str]:
    """Everything in the bucket folders of an output."""
    for tier in store.list(SHARDS_FOLDER):
        folder = f"{SHARDS_FOLDER}/{tier}"
        for bucket in store.list(folder):
            if bucket != MANIFEST_NAME:
                yield from (
                    f"{folder}/{bucket}/{name}" for name in store.list(f"{folder}/{bucket}")
                )


def _unnamed_shards(store: Store, also_named_by: Sequence[ShardManifest]) -> Iterator[str]:
    named = set()
    kept = [(f"{SHARDS_FOLDER}/{manifest.tier}", manifest) for manifest in also_named_by]
    for folder, manifest in (*manifests(store), *kept):
        for entry in manifest.shards:
            named |= {f"{folder}/{entry.path}", f"{folder}/{entry.index_path}"}
    yield from (path for path in shard_files(store) if path not in named)


def _superseded_tables(store: Store, current: Mapping[str, str]) -> Iterator[str]:
    for step, fingerprint in current.items():
        for other in store.list(f"{_TABLES}/{step}"):
            if other != fingerprint:
                yield from _table_files(store, f"{_TABLES}/{step}/{other}")


def _superseded_joins(store: Store, current: Mapping[str, str]) -> Iterator[str]:
    """Every join of tables but the one of the tables as they are now."""
    table, state = joined_part(store, current)
    keep = {table.done_path(state), table.part_path(state)}
    for name in store.list(f"{_TABLES}/{table.step}"):
        files = _table_files(store, f"{_TABLES}/{table.step}/{name}")
        yield from (path for path in files if path not in keep)


def _table_files(store: Store, folder: str) -> Iterator[str]:
    """Done markers before parts: a kill midway leaves parts that nobody reads."""
    yield from (f"{folder}/_done/{name}" for name in store.list(f"{folder}/_done"))
    yield from (f"{folder}/{name}" for name in store.list(folder) if name != "_done")
