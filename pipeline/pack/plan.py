"""Which clip goes into which shard, decided before anything is encoded.

A pure function of the chosen clips and the config: sorted by clip id, per bucket, cut by number
and estimated bytes. The plan's hash covers every job and stands in every shard's name, so another
choice, caption or setting gives other names and never touches a shard that exists.
"""

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import pyarrow as pa

from pipeline.pack.config import PACK_VERSION, PackConfig
from pipeline.pack.job import PackJob
from pipeline.storage import Store
from pipeline.tables import Table
from schemas.base import canonical_json, fingerprint
from schemas.tier import Bucket, TierName

PLAN_STEP = "pack_plan"
PLAN_SCHEMA = pa.schema([pa.field("clip_id", pa.string()), pa.field("job", pa.string())])
_HASH_DIGITS = 8  # of the plan's hash, in a shard's name


@dataclass(frozen=True, slots=True)
class PlannedShard:
    """`name` is the file's stem; `folder` is relative to the output."""

    name: str
    tier: TierName
    bucket: str
    clip_ids: tuple[str, ...]

    @property
    def folder(self) -> str:
        return f"shards/{self.tier}/{self.bucket}"

    @property
    def tar_path(self) -> str:
        return f"{self.folder}/{self.name}.tar"

    @property
    def index_path(self) -> str:
        return f"{self.folder}/{self.name}.index.parquet"


@dataclass(frozen=True, slots=True)
class ShardPlan:
    """`plan` is the hash: 16 hex digits, of which names carry the first eight."""

    tier: TierName
    plan: str
    shards: tuple[PlannedShard, ...]

    @property
    def num_clips(self) -> int:
        return sum(len(shard.clip_ids) for shard in self.shards)


def make_plan(
    store: Store, tier: TierName, jobs: Iterable[PackJob], config: PackConfig
) -> ShardPlan:
    """Plan the shards of a tier and write each one's jobs down, for the workers to read."""
    ordered = sorted(jobs, key=lambda job: job.sample.clip_id)
    texts = {job.sample.clip_id: canonical_json(job) for job in ordered}
    if len(texts) != len(ordered):
        raise ValueError(f"{len(ordered)} jobs for {len(texts)} clips: a clip is planned twice")
    digest = hashlib.sha256(fingerprint(PACK_VERSION, config, tier).encode())
    for text in texts.values():
        digest.update(text.encode())
    plan = digest.hexdigest()[:16]
    shards = tuple(_shards(tier, plan, ordered, config))
    table = plan_table(store, plan)
    done = set(table.done_keys())
    for shard in shards:
        if shard.name not in done:
            rows = [{"clip_id": clip_id, "job": texts[clip_id]} for clip_id in shard.clip_ids]
            table.write_part(shard.name, rows, seconds=0.0)
    return ShardPlan(tier, plan, shards)


def plan_table(store: Store, plan: str) -> Table:
    return Table(store, PLAN_STEP, plan, PLAN_SCHEMA)


def read_jobs(store: Store, plan: str, shard_name: str) -> list[PackJob]:
    """The jobs of one planned shard, in the order of its members."""
    rows = plan_table(store, plan).read(keys=[shard_name])
    return [PackJob.model_validate_json(str(text)) for text in rows["job"].to_pylist()]


def shard_name(tier: TierName, bucket: str, plan: str, number: int) -> str:
    return f"{tier}-{bucket}-{plan[:_HASH_DIGITS]}-{number:06d}"


def _shards(
    tier: TierName, plan: str, jobs: Sequence[PackJob], config: PackConfig
) -> Iterator[PlannedShard]:
    by_bucket: dict[Bucket, list[str]] = defaultdict(list)
    for job in jobs:
        by_bucket[job.bucket].append(job.sample.clip_id)
    for bucket in sorted(by_bucket, key=lambda bucket: bucket.name):
        clip_ids, size = by_bucket[bucket], samples_per_shard(bucket, config)
        for number, first in enumerate(range(0, len(clip_ids), size)):
            chosen = tuple(clip_ids[first : first + size])
            name = shard_name(tier, bucket.name, plan, number)
            yield PlannedShard(name, tier, bucket.name, chosen)


def samples_per_shard(bucket: Bucket, config: PackConfig) -> int:
    """All samples of a bucket have one shape, so the estimate of bytes becomes a number."""
    is_image = bucket.num_frames == 1
    bits_per_pixel = config.image_bits_per_pixel if is_image else config.video_bits_per_pixel
    pixels = bucket.num_frames * bucket.height * bucket.width
    estimated_bytes = pixels * bits_per_pixel / 8
    return max(
        1, min(config.max_samples_per_shard, int(config.max_bytes_per_shard / estimated_bytes))
    )
