"""The tables that packing leaves: a row per clip, a row per shard, a row per clip given up."""

from collections.abc import Iterable
from typing import Annotated

from pydantic import Field

from pipeline.arrow import schema_of
from pipeline.pack.plan import PlannedShard, ShardPlan
from pipeline.pack.shard import shard_is_there
from pipeline.storage import Store
from pipeline.tables import Table
from schemas.base import StrictModel
from schemas.shard import ShardEntry
from schemas.status import Failure, StatusRow

PACK_STEP, SHARD_STEP, GIVEN_UP_STEP = "pack", "pack_shards", "pack_given_up"


class PackRow(StatusRow):
    """One planned clip: written into `shard`, or the reason why not."""

    clip_id: str
    shard: str


class ShardRow(StrictModel):
    """One finished shard; `entry` is None where every clip of it failed."""

    shard: str
    entry: ShardEntry | None
    num_frames: Annotated[int, Field(ge=0)]
    duration_s: Annotated[float, Field(ge=0)]


def pack_table(store: Store, plan: str) -> Table:
    return Table(store, PACK_STEP, plan, schema_of(PackRow))


def shard_table(store: Store, plan: str) -> Table:
    """Its part is written last: it marks the shard as finished."""
    return Table(store, SHARD_STEP, plan, schema_of(ShardRow))


def given_up_table(store: Store, plan: str) -> Table:
    """Clips that twice took their worker down, one part each."""
    return Table(store, GIVEN_UP_STEP, plan, schema_of(PackRow))


def given_up(store: Store, plan: str, clip_ids: Iterable[str]) -> dict[str, Failure]:
    """What the engine gave up among these clips, with its reasons."""
    table = given_up_table(store, plan)
    keys = set(table.done_keys()) & set(clip_ids)
    return {
        row["clip_id"]: Failure(error_class=row["error_class"], error=row["error"])
        for row in table.read(keys=keys).to_pylist()
    }


def shard_rows(store: Store, plan: str) -> dict[str, ShardRow]:
    """Finished shards by name."""
    rows = shard_table(store, plan).read().to_pylist()
    return {row["shard"]: ShardRow.model_validate(row) for row in rows}


def unfinished(store: Store, plan: ShardPlan) -> list[PlannedShard]:
    """Shards without a report, or whose files are gone."""
    rows = shard_rows(store, plan.plan)
    return [
        shard
        for shard in plan.shards
        if shard.name not in rows or not shard_is_there(store, shard, rows[shard.name].entry)
    ]
