"""The pass in which a model looks at clips: its parts, its workers and what they hold."""

from collections.abc import Collection
from functools import partial

from pipeline.caption.config import CaptionConfig
from pipeline.caption.describe_worker import DescribeWorker, record_description_failure
from pipeline.caption.worker import clip_parts
from pipeline.engine.work import Pass, WorkerSpec
from pipeline.media.config import MediaLimits
from pipeline.part_report import find_part_report
from pipeline.stage import Resources
from pipeline.tables import Table
from pipeline.tier.records import ClipRecord


def describe_pass(
    name: str,
    records: Collection[ClipRecord],
    table: Table,
    config: CaptionConfig,
    limits: MediaLimits,
    *,
    item_timeout_s: float,
) -> Pass:
    """Of the clips that no finished part of `table` holds."""
    make = partial(DescribeWorker, table.store.location, table.fingerprint, config, limits)
    done = table.done_items("clip_id")
    return Pass(
        name=name,
        parts=list(clip_parts(records, done, config.vlm_clips_per_part)),
        workers=(WorkerSpec(make, worker_resources(config), num_workers(config)),),
        record_failure=partial(record_description_failure, table),
        find_report=partial(find_part_report, table),
        item_timeout_s=item_timeout_s,
    )


def worker_resources(config: CaptionConfig) -> Resources:
    """Of one worker that asks a model, or of one that measures."""
    is_local = config.captioner == "transformers"
    memory_bytes = config.transformers.memory_bytes if is_local else 0
    return Resources(num_gpus=config.num_gpus, memory_bytes=memory_bytes)


def num_workers(config: CaptionConfig) -> int | None:
    """An endpoint is asked by as many as it is meant for; models fill the cluster's GPUs.

    On a CPU one model is enough: it uses every core that it gets.
    """
    if config.captioner == "endpoint":
        return config.endpoint.num_workers
    return None if config.num_gpus > 0 else 1
