"""Commands that look at an output and answer from its tables and shards; no media is opened."""

from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
from rich.console import Console
from rich.table import Table as RichTable

from pipeline.config import PipelineConfig, load_config
from pipeline.engine.output_lock import locked_output
from pipeline.pack.gc import collect_garbage
from pipeline.pack.inspect import Inspection, ScoreHistogram, inspect_manifest
from pipeline.pack.verify import verify_manifest
from pipeline.review.verdict import read_verdicts, with_approvals
from pipeline.run_record import read_run_record
from pipeline.storage import Store
from pipeline.tier.calibrate import calibrate_tables
from pipeline.tier.explain import UnknownClipError, explain_clip
from pipeline.tier.funnel import tier_funnel
from pipeline.tier.join import load_joined
from pipeline.tier.render import render_calibration, render_explanation, render_funnel, tiers_toml
from schemas.shard import ShardSample
from schemas.tier import TierName

_BARS = " ▁▂▃▄▅▆▇█"


def show_funnel(
    store: Store, tier: TierName, config: Path | None, overrides: Sequence[str], console: Console
) -> None:
    settings = load_config(config, overrides)
    tables = _tables_now(store, settings)
    render_funnel(tier_funnel(store, tables, settings.tiers, tier), console)


def show_explanation(
    store: Store, clip_id: str, config: Path | None, overrides: Sequence[str], console: Console
) -> None:
    """`clip_id` may be the beginning of one. Raises UnknownClipError."""
    settings = load_config(config, overrides)
    tables = _tables_now(store, settings)
    found = _complete_id(load_joined(store, tables, ["clip_id"])["clip_id"], clip_id)
    render_explanation(explain_clip(store, tables, settings.tiers, found), console)


def write_calibration(
    store: Store,
    retain: float,
    to: Path | None,
    config: Path | None,
    overrides: Sequence[str],
    console: Console,
) -> None:
    tables = read_run_record(store).tables
    done = calibrate_tables(store, tables, load_config(config, overrides).tiers, retain)
    render_calibration(done, console)
    text = tiers_toml(done.config)
    if to is None:
        console.print(text, markup=False, highlight=False, soft_wrap=True)
    else:
        to.write_text(text)
        console.print(f"written: {to}", markup=False)


def show_inspection(location: str, console: Console) -> None:
    inspection = inspect_manifest(location)
    console.print(_totals(inspection))
    console.print(_histograms(inspection.histograms))
    console.print(sample_table(inspection.first))


def show_verification(location: str, console: Console) -> None:
    """Names every problem, then ends with exit code 1."""
    report = verify_manifest(location)
    for problem in report.problems:
        console.print(f"{problem.shard}: {problem.message}", markup=False, soft_wrap=True)
    if report.other_plans:
        console.print(f"{len(report.other_plans)} shards of other plans lie beside it: see gc")
    if not report.ok:
        console.print(f"{location}: {len(report.problems)} problems", markup=False, soft_wrap=True)
        raise SystemExit(1)
    console.print(
        f"{report.num_shards} shards, {report.num_samples} samples: all as the manifest says"
    )


def show_garbage(store: Store, console: Console, *, dry_run: bool) -> None:
    """Raises OutputLockedError while a run writes here, unless it is only asked."""
    tables = read_run_record(store).tables
    with nullcontext() if dry_run else locked_output(store.location):
        garbage = collect_garbage(store, dry_run=dry_run, current_tables=tables)
    for path in garbage.paths:
        console.print(path, markup=False, soft_wrap=True)
    verb = "would free" if dry_run else "freed"
    console.print(f"{len(garbage.paths)} files, {verb} {garbage.num_bytes / 2**20:.1f} MiB")


def sample_table(samples: Sequence[ShardSample]) -> RichTable:
    """One row per sample: its id, shape, a few scores and what its caption says."""
    rows = RichTable("clip_id", "bucket", "fps", "speed %/s", "lines", "camera", "caption")
    for sample in samples:
        motion, clarity = sample.scores.motion, sample.scores.clarity
        rows.add_row(
            sample.clip_id[:12],
            f"f{sample.num_frames:03d}_{sample.height}x{sample.width}",
            f"{sample.fps:g}" if sample.fps else "-",
            f"{motion.speed:.1f}" if motion else "-",
            f"{clarity.effective_height:.0f}" if clarity else "-",
            sample.camera_movement or "-",
            sample.caption.to_prompt() or "-",
        )
    return rows


def _tables_now(store: Store, config: PipelineConfig) -> dict[str, str]:
    """The last run's tables, with the approvals as they are now where anybody judged a clip."""
    tables = read_run_record(store).tables
    verdicts = read_verdicts(store, config.review)
    return with_approvals(store, tables, verdicts) if verdicts else tables


def _complete_id(clip_ids: "pa.ChunkedArray[pa.StringScalar]", beginning: str) -> str:
    found = pc.unique(clip_ids.filter(pc.starts_with(clip_ids, beginning))).to_pylist()
    if len(found) != 1:
        raise UnknownClipError(f"{len(found)} clips begin with {beginning!r}, need exactly one")
    return str(found[0])


def _totals(inspection: Inspection) -> RichTable:
    manifest = inspection.manifest
    title = (
        f"{manifest.tier}: {manifest.totals.num_samples} samples, captioner {manifest.captioner}"
    )
    table = RichTable("bucket", title=title)
    for column in ("shards", "samples", "frames", "seconds", "MiB"):
        table.add_column(column, justify="right")
    for bucket in inspection.buckets:
        table.add_row(
            bucket.bucket,
            str(bucket.num_shards),
            str(bucket.num_samples),
            str(bucket.num_frames),
            f"{bucket.duration_s:.1f}",
            f"{bucket.num_bytes / 2**20:.1f}",
        )
    return table


def _histograms(histograms: Sequence[ScoreHistogram]) -> RichTable:
    table = RichTable("score", "low", "median", "high", "low to high")
    for one in histograms:
        table.add_row(
            one.score, f"{one.low:.3g}", f"{one.median:.3g}", f"{one.high:.3g}", _bars(one.counts)
        )
    return table


def _bars(counts: Sequence[int]) -> str:
    """A bar per bin: none for an empty one, at least the smallest for any other."""
    top = max(counts)
    steps = len(_BARS) - 1
    return "".join(_BARS[-(-count * steps // top)] if top else " " for count in counts)
