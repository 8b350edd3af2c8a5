"""The manifest of one tier, built from what the workers reported and replaced last."""

from collections.abc import Mapping

from pydantic import ValidationError

from pipeline.pack.plan import ShardPlan
from pipeline.pack.report import pack_table, shard_rows
from pipeline.storage import StorageError, Store
from schemas.base import canonical_json
from schemas.shard import Funnel, ManifestTotals, ShardManifest
from schemas.tier import Bucket, TierName

MANIFEST_NAME = "manifest.json"
SHARDS_FOLDER = "shards"


class UnfinishedPlanError(RuntimeError):
    """A planned shard has no report; a manifest now would not be the plan's."""


def manifest_path(tier: TierName) -> str:
    return f"{SHARDS_FOLDER}/{tier}/{MANIFEST_NAME}"


def num_failed_clips(store: Store, plan: ShardPlan) -> int:
    """Planned clips that could not be written: the funnel's `no_pack`."""
    rows = pack_table(store, plan.plan).read(["ok"], keys=[shard.name for shard in plan.shards])
    return sum(not ok for ok in rows["ok"].to_pylist())


def build_manifest(
    store: Store,
    plan: ShardPlan,
    *,
    captioner: str,
    funnel: Funnel,
    config_fingerprint: str,
    weights: Mapping[str, str],
    tables: Mapping[str, str],
) -> ShardManifest:
    """Every shard of the plan in its order. Raises UnfinishedPlanError while one is missing."""
    rows = shard_rows(store, plan.plan)
    if missing := [shard.name for shard in plan.shards if shard.name not in rows]:
        raise UnfinishedPlanError(f"{len(missing)} shards are not packed, first {missing[0]}")
    reports = [rows[shard.name] for shard in plan.shards]
    entries = tuple(report.entry for report in reports if report.entry is not None)
    names = sorted({entry.bucket for entry in entries})
    totals = ManifestTotals(
        num_samples=sum(entry.num_samples for entry in entries),
        num_frames=sum(report.num_frames for report in reports),
        duration_s=round(sum(report.duration_s for report in reports), 6),
        num_bytes=sum(entry.num_bytes for entry in entries),
    )
    if totals.num_samples != funnel.num_packed:
        raise ValueError(
            f"the funnel says {funnel.num_packed} packed clips, the shards {totals.num_samples}"
        )
    return ShardManifest(
        tier=plan.tier,
        plan=plan.plan,
        captioner=captioner,
        buckets=tuple(Bucket.from_name(name) for name in names),
        shards=entries,
        totals=totals,
        funnel=funnel,
        config_fingerprint=config_fingerprint,
        weights=dict(weights),
        tables=dict(tables),
    )


def write_manifest(store: Store, manifest: ShardManifest) -> str:
    """Replace the tier's manifest, once every shard that it names is there. Returns its path."""
    path = manifest_path(manifest.tier)
    store.write_bytes(path, canonical_json(manifest).encode() + b"\n")
    return path


def read_manifest(store: Store, path: str) -> ShardManifest:
    """Raises StorageError when there is none, or none that this version can read."""
    place = store.full(path)
    try:
        return ShardManifest.model_validate_json(store.read_bytes(path))
    except OSError as error:
        raise StorageError(
            f"{place}: cannot be read ({error.strerror or error}); run the tier again to write it"
        ) from error
    except ValidationError as error:
        first = error.errors(include_url=False)[0]["msg"]
        raise StorageError(
            f"{place}: not a manifest of this version ({first}); run the tier again to write it"
        ) from error
