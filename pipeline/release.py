"""From verdict to manifest, for one tier: decide, caption, pack. Its manifest is replaced last."""

import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Protocol

from pipeline.caption.answer import Words
from pipeline.caption.describe_pass import describe_pass
from pipeline.caption.description import (
    STEP as DESCRIPTIONS,
)
from pipeline.caption.description import (
    captioner_name,
    descriptions_fingerprint,
    descriptions_table,
    read_descriptions,
)
from pipeline.caption.usage import CaptionUsage, caption_usage
from pipeline.caption.worker import (
    STEP as CAPTIONS,
)
from pipeline.caption.worker import (
    CaptionWorker,
    caption_fingerprint,
    caption_parts,
    caption_table,
    record_caption_failure,
)
from pipeline.config import PipelineConfig
from pipeline.engine.work import Engine, Pass, WorkerSpec
from pipeline.pack.manifest import build_manifest, num_failed_clips, write_manifest
from pipeline.pack.plan import ShardPlan, make_plan
from pipeline.pack.select import read_captions, select_jobs, selected_clip_ids
from pipeline.pack.worker import (
    PackWorker,
    find_pack_report,
    pack_parts,
    record_pack_failure,
)
from pipeline.part_report import find_part_report
from pipeline.review.verdict import ClipVerdict, read_verdicts, with_approvals, with_reviews
from pipeline.run_record import TierResult
from pipeline.stage import Resources
from pipeline.storage import Store
from pipeline.tables import Table
from pipeline.tier.funnel import funnel_counts
from pipeline.tier.join import load_joined
from pipeline.tier.records import ClipRecord, read_records
from pipeline.tier.rules import Candidates, columns_for, decide
from schemas.status import Failure
from schemas.tier import TierName

logger = logging.getLogger(__name__)


class RunPass(Protocol):
    """Runs what is left of a pass and notes how it went."""

    def __call__(self, engine: Engine, pass_: Pass, *, num_items: int) -> None: ...


@dataclass
class Releaser:
    """Writes tiers from finished tables. `tables` gains the captions'."""

    config: PipelineConfig
    store: Store
    tables: dict[str, str]
    weights: dict[str, str]
    run_pass: RunPass
    captioning: CaptionUsage | None = None  # of the tier that is being released

    def release(self, engine: Engine, tier: TierName) -> TierResult:
        config = self.config
        verdicts = read_verdicts(self.store, config.review) if tier == "tier-5" else {}
        tables = self._tables_of(tier, verdicts)
        joined = load_joined(self.store, tables, columns_for(config.tiers, tier))
        decisions = decide(Candidates(joined), config.tiers, tier)
        clip_ids = selected_clip_ids(joined, decisions)
        records = list(read_records(self.store, self.tables, clip_ids))
        captions = read_captions(self._caption(engine, tier, records))
        selection = select_jobs(joined, decisions, iter(records), captions)
        selection = with_reviews(selection, verdicts)
        plan = make_plan(self.store, tier, selection.jobs, config.pack)
        self._pack(engine, plan)
        funnel = funnel_counts(
            decisions,
            {
                "no_caption": selection.num_without_caption,
                "no_pack": num_failed_clips(self.store, plan),
            },
        )
        manifest = build_manifest(
            self.store,
            plan,
            captioner=captioner_name(config.caption),
            funnel=funnel,
            config_fingerprint=config.result_fingerprint,
            weights=self.weights,
            tables=self._tables_of(tier, verdicts),
        )
        return TierResult(
            tier=tier,
            manifest=write_manifest(self.store, manifest),
            funnel=funnel,
            captioning=self.captioning,
        )

    def _tables_of(self, tier: TierName, verdicts: Mapping[str, ClipVerdict]) -> dict[str, str]:
        """The tables that the tier is decided from: only tier 5 asks who was approved."""
        if tier != "tier-5":
            return dict(self.tables)
        return with_approvals(self.store, self.tables, verdicts)

    def _caption(self, engine: Engine, tier: TierName, records: list[ClipRecord]) -> Table:
        """Caption what is new; the table of captions."""
        config = self.config.caption
        self.captioning, written = None, None
        if config.captioner != "measured":
            written = self._describe(engine, tier, records)
        mark = caption_fingerprint(config, self.tables, self.tables.get(DESCRIPTIONS))
        table = caption_table(self.store, mark)
        make = partial(CaptionWorker, self.store.location, table.fingerprint, config)
        done = table.done_items("clip_id")
        parts = caption_parts(records, done, config.clips_per_part, descriptions=written)
        pass_ = Pass(
            name=f"caption {tier}",
            parts=list(parts),
            workers=(WorkerSpec(make, Resources()),),
            record_failure=partial(record_caption_failure, table),
            find_report=partial(find_part_report, table),
            item_timeout_s=self.config.passes.item_timeout_s,
        )
        self.run_pass(engine, pass_, num_items=len(records))
        self.tables[CAPTIONS] = table.fingerprint
        return table

    def _describe(
        self, engine: Engine, tier: TierName, records: list[ClipRecord]
    ) -> dict[str, Words | Failure]:
        """Have a model describe what is new; what it wrote about each clip."""
        config = self.config.caption
        mark = descriptions_fingerprint(config, self.tables)
        table = descriptions_table(self.store, mark)
        self.tables[DESCRIPTIONS] = table.fingerprint
        before, started = set(table.done_keys()), time.monotonic()
        pass_ = describe_pass(
            f"describe {tier}",
            records,
            table,
            config,
            self.config.media,
            item_timeout_s=self.config.passes.item_timeout_s,
        )
        self.run_pass(engine, pass_, num_items=len(records))
        if fresh := sorted(set(table.done_keys()) - before):
            self.captioning = caption_usage(
                table,
                fresh,
                elapsed_s=time.monotonic() - started,
                num_gpus=config.num_gpus,
                price=config.price,
            )
            for line in self.captioning.lines():
                logger.info("%s", line)
        return read_descriptions(table, [record.clip.clip_id for record in records])

    def _pack(self, engine: Engine, plan: ShardPlan) -> None:
        """Write what is missing. A clip that is given up leaves its shard to the next round."""
        config = self.config
        make = partial(
            PackWorker,
            self.store.location,
            plan.plan,
            config.pack.encode,
            config.media,
            num_at_once=config.passes.clips_per_packer,
        )
        for _ in range(plan.num_clips + 1):
            parts = list(pack_parts(self.store, plan))
            pass_ = Pass(
                name=f"pack {plan.tier}",
                parts=parts,
                workers=(WorkerSpec(make, Resources()),),
                record_failure=partial(record_pack_failure, self.store, plan.plan),
                find_report=partial(find_pack_report, self.store, plan.plan),
                item_timeout_s=config.passes.item_timeout_s,
            )
            self.run_pass(engine, pass_, num_items=plan.num_clips)
            if not parts:
                return
