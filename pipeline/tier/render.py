"""Tier answers for people: tables on a terminal, and a config as TOML."""

from rich.console import Console
from rich.table import Table

from pipeline.tier.calibrate import Calibration
from pipeline.tier.config import Limit, TierConfig, TiersConfig
from pipeline.tier.explain import Explanation, LimitLine
from pipeline.tier.funnel import TierFunnel
from schemas.tier import IMAGE_TIERS, VIDEO_TIERS, TierName

Range = tuple[float | None, float | None]


def render_funnel(funnel: TierFunnel, console: Console) -> None:
    """Every rule that removes a clip, then what could not be judged, then what passes."""
    table = Table("rule", title=f"{funnel.tier}: {funnel.num_clips} clips")
    for column in ("fail it", "fail it first", "fail only it"):
        table.add_column(column, justify="right")
    for rule in funnel.rules:
        if rule.alone or rule.first:
            table.add_row(rule.reason, str(rule.alone), str(rule.first), str(rule.only))
    for step in funnel.counts.failed:
        table.add_row(step.reason, "", str(step.num_clips), "", style="yellow")
    table.add_row("passed", "", str(funnel.num_passed), "", style="bold")
    console.print(table)


def render_explanation(told: Explanation, console: Console) -> None:
    """The verdict of every tier, then each number beside the limits of the tiers."""
    console.print(f"clip {told.clip_id}\n{told.source_uri}", highlight=False, soft_wrap=True)
    rate = "" if told.fps is None else f", {told.fps:.3f} fps"
    console.print(f"{told.start_s:.3f} s to {told.end_s:.3f} s, {told.width}x{told.height}{rate}")
    if told.duplicate_of is not None:
        console.print(f"lost to {told.duplicate_of}, cosine similarity {told.similarity}")
    for verdict in told.verdicts:
        bucket = "" if verdict.bucket is None else verdict.bucket.name
        console.print(f"{verdict.tier}: {verdict.reason or f'passes into {bucket}'}")
    tiers = [verdict.tier for verdict in told.verdicts]
    table = Table("score", "value", *tiers)
    for line in told.scores:
        value = "none" if line.value is None else f"{line.value:.4g}"
        table.add_row(line.score, value, *(_cell(line, tier) for tier in tiers))
    console.print(table)


def render_calibration(done: Calibration, console: Console) -> None:
    table = Table("tier", "of", "keeps", "retained", "wanted")
    for tier in done.tiers:
        shares = (f"{tier.retained:.3f}", f"{tier.wanted:.3f}")
        table.add_row(tier.tier, str(tier.num_before), str(tier.num_passed), *shares)
    console.print(table)


def tiers_toml(config: TiersConfig) -> str:
    """The config as a file that `load_tiers` reads back to an equal one."""
    lines = [f"min_fps = {config.min_fps}", f"min_aspect_area = {config.min_aspect_area}"]
    for tier in (*VIDEO_TIERS, *IMAGE_TIERS):
        own = config.own(tier)
        lines += ["", f"[{tier}]", f"size = {list(own.size)}", f"frames = {list(own.frames)}"]
        if own.limits:
            lines += ["", f"[{tier}.limits]", *_limit_lines(own)]
    return "\n".join([*lines, ""])


def range_text(limits: Range) -> str:
    """`0.6 to 80`, `at least 0.6`, `at most 80`."""
    low, high = limits
    if low is not None and high is not None:
        return f"{low:g} to {high:g}"
    return f"at least {low:g}" if low is not None else f"at most {high:g}"


def limits_markdown(config: TiersConfig) -> str:
    """The table of docs/tiers.md: every limit of every tier, with what is taken over."""
    tiers: tuple[TierName, ...] = (*VIDEO_TIERS[:-1], *IMAGE_TIERS)
    scores = sorted({rule.score for tier in tiers for rule in config[tier].rules})
    rows = [["score", *tiers], ["---"] * (len(tiers) + 1)]
    for score in scores:
        stage, _, name = score.partition(".")
        limits = [config[tier].limits.get(stage, {}).get(name) for tier in tiers]
        cells = ["" if limit is None else range_text((limit.min, limit.max)) for limit in limits]
        rows.append([f"`{score}`", *cells])
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _limit_lines(tier: TierConfig) -> list[str]:
    return [
        f"{stage}.{name} = {_inline(limit)}"
        for stage, fields in tier.limits.items()
        for name, limit in fields.items()
    ]


def _inline(limit: Limit) -> str:
    parts = [
        f"{side} = {value!r}"
        for side, value in (("min", limit.min), ("max", limit.max))
        if value is not None
    ]
    if limit.fixed:
        parts.append("fixed = true")
    return f"{{ {', '.join(parts)} }}"


def _cell(line: LimitLine, tier: TierName) -> str:
    if tier not in line.limits:
        return ""
    text = range_text(line.limits[tier])
    return f"[red]{text}[/red]" if tier in line.failing else text
