"""The `run` command: from options to a finished output and its record."""

import logging
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self, get_args

from rich.console import Console
from rich.table import Table as RichTable

from pipeline.config import PipelineConfig, load_config
from pipeline.config_file import ConfigError
from pipeline.demo_media import fetch_demo_media
from pipeline.engine import EngineName, make_engine
from pipeline.engine.output_lock import check_version, locked_output
from pipeline.flow import Walk
from pipeline.home import resolve
from pipeline.ingest.entry import ListingError
from pipeline.ingest.sources import read_exclusions
from pipeline.pack.takedown import shards_holding
from pipeline.run_record import RunRecord, TierResult, versions
from pipeline.storage import Store, is_url
from schemas.tier import TierName

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class RunRequest:
    """The options of one run, checked."""

    config: PipelineConfig
    tiers: tuple[TierName, ...]
    inputs: tuple[str, ...]
    store: Store
    engine: EngineName
    exclude: frozenset[str]

    @classmethod
    def make(
        cls,
        *,
        tiers: Sequence[TierName],
        inputs: Sequence[str],
        output: str,
        config_path: Path | None,
        overrides: Sequence[str],
        engine: str,
        exclude: Path | None,
    ) -> Self:
        """Raises ConfigError, LostOutputError, ListingError or DemoMediaError."""
        engines: tuple[EngineName, ...] = get_args(EngineName)
        chosen = next((name for name in engines if name == engine), None)
        if chosen is None:
            raise ConfigError(f"--engine {engine}: choose {' or '.join(engines)}")
        places = tuple(resolve(place) for place in inputs)
        for place in places:
            if not is_url(place) and not Path(place).exists():
                raise ListingError(f"{place}: does not exist")
        return cls(
            config=load_config(config_path, overrides),
            tiers=tuple(tiers),
            inputs=places or (str(fetch_demo_media()),),
            store=Store(resolve(output)),
            engine=chosen,
            exclude=read_exclusions(exclude) if exclude else frozenset(),
        )


def run_curation(request: RunRequest, console: Console) -> None:
    """Run the whole walk, keep the record current, print each tier's funnel."""
    started = time.monotonic()
    with locked_output(request.store.location) as store:
        walk = Walk(
            config=request.config,
            store=store,
            inputs=request.inputs,
            exclude=request.exclude,
            tiers=request.tiers,
        )
        record = RunRecord(
            verdict="running",
            engine=request.engine,
            inputs=request.inputs,
            config=request.config.model_dump(mode="json"),
            versions=versions(),
        )
        record.write(store)
        verdict, error = "failed", None
        try:
            with make_engine(
                request.engine, request.config.engine, output=store.location
            ) as engine:
                walk.run(engine)
            verdict = "succeeded"
        except KeyboardInterrupt:
            verdict, error = "interrupted", "interrupted; the same command goes on from here"
            raise
        except Exception as problem:
            error = f"{type(problem).__name__}: {problem}"
            raise
        finally:
            record = RunRecord.model_validate(
                {
                    **record.model_dump(),
                    "verdict": verdict,
                    "error": error,
                    "seconds": round(time.monotonic() - started, 3),
                    **walk.record_fields(),
                }
            )
            record.write(store)
    for line in takedown_lines(store, request.exclude):
        console.print(line, soft_wrap=True, markup=False)
    for result in record.tiers:
        console.print(funnel_table(result))
        for line in result.captioning.lines() if result.captioning else ():
            console.print(line, soft_wrap=True, markup=False)
        console.print(f"manifest: {store.full(result.manifest)}", soft_wrap=True, markup=False)
    console.print(f"run {record.verdict} in {record.seconds:.0f} s", markup=False)


def dry_run_report(request: RunRequest, console: Console) -> None:
    """What would run and what is done, and whether the cluster can; writes nothing."""
    from pipeline.dry_run import plan_walk, plan_workers

    check_version(request.store)
    lines = list(plan_walk(request.config, request.store, request.inputs, request.exclude))
    table = RichTable("pass", "items", "done", "to do", title="dry run: nothing is written")
    for line in lines:
        counts = (line.num_items, line.num_done, line.num_left)
        table.add_row(line.name, *("?" if count is None else str(count) for count in counts))
    console.print(table)
    with make_engine(request.engine, request.config.engine) as engine:
        for name, num_workers in plan_workers(request.config, request.store, engine):
            console.print(f"{name}: {num_workers} workers at once", markup=False)


def takedown_lines(store: Store, exclude: frozenset[str]) -> Iterator[str]:
    """The shards that still hold excluded sources; none are named by a manifest of this run."""
    for held in shards_holding(store, exclude) if exclude else ():
        remedy = "run its tier again" if held.is_named else "gc removes it"
        place, num_clips = store.full(held.shard), len(held.clip_ids)
        yield f"holds {num_clips} clips of excluded sources: {place} ({remedy})"


def funnel_table(result: TierResult) -> RichTable:
    """Packed, rejected and failed clips, as a table that adds up."""
    funnel = result.funnel
    table = RichTable("", "clips", title=f"{result.tier}: {funnel.num_clips} clips")
    for step in funnel.rejected:
        table.add_row(f"rejected: {step.reason}", str(step.num_clips))
    for step in funnel.failed:
        table.add_row(f"failed: {step.reason}", str(step.num_clips))
    table.add_row("packed", str(funnel.num_packed), style="bold", end_section=True)
    return table
